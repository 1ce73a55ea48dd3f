"""Binary masks as words of 64 pixels, so that growing and shrinking cost a few operations a row.

A packed mask is [..., W / 64, H] little-endian unsigned words; bit i of word j is column 64 j + i.
Rows come last, since a picture has more of them than words side by side, and NumPy is fast along
the last axis. Pixels outside the picture are background.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

WORD = 64


def pack(masks: NDArray[np.bool_]) -> Words:
    """Pack [..., H, W] pixels into words; the last word of a row is filled with background."""
    width = masks.shape[-1]
    if width % WORD:
        padded = np.zeros((*masks.shape[:-1], -(-width // WORD) * WORD), dtype=bool)
        padded[..., :width] = masks
        masks = padded
    words = np.packbits(masks, axis=-1, bitorder="little").view("<u8")
    return np.ascontiguousarray(words.swapaxes(-1, -2))


def unpack(words: Words, width: int) -> NDArray[np.bool_]:
    """Words back to [..., H, width] pixels."""
    rows = np.ascontiguousarray(words.swapaxes(-1, -2)).view(np.uint8)
    pixels = np.unpackbits(rows, axis=-1, bitorder="little")
    return pixels[..., :width].astype(bool)


def count(words: Words) -> int:
    """Foreground pixels."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return int(np.bitwise_count(words).sum())
    return int(np.count_nonzero(np.unpackbits(np.ascontiguousarray(words).view(np.uint8))))


def grow_by_disk(words: Words, radius: int) -> Words:
    """Dilate by the disk `dy² + dx² <= radius²`.

    A disk is a stack of horizontal runs, longer towards the middle. Going inwards, the runs so
    far move one row up and one row down while the next, longer run joins.
    """
    runs, reach = words, 0
    grown = np.zeros_like(words)
    for dy in range(radius, -1, -1):
        half_width = isqrt(radius * radius - dy * dy)
        runs = _spread(runs, reach, half_width, np.bitwise_or)
        reach = half_width
        joined = runs.copy()
        joined[..., 1:] |= grown[..., :-1]
        joined[..., :-1] |= grown[..., 1:]
        grown = joined
    return grown


def contours(words: Words, width: int) -> Words:
    """Where a mask of this width differs from its right, lower or lower right neighbour.

    Pixels outside the picture are not compared.
    """
    has_right = pack((np.arange(width) < width - 1)[None])
    right = _moved_left(words, 1)
    found = (words ^ right) & has_right
    found[..., :-1] |= words[..., :-1] ^ words[..., 1:]
    found[..., :-1] |= (words[..., :-1] ^ right[..., 1:]) & has_right
    return found


def shrink_by_square(words: Words, distance: int) -> Words:
    """Erode by a square of side `2 * distance + 1`, as `distance` erosions by 3x3 would."""
    narrow = _spread(words, 0, distance, np.bitwise_and)
    reach = 0
    while reach < distance:
        step = min(distance - reach, 2 * reach + 1)
        narrow = narrow & _moved_down(narrow, step) & _moved_down(narrow, -step)
        reach += step
    return narrow


def _spread(words: Words, reach: int, half_width: int, join: np.ufunc) -> Words:
    """Widen horizontal runs of half width `reach` to `half_width`, doubling where possible."""
    while reach < half_width:
        # No further than runs that the side of the picture cut in half can fill.
        step = min(half_width - reach, reach + 1, WORD - 1)
        words = join(join(words, _moved_right(words, step)), _moved_left(words, step))
        reach += step
    return words


def _moved_right(words: Words, step: int) -> Words:
    """Columns move `step` < 64 to the right; columns past the last word are lost."""
    moved: Any = words << np.uint64(step)
    moved[..., 1:, :] |= words[..., :-1, :] >> np.uint64(WORD - step)
    return moved


def _moved_left(words: Words, step: int) -> Words:
    moved: Any = words >> np.uint64(step)
    moved[..., :-1, :] |= words[..., 1:, :] << np.uint64(WORD - step)
    return moved


def _moved_down(words: Words, step: int) -> Words:
    moved = np.zeros_like(words)
    if step > 0:
        moved[..., step:] = words[..., :-step]
    else:
        moved[..., :step] = words[..., -step:]
    return moved
