"""Attention over values narrower than the keys, for a CPU without gradients.

A memory has 64 channels, the keys made of it 256. Values are a linear map of the memory, and the
weights of a query sum to one, so the map may come after the mean: the same result up to rounding,
with a quarter of that work. PyTorch's fused kernel for the CPU wants values as wide as the keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 1024  # queries at a time; scores of 28,736 keys are then 112 MiB


def is_narrow_faster(q: Tensor, values: Tensor) -> bool:
    """Whether `narrow_attention` applies to q [B, N, D] and values [B, L, Cm], and pays off."""
    return (
        q.device.type == "cpu"
        and q.dtype == values.dtype == torch.float32
        and q.shape[0] == values.shape[0] == 1
        and q.shape[1] >= ROWS
        and 2 * values.shape[2] <= q.shape[2]
        and not torch.is_grad_enabled()  # gradients would keep all scores
        and not torch.compiler.is_compiling()
    )


def narrow_attention(q: Tensor, k: Tensor, values: Tensor) -> Tensor:
    """Mean of the values under softmax(q k / sqrt(D)): q [1, N, D], k [1, L, D] to [1, N, Cm].

    One buffer holds the scores of `ROWS` queries: fresh ones cost more than the arithmetic saves.
    """
    keys, scale = k[0].t(), q.shape[2] ** -0.5
    scores = q.new_empty(ROWS, keys.shape[1])
    means = q.new_empty(q.shape[1], values.shape[2])
    for rows, target in zip(q[0].split(ROWS), means.split(ROWS), strict=True):
        part = scores[: len(rows)]
        torch.addmm(part, rows, keys, beta=0, alpha=scale, out=part)  # beta 0: part is not read
        torch.softmax(part, dim=1, out=part)
        torch.mm(part, values[0], out=target)
    return means[None]
