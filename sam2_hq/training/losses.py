"""What an answer costs: focal, dice, IoU and presence; of several masks one or two pay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_hq.checks import check_numbers, check_shares

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


@dataclass(frozen=True)
class LossWeights:
    """Factors of the four terms; the published ones by default.

    squared_iou: hold predicted IoUs to the truth by squared error. The candidate with the best
        *mean* IoU is the one to show; absolute error, as published for training, asks for medians.
    shown: share of mask and dice that the candidate with the best predicted IoU pays, which is the
        one people get to see; the rest is for the cheapest one.
    """

    mask: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    presence: float = 1.0
    squared_iou: bool = False
    shown: float = 0.0

    def __post_init__(self) -> None:
        check_shares(vars(self), "shown")
        check_numbers(vars(self), "mask", "dice", "iou", "presence", least=0)


class Losses(NamedTuple):
    """Unweighted terms, one row an answer: each [N]."""

    mask: Tensor
    dice: Tensor
    iou: Tensor
    presence: Tensor

    def total(self, weights: LossWeights) -> Tensor:
        """The weighted sum of the terms, [N]."""
        terms = [getattr(weights, name) * term for name, term in self._asdict().items()]
        return torch.stack(terms).sum(dim=0)


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Sigmoid focal loss, mean over pixels: [N, M, H, W] and soft [N, 1, H, W] to [N, M].

    Source: Lin et al., 2017; for a soft target the probability of it takes the place of p_t.
    """
    target = target.expand_as(logits)
    cost = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = logits.sigmoid()
    wrong = p + target - 2 * p * target
    alpha = FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)
    return (alpha * wrong**FOCAL_GAMMA * cost).mean(dim=(2, 3))


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft overlap: [N, M, H, W] and [N, 1, H, W] to [N, M]."""
    p = logits.sigmoid()
    overlap = 2 * (p * target).sum(dim=(2, 3)) + 1
    return 1 - overlap / (p.sum(dim=(2, 3)) + target.sum(dim=(2, 3)) + 1)


def candidate_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of logits > 0 and target > 0.5: [N, M, H, W] to [N, M], without gradient."""
    with torch.no_grad():
        mask, truth = logits > 0, target > 0.5
        union = (mask | truth).sum(dim=(2, 3)).clamp(min=1)
        return (mask & truth).sum(dim=(2, 3)) / union


def answer_losses(
    logits: Tensor,
    iou: Tensor,
    object_score: Tensor,
    target: Tensor,
    *,
    overlap: Tensor,
    is_present: Tensor,
    weights: LossWeights,
) -> Losses:
    """Losses of one decode.

    Of several candidates the one that costs least pays for mask and dice, with `weights.shown` the
    one that is shown too; the predicted IoUs of all are held to the truth. An absent object pays
    for presence alone.

    Args:
        logits: [N, M, h, w].
        iou: [N, M] predicted.
        object_score: [N, 1] logit.
        target: [N, h, w] in 0..1, on the grid of the logits.
        overlap: [N, M] true IoU, which the predicted one is held to.
        is_present: [N] bool, whether the object is in the picture.
        weights: decide which candidates pay, and how IoUs are compared.
    """
    logits, target = logits.float(), target.float()[:, None]
    focal, dice = focal_loss(logits, target), dice_loss(logits, target)
    cheapest = (weights.mask * focal + weights.dice * dice).argmin(dim=1, keepdim=True)
    shown = iou.argmax(dim=1, keepdim=True)

    def paid(term: Tensor) -> Tensor:
        own = torch.lerp(term.gather(1, cheapest), term.gather(1, shown), weights.shown)
        return own[:, 0] * present

    present = is_present.to(focal)
    error = (iou.float() - overlap).abs()
    error = (error**2 if weights.squared_iou else error).mean(dim=1)
    score = object_score.float()[:, 0]
    return Losses(
        mask=paid(focal),
        dice=paid(dice),
        iou=error * present,
        presence=F.binary_cross_entropy_with_logits(score, present, reduction="none"),
    )


def join_losses(parts: Iterable[Losses]) -> Losses:
    """All rows of several answers."""
    return Losses(*(torch.cat(term) for term in zip(*parts, strict=True)))
