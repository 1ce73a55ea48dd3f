"""Batches made of clips: every clip has an object, and stills come among clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sam2_hq.training.batch import BatchSource, ClipMaker, TrainingBatch
from sam2_hq.training.draws import Draws

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

    def sample(self, batch_size: int, draws: Draws) -> TrainingBatch:
        """Draw a batch of one of the two."""
        if draws.chance(self.still_share):
            return self.stills.sample(batch_size * self.still_factor, draws)
        return self.clips.sample(batch_size, draws)


@dataclass(frozen=True)
class FixedPool:
    """A maker that knows `size` clips and no more, so that they come again."""

    maker: ClipMaker
    size: int

    def make(self, seeds: Sequence[int]) -> TrainingBatch:
        """One of the known clips for each seed."""
        known = [seed % self.size for seed in seeds]
        return replace(self.maker.make(known), keys=tuple(known))


@dataclass(frozen=True)
class WithObjects:
    """Batches of a maker whose clips all show an object on their first frame.

    A clip that shows none is made again from the next seed, so it depends on its seed alone.
    """

    maker: ClipMaker

    def sample(self, batch_size: int, draws: Draws) -> TrainingBatch:
        """Draw a batch.

        Raises:
            ValueError: if `MAX_TRIES` seeds in a row give no object.
        """
        seeds = draws.seeds(batch_size)
        batch = self.maker.make(seeds)
        for attempt in range(1, MAX_TRIES + 1):
            empty = _without_objects(batch)
            if not len(empty):
                return batch
            again = self.maker.make([seeds[row] + attempt for row in empty.tolist()])
            batch.frames[empty], batch.masks[empty] = again.frames, again.masks
            if batch.keys:
                renamed = dict(zip(empty.tolist(), again.keys, strict=True))
                keys = tuple(renamed.get(row, key) for row, key in enumerate(batch.keys))
                batch = replace(batch, keys=keys)
        raise ValueError(f"clips must show an object on their first frame, {MAX_TRIES} had none")


def _without_objects(batch: TrainingBatch) -> Tensor:
    shown = (batch.masks[:, 0] > 0.5).flatten(1).any(dim=1)
    return torch.nonzero(~shown)[:, 0]
