"""Attention over values narrower than the keys, for a CPU without gradients.

A memory has 64 channels, the keys made of it 256. Values are a linear map of the memory, and the
weights of a query sum to one, so the map may come after the mean: the same result up to rounding,
with a quarter of that work. PyTorch's fused kernel for the CPU wants values as wide as the keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_QUERIES = 256  # smaller maps take no time; fewer operators count there
MAX_SCORES = 150 * 2**20 // 4  # scores at a time: 150 MiB
LINE = 16  # numbers in 64 bytes; products into rows that begin between lines take up to 1.6 times


def is_narrow_faster(q: Tensor, values: Tensor) -> bool:
    """Whether `narrow_attention` applies to q [B, N, D] and values [B, L, Cm], and pays off."""
    return (
        q.device.type == "cpu"
        and q.dtype == values.dtype == torch.float32
        and q.shape[0] == values.shape[0] == 1
        and q.shape[1] >= MIN_QUERIES
        and 2 * values.shape[2] <= q.shape[2]
        and not torch.is_grad_enabled()  # gradients would keep all scores
        and not torch.compiler.is_compiling()
    )


def narrow_attention(q: Tensor, k: Tensor, values: Tensor) -> Tensor:
    """Mean of the values under softmax(q k / sqrt(D)): q [1, N, D], k [1, L, D] to [1, N, Cm].

    One buffer holds the scores of some queries: fresh ones cost more than the arithmetic saves.
    """
    num_queries, num_keys = q.shape[1], k.shape[1]
    keys, scale = k[0].t(), q.shape[2] ** -0.5
    width = num_keys + -num_keys % LINE
    num_rows = min(max(MAX_SCORES // width, 1), num_queries)
    scores = q.new_empty(num_rows, width)
    means = q.new_empty(num_queries, values.shape[2])
    for rows, target in zip(q[0].split(num_rows), means.split(num_rows), strict=True):
        padded = scores[: len(rows)]
        part = padded[:, :num_keys]
        torch.addmm(part, rows, keys, beta=0, alpha=scale, out=part)  # beta 0: part is not read
        padded[:, num_keys:].fill_(-torch.inf)
        torch.softmax(padded, dim=1, out=padded)
        torch.mm(part, values[0], out=target)
    return means[None]
