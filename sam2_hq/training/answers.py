"""Ask the decoder, judge the answer, keep the mask it would show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_hq.modeling.sam.mask_decoder import DecoderOutput
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.ops.masks import PROMPT_LOGIT_LIMIT
from sam2_hq.structures import HQMode, PointPrompt
from sam2_hq.training.losses import Losses, LossWeights, answer_losses, candidate_iou
from sam2_hq.training.prompts import correction_click, first_click, join_points

MIN_SHOWN = 0.75
"""IoU of an object and its cells from which on the grid shows it well."""


@dataclass(frozen=True)
class Judge:
    """How answers are compared with the truth.

    weights: of the loss terms.
    stride: model pixels a cell of the grid on which masks are compared. Where the grid shows an
        object badly, IoUs are measured and clicks are placed on pixels.
    """

    weights: LossWeights
    stride: int = 4

    def pooled(self, truth: Tensor) -> Tensor:
        """Soft masks [N, S, S] on the grid of the losses, [N, S / stride, S / stride]."""
        return F.avg_pool2d(truth[:, None], self.stride)[:, 0]

    def overlap(self, logits: Tensor, truth: Tensor, small: Tensor | None = None) -> Tensor:
        """IoU of masks [N, M, h, w] and objects [N, S, S], [N, M] without gradient.

        `small` are the pooled objects where they are at hand.
        """
        logits = logits.detach()
        small = self.pooled(truth) if small is None else small
        iou = candidate_iou(at_grid(logits, small), small[:, None])
        fine = _is_fine(small)
        if fine.any():
            exact = truth[fine]
            iou[fine] = candidate_iou(at_grid(logits[fine], exact), exact[:, None])
        return iou

    def click_object(self, truth: Tensor, numbers: Tensor, central: float) -> PointPrompt:
        """A click on each object [N, S, S], by numbers [N, 4]; see `prompts.first_click`."""
        numbers = numbers.to(truth.device)

        def click(rows: Tensor, region: Tensor, stride: int) -> PointPrompt:
            return first_click(region, numbers[rows], stride=stride, central=central)

        return self._click(truth, click)

    def click_error(
        self, truth: Tensor, logits: Tensor, numbers: Tensor, central: float
    ) -> PointPrompt:
        """A click on what masks [N, 1, h, w] got wrong; see `prompts.correction_click`."""
        numbers = numbers.to(truth.device)

        def click(rows: Tensor, region: Tensor, stride: int) -> PointPrompt:
            mask = at_grid(logits[rows], region)[:, 0] > 0
            return correction_click(region, mask, numbers[rows], stride=stride, central=central)

        return self._click(truth, click)

    def _click(
        self, truth: Tensor, click: Callable[[Tensor, Tensor, int], PointPrompt]
    ) -> PointPrompt:
        """Clicks on the grid, and of objects that it shows badly on pixels.

        `click` takes rows, their objects as bool masks, and model pixels a cell.
        """
        small = self.pooled(truth)
        every = torch.arange(len(truth), device=truth.device)
        points = click(every, small > 0.5, self.stride)
        fine = every[_is_fine(small)]
        if not len(fine):
            return points
        exact = click(fine, truth[fine] > 0.5, 1)
        coords, labels = points.coords.clone(), points.labels.clone()
        coords[fine], labels[fine] = exact.coords, exact.labels
        return PointPrompt(coords, labels)


def _is_fine(small: Tensor) -> Tensor:
    """Which objects [N, h, w], given as covered shares of cells, whole cells do not show well."""
    whole = (small > 0.5).to(small)
    common, union = (small * whole).sum((1, 2)), torch.maximum(small, whole).sum((1, 2))
    return common < MIN_SHOWN * union


class Scene(NamedTuple):
    """What the decoder sees of N objects: their embedding and high-resolution maps."""

    embedding: Tensor
    high_res: tuple[Tensor, ...]

    def rows(self, index: Tensor) -> Scene:
        """The scene of some objects."""
        return Scene(self.embedding[index], tuple(level[index] for level in self.high_res))


class Prompt(NamedTuple):
    """What is asked of N objects: points, a mask, both, or nothing."""

    points: PointPrompt | None = None
    mask_logits: Tensor | None = None

    @property
    def num_points(self) -> int:
        """Points of each object; a box counts as two."""
        return 0 if self.points is None else self.points.labels.shape[1]


class Answer(NamedTuple):
    """One decode of N objects, judged.

    losses: one row an object.
    logits: [N, 1, 4g, 4g] of the candidate with the best predicted IoU.
    token: [N, C] its token; object_score: [N, 1].
    """

    losses: Losses
    logits: Tensor
    token: Tensor
    object_score: Tensor


def ask(
    model: SAM2Base,
    scene: Scene,
    prompt: Prompt,
    truth: Tensor,
    *,
    is_initial: bool,
    judge: Judge,
    hq_mode: HQMode = "off",
    several: bool | None = None,
) -> Answer:
    """Decode a prompt and judge the answer.

    Args:
        model: of any mode; what learns is decided by its parameters.
        scene: of N objects.
        prompt: for them.
        truth: [N, S, S] in 0..1.
        is_initial: whether the frame is prompted for the first time.
        judge: weights and grid.
        hq_mode: of the mask that is shown; losses are of the SAM masks.
        several: ask for three candidates, or for one; None for what a prompt of its kind gets.
    """
    if several is None:
        several = model.use_multimask(is_initial=is_initial, num_points=prompt.num_points)
    out = model.decode_candidates(
        scene.embedding,
        scene.high_res,
        points=prompt.points,
        mask_logits=prompt.mask_logits,
        candidates="all" if several else "single",
        with_hq=hq_mode != "off",
    )
    small = judge.pooled(truth)
    losses = answer_losses(
        at_grid(out.sam_logits, small),
        out.iou,
        out.object_score,
        small,
        overlap=judge.overlap(out.sam_logits, truth, small),
        is_present=is_present(truth),
        weights=judge.weights,
    )
    return _shown(out, losses, model.combine(out, hq_mode))


def _shown(out: DecoderOutput, losses: Losses, logits: Tensor) -> Answer:
    best = out.iou.detach().argmax(dim=1)
    index = torch.arange(len(best), device=best.device)
    token = out.tokens[index, best.clamp(max=out.tokens.shape[1] - 1)]
    return Answer(losses, logits[index, best][:, None], token, out.object_score)


def correct(
    prompt: Prompt,
    logits: Tensor,
    truth: Tensor,
    numbers: Tensor,
    *,
    judge: Judge,
    central: float,
    forget: bool = False,
) -> Prompt:
    """The prompt with one more click on what its answer got wrong, and with that mask.

    Args:
        prompt, truth: as in `ask`.
        logits: [N, 1, 4g, 4g] of the mask that people see.
        numbers: [N, 4] in 0..1.
        judge: weights and grid.
        central: share of clicks in the middle of the error.
        forget: leave the mask away.
    """
    logits = logits.detach()
    click = judge.click_error(truth, logits, numbers, central)
    known = logits.clamp(-PROMPT_LOGIT_LIMIT, PROMPT_LOGIT_LIMIT)
    return Prompt(join_points(prompt.points, click), None if forget else known)


def is_present(truth: Tensor) -> Tensor:
    """Which objects [N, S, S] are in sight, [N] bool."""
    return (truth > 0.5).flatten(1).any(dim=1)


def at_grid(logits: Tensor, truth: Tensor) -> Tensor:
    """Mask logits [N, M, h, w] on the grid of a truth [N, H, W]."""
    if logits.shape[-2:] == truth.shape[-2:]:
        return logits
    return F.interpolate(logits.float(), truth.shape[-2:], mode="bilinear", align_corners=False)
