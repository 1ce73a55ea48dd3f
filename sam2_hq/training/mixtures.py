"""Sources made of sources: stills among clips, and batches in which every clip has an object."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sam2_hq.training.batch import BatchSource, TrainingBatch

MAX_TRIES = 20


@dataclass(frozen=True)
class ClipsAndStills:
    """Batches of clips, and now and then a larger batch of stills.

    still_share: share of the batches that are stills.
    still_factor: how many stills take the place of a clip.
    """

    clips: BatchSource
    stills: BatchSource
    still_share: float = 0.2
    still_factor: int = 2

    def sample(self, batch_size: int, generator: torch.Generator) -> TrainingBatch:
        """Draw a batch of one of the two."""
        if torch.rand((), generator=generator) < self.still_share:
            return self.stills.sample(batch_size * self.still_factor, generator)
        return self.clips.sample(batch_size, generator)


@dataclass(frozen=True)
class WithObjects:
    """A source whose clips all show an object on their first frame.

    A clip that shows none gives its place to a copy of one that does.
    """

    source: BatchSource

    def sample(self, batch_size: int, generator: torch.Generator) -> TrainingBatch:
        """Draw a batch.

        Raises:
            ValueError: if the source gives no clip with an object.
        """
        for _ in range(MAX_TRIES):
            batch = self.source.sample(batch_size, generator)
            good = (batch.masks[:, 0] > 0.5).flatten(1).any(dim=1)
            if good.all():
                return batch
            if good.any():
                stand_in = good.int().argmax()
                index = torch.where(good, torch.arange(len(good), device=good.device), stand_in)
                return TrainingBatch(batch.frames[index], batch.masks[index])
        raise ValueError(f"source gave no clip with an object on its first frame {MAX_TRIES} times")
