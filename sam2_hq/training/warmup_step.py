"""The forward pass of the warm-up: learn where a prompt points, before learning what is there.

A fresh decoder needs long to find out that the code of a click and the code of a pixel speak of the
same place. Shapes that have nothing to do with the picture teach it that in a few hundred cheap
steps: a click asks for the disc around it, a box for the ellipse that fills it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.training.answers import Judge, Prompt, Scene, ask
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.draws import Draws
from sam2_hq.training.image_step import StepOutput
from sam2_hq.training.prompts import loose_box
from sam2_hq.transforms import normalize

MIN_DISC, MAX_DISC = 0.08, 0.18  # radii as shares of the side
MIN_AXIS, MAX_AXIS = 0.06, 0.28


class WarmupStep(nn.Module):
    """Losses of shapes drawn over a batch of stills; the image encoder does not learn."""

    def __init__(self, model: SAM2Base, *, judge: Judge, num_shapes: int = 4) -> None:
        super().__init__()
        model.image_encoder.requires_grad_(False)
        self.model = model
        self.judge = judge
        self.num_shapes = num_shapes

    def forward(self, batch: TrainingBatch, draws: Draws) -> StepOutput:
        """Ask for `num_shapes` shapes on each picture; the masks of the batch are unused."""
        frames = batch.frames[:, 0]
        with torch.no_grad():
            features = self.model.encode_image(normalize(frames))
        scene = Scene(self.model.condition(features, None), features.high_res)
        rows = torch.arange(len(frames) * self.num_shapes, device=frames.device)
        kind: Literal["click", "box"] = "click" if draws.chance(0.5) else "box"
        numbers = _Numbers(draws.uniform(len(rows), 4), draws.uniform(len(rows), 4))
        truth = shapes(numbers.shape.to(frames), frames.shape[-1], round_only=kind == "click")
        points = (
            self.judge.click_object(truth, numbers.prompt, central=1.0)
            if kind == "click"
            else loose_box(truth > 0.5, numbers.prompt)
        )
        answer = ask(
            self.model,
            scene.rows(rows // self.num_shapes),
            Prompt(points),
            truth,
            is_initial=True,
            judge=self.judge,
        )
        # Slots beyond those of the batch have no truth to show beside them.
        shown = rows[:0]
        return StepOutput(answer.losses, shown, answer.logits[:0].detach())


class _Numbers(NamedTuple):
    shape: Tensor
    prompt: Tensor


def shapes(numbers: Tensor, side: int, *, round_only: bool) -> Tensor:
    """Discs or ellipses [N, side, side] with their centres in the picture, from [N, 4] in 0..1."""
    if round_only:
        axes = MIN_DISC + (MAX_DISC - MIN_DISC) * numbers[:, 2:3].expand(-1, 2)
    else:
        axes = MIN_AXIS + (MAX_AXIS - MIN_AXIS) * numbers[:, 2:] ** 1.5
    grid = (torch.arange(side, device=numbers.device) + 0.5) / side
    dx = (grid - numbers[:, :1]) / axes[:, :1]
    dy = (grid - numbers[:, 1:2]) / axes[:, 1:]
    return (dx[:, None] ** 2 + dy[:, :, None] ** 2 < 1).float()
