"""What a training step sees, and who makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainingBatch:
    """Clips with their true masks; a still is a clip of one frame.

    frames: [B, T, 3, S, S] float32, RGB in 0..1, not normalised.
    masks: [B, T, O, S, S] float32 in 0..1: soft where the alpha is exact, else 0 or 1. An absent
        object is 0 on that frame; an unused object slot is 0 on all frames.
    """

    frames: Tensor
    masks: Tensor


class BatchSource(Protocol):
    """Draws endless batches. The same generator state gives the same batch."""

    def sample(self, batch_size: int, generator: torch.Generator) -> TrainingBatch:
        """Draw one batch of `batch_size` clips."""
        ...
