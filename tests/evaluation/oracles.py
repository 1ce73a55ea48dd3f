"""The metrics once more, slowly: straight from their definitions, and by other libraries."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage

Mask = np.ndarray[Any, Any]


def contour(mask: Mask) -> Mask:
    height, width = mask.shape
    found = np.zeros((height, width), dtype=bool)
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if y == height - 1:
                neighbours = [(y, x + 1)]
            elif x == width - 1:
                neighbours = [(y + 1, x)]
            inside = [(j, i) for j, i in neighbours if j < height and i < width]
            found[y, x] = any(mask[y, x] != mask[j, i] for j, i in inside)
    return found


def boundary_f(prediction: Mask, truth: Mask, tolerance: float = 0.008) -> float:
    height, width = truth.shape
    radius = tolerance if tolerance >= 1 else ceil(tolerance * sqrt(height**2 + width**2))
    one, two = np.argwhere(contour(prediction)), np.argwhere(contour(truth))
    if len(one) == 0 or len(two) == 0:
        return float(len(one) == len(two))
    near = ((one[:, None] - two[None]) ** 2).sum(-1) <= radius**2
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary_iou(prediction: Mask, truth: Mask, ratio: float = 0.02) -> float:
    distance = max(1, round(ratio * sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)))
    square = np.ones((3, 3))
    bands = [
        mask & ~ndimage.binary_erosion(mask, square, iterations=distance)
        for mask in (prediction, truth)
    ]
    union = (bands[0] | bands[1]).sum()
    return float((bands[0] & bands[1]).sum() / union) if union else 1.0


@st.composite
def mask_pairs(draw: st.DrawFn, largest: int = 140) -> tuple[Mask, Mask]:
    """Two masks of a few rectangles, discs and noise, often touching the border of the picture."""
    size = draw(st.integers(2, largest)), draw(st.integers(2, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return _shapes(rng, size), _shapes(rng, size)


def _shapes(rng: np.random.Generator, size: tuple[int, int]) -> Mask:
    mask = np.zeros(size, dtype=bool)
    rows, columns = np.ogrid[: size[0], : size[1]]
    for _ in range(rng.integers(0, 4)):
        y, x = rng.integers(0, size[0] + 1), rng.integers(0, size[1] + 1)
        reach = rng.integers(1, max(size) // 2 + 2)
        if rng.random() < 0.5:
            mask[max(0, y - reach) : y + reach, max(0, x - reach // 2) : x + reach // 2] ^= True
        else:
            mask |= (rows - y) ** 2 + (columns - x) ** 2 <= reach**2
    if rng.random() < 0.3:
        mask ^= rng.random(size) < rng.choice([0.002, 0.02, 0.3])
    return mask
