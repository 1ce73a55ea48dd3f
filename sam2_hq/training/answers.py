"""Ask the decoder, judge the answer, keep the mask it would show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_hq.modeling.sam.mask_decoder import DecoderOutput
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.ops.masks import PROMPT_LOGIT_LIMIT
from sam2_hq.structures import PointPrompt
from sam2_hq.training.losses import Losses, LossWeights, answer_losses
from sam2_hq.training.prompts import correction_click, join_points


@dataclass(frozen=True)
class Judge:
    """How answers are compared with the truth.

    weights: of the loss terms.
    stride: model pixels a cell of the grid on which masks are compared.
    """

    weights: LossWeights
    stride: int = 4

    def pooled(self, truth: Tensor) -> Tensor:
        """Soft masks [N, S, S] on the grid of the losses, [N, S / stride, S / stride]."""
        return F.avg_pool2d(truth[:, None], self.stride)[:, 0]


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
) -> Answer:
    """Decode a prompt and judge the answer.

    Args:
        model: of any mode; what learns is decided by its parameters.
        scene: of N objects.
        prompt: for them.
        truth: [N, h, w] in 0..1 on the grid of the losses.
        is_initial: whether the frame is prompted for the first time.
        judge: weights and grid.
    """
    several = model.use_multimask(is_initial=is_initial, num_points=prompt.num_points)
    out = model.decode_candidates(
        scene.embedding,
        scene.high_res,
        points=prompt.points,
        mask_logits=prompt.mask_logits,
        candidates="all" if several else "single",
    )
    logits = at_grid(out.sam_logits, truth)
    losses = answer_losses(
        logits,
        out.iou,
        out.object_score,
        truth,
        is_present=(truth > 0).flatten(1).any(dim=1),
        weights=judge.weights,
    )
    return _best(out, losses)


def _best(out: DecoderOutput, losses: Losses) -> Answer:
    best = out.iou.detach().argmax(dim=1)
    index = torch.arange(len(best), device=best.device)
    token = out.tokens[index, best.clamp(max=out.tokens.shape[1] - 1)]
    chosen = out.sam_logits[index, best][:, None]
    return Answer(losses, chosen, token, out.object_score)


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
    mask = at_grid(logits, truth)[:, 0] > 0
    click = correction_click(truth > 0.5, mask, numbers, stride=judge.stride, central=central)
    known = logits.clamp(-PROMPT_LOGIT_LIMIT, PROMPT_LOGIT_LIMIT)
    return Prompt(join_points(prompt.points, click), None if forget else known)


def at_grid(logits: Tensor, truth: Tensor) -> Tensor:
    """Mask logits [N, M, h, w] on the grid of a truth [N, H, W]."""
    if logits.shape[-2:] == truth.shape[-2:]:
        return logits
    return F.interpolate(logits.float(), truth.shape[-2:], mode="bilinear", align_corners=False)
