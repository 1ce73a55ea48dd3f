"""What a training step sees, and who makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sam2_hq.training.draws import Draws


@dataclass(frozen=True)
class TrainingBatch:
    """Clips with their true masks; a still is a clip of one frame.

    frames: [B, T, 3, S, S] float32, RGB in 0..1, not normalised.
    masks: [B, T, O, S, S] float32 in 0..1: soft where the alpha is exact, else 0 or 1. An absent
        object is 0 on that frame; an unused object slot is 0 on all frames.
    keys: B names of the clips where they come again, equal for equal clips; else none.
    """

    frames: Tensor
    masks: Tensor
    keys: tuple[int, ...] = ()


class ClipMaker(Protocol):
    """Makes clips, each from its seed alone, whatever else is made with it."""

    def make(self, seeds: Sequence[int]) -> TrainingBatch:
        """One clip for each seed."""
        ...


class BatchSource(Protocol):
    """Draws endless batches. The same draws give the same batch."""

    def sample(self, batch_size: int, draws: Draws) -> TrainingBatch:
        """Draw our `batch_size` clips of a batch that may be shared with other processes."""
        ...
