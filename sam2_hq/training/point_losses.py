"""Losses on points where a mask is unsure: fine boundaries without full-size maps.

Source: HQ-SAM (Ke et al., 2023), after PointRend (Kirillov et al., 2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CANDIDATES = 3  # times as many points are looked at as are kept
UNSURE = 0.75  # share of the points that are the most unsure ones; the rest is uniform


def num_numbers(num_points: int) -> int:
    """How many random points `unsure_points` wants for `num_points`."""
    return CANDIDATES * num_points + num_points - int(UNSURE * num_points)


def unsure_points(logits: Tensor, numbers: Tensor, num_points: int) -> Tensor:
    """Points where logits are near 0, and some anywhere. No gradient runs through the choice.

    Args:
        logits: [N, 1, h, w].
        numbers: [N, num_numbers(num_points), 2] in 0..1.
        num_points: P.

    Returns:
        [N, P, 2] x and y in 0..1.
    """
    with torch.no_grad():
        candidates, fresh = numbers.to(logits.device).split(
            [CANDIDATES * num_points, numbers.shape[1] - CANDIDATES * num_points], dim=1
        )
        doubt = -sample_at(logits, candidates).abs()
        chosen = doubt.topk(num_points - fresh.shape[1], dim=1).indices
        unsure = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
        return torch.cat([unsure, fresh], dim=1)


def sample_at(maps: Tensor, points: Tensor) -> Tensor:
    """Values [N, P] of maps [N, 1, h, w] at points [N, P, 2] in 0..1, bilinear."""
    grid = (2 * points - 1)[:, :, None]
    values = F.grid_sample(maps.float(), grid, mode="bilinear", align_corners=False)
    return values[:, 0, :, 0]


def point_losses(logits: Tensor, truth: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and dice on points, each [N].

    Args:
        logits: [N, 1, h, w].
        truth: [N, S, S] in 0..1; soft edges are kept.
        points: [N, P, 2] x and y in 0..1.
    """
    value = sample_at(logits, points)
    target = sample_at(truth[:, None], points)
    cross_entropy = F.binary_cross_entropy_with_logits(value, target, reduction="none").mean(1)
    p = value.sigmoid()
    dice = 1 - (2 * (p * target).sum(1) + 1) / (p.sum(1) + target.sum(1) + 1)
    return cross_entropy, dice
