"""Prompts that an ideal user would give: the box around an object, the click that helps most."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from sam2_hq.data.masks import BoolMask


class Click(NamedTuple):
    """A click in pixels; label 1 on the object, 0 beside it."""

    x: int
    y: int
    label: int


def box_around(mask: BoolMask) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1: the first and last column and row with foreground.

    Raises:
        ValueError: if `mask` [H, W] is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        raise ValueError("mask must have foreground to have a box, got an empty one")
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def box_prompt(mask: BoolMask) -> tuple[int, int, int, int]:
    """`box_around` as a prompt, which must not be empty: at least one pixel wide and high.

    Raises:
        ValueError: if `mask` [H, W] is empty.
    """
    x0, y0, x1, y1 = box_around(mask)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def next_click(prediction: BoolMask, truth: BoolMask) -> Click:
    """The middle of the largest error: the wrong pixel farthest from where things are right.

    Args:
        prediction: bool [H, W]; all background for the first click.
        truth: bool [H, W].

    Returns:
        A click on the missing part, or beside the object where the mask goes too far; beside the
        object if both are equally deep. If all is right, (0, 0) labelled 0, as published.

    Source: the evaluation of SAM 2 (Ravi et al., 2024), click method "center".
    """
    missing, depth_missing = _deepest(truth & ~prediction)
    excess, depth_excess = _deepest(prediction & ~truth)
    if depth_missing > depth_excess:
        return Click(*missing, 1)
    return Click(*excess, 0)


def _deepest(region: BoolMask) -> tuple[tuple[int, int], float]:
    """x, y and distance to the border of the pixel farthest from it; the picture's edge counts."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if rows.size == 0:
        return (0, 0), 0.0
    y, x = int(rows[0]), int(columns[0])
    box = region[y : rows[-1] + 1, x : columns[-1] + 1]
    depth = ndimage.distance_transform_edt(np.pad(box, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return (x + int(column), y + int(row)), float(depth[row, column])
