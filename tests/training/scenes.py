"""Toy batches and models for training tests: discs on a flat ground."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sam2_hq.assembly import assemble_video_predictor
from sam2_hq.config import parse_model
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.draws import Draws
from tests.toy import SIDE, toy_tree

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9")


def toy_model(seed: int = 0, *, hq: bool = True, **flags: object) -> SAM2VideoPredictor:
    """A fresh toy model with its own initial weights, in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return assemble_video_predictor(parse_model(toy_tree(hq=hq, **flags))).train()


@dataclass(frozen=True)
class Discs:
    """Discs that move to the right on a flat ground."""

    side: int = SIDE
    num_frames: int = 1
    num_objects: int = 2

    def sample(self, batch_size: int, draws: Draws) -> TrainingBatch:
        place = draws.uniform(batch_size, 1, self.num_objects, 2) * 0.5 + 0.2
        radius = draws.uniform(batch_size, 1, self.num_objects) * 0.1 + 0.1
        step = torch.arange(self.num_frames).view(1, -1, 1) * 0.03
        masks = discs(
            place[..., 0] + step, place[..., 1].expand(-1, self.num_frames, -1), radius, self.side
        )
        for above in range(1, self.num_objects):
            masks[:, :, :above] *= 1 - masks[:, :, above : above + 1]
        colours = draws.uniform(batch_size, 1, self.num_objects, 3, 1, 1)
        ground = 1 - masks.sum(dim=2, keepdim=True)
        frames = 0.5 * ground + (masks[:, :, :, None] * colours).sum(dim=2)
        return TrainingBatch(frames, masks)


def discs(x: Tensor, y: Tensor, radius: Tensor, side: int) -> Tensor:
    """Masks [..., side, side] of discs whose centre and radius are shares of the side."""
    grid = (torch.arange(side) + 0.5) / side
    dx = grid - x[..., None, None]
    dy = grid[:, None] - y[..., None, None]
    return (dx**2 + dy**2 < radius[..., None, None] ** 2).float()
