"""What masks tell without a truth: outlines that flicker, objects that swap their names.

Pure functions on arrays, from one frame to the next. Empty masks are objects that are out of sight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_hq.data.masks import BoolMask
from sam2_hq.evaluation.clicks import box_around
from sam2_hq.evaluation.metrics import jaccard

MIN_OVERLAP = 0.1
"""IoU above which a mask is in the place of an older one; less is a touch. Objects of ordinary
videos that run overlap themselves by 0.3 from frame to frame, so more cannot be asked."""


def flicker(masks: Iterable[ArrayLike]) -> float | None:
    """Mean of `frame_flicker` over all frames with two neighbours.

    Args:
        masks: [T, H, W] of one object, or its frames one by one; foreground where not zero.

    Returns:
        0 for a still mask to 1 for one that blinks; None if no three frames in a row show it.

    Raises:
        ValueError: if a mask is not [H, W] or the sizes differ.
    """
    values = [frame_flicker(*window) for window in _windows(masks)]
    counted = [value for value in values if value is not None]
    return float(np.mean(counted)) if counted else None


def frame_flicker(before: ArrayLike, mask: ArrayLike, after: ArrayLike) -> float | None:
    """One less the IoU of a mask and the majority of the three frames around it.

    The two differ where a pixel changes and changes back at once, which an edge that moves on does
    not do. Nor do fast thin objects count: the neighbours are compared as they are and moved half
    of the way between their centres, and the better explanation holds.

    Args:
        before: [H, W], foreground where not zero.
        mask: [H, W], the frame that is judged.
        after: [H, W].

    Returns:
        From 0 to 1; None if all three are empty.

    Raises:
        ValueError: if a mask is not [H, W] or the sizes differ.
    """
    first, middle, last = (_as_mask(value) for value in (before, mask, after))
    if not first.shape == middle.shape == last.shape:
        raise ValueError(
            f"masks must have one size, got {list(first.shape)}, {list(middle.shape)} and "
            f"{list(last.shape)}"
        )
    if not (first.any() or middle.any() or last.any()):
        return None
    still = _unlike_majority(first, middle, last)
    if not (still and first.any() and last.any()):
        return still
    dy, dx = np.rint((_centre(last) - _centre(first)) / 2).astype(int).tolist()
    return min(still, _unlike_majority(_moved(first, dy, dx), middle, _moved(last, -dy, -dx)))


def _unlike_majority(first: BoolMask, middle: BoolMask, last: BoolMask) -> float:
    return 1 - jaccard(middle, (first & middle) | (middle & last) | (first & last))


def _centre(mask: BoolMask) -> NDArray[np.float64]:
    """Mean row and column of the foreground."""
    return np.array([indices.mean() for indices in np.nonzero(mask)])


def _moved(mask: BoolMask, dy: int, dx: int) -> BoolMask:
    """Shifted by whole pixels; background comes in."""
    height, width = mask.shape
    moved = np.zeros_like(mask)
    moved[max(0, dy) : height + dy, max(0, dx) : width + dx] = mask[
        max(0, -dy) : height - dy, max(0, -dx) : width - dx
    ]
    return moved


def identity_switches(frames: Iterable[Mapping[int, BoolMask]]) -> int:
    """How often an object is in the place that another one had on the frame before.

    Two objects that swap are two switches, as in the tracking benchmarks.

    Args:
        frames: for each frame in order, bool [H, W] by object id; an id that is not there is empty.

    Raises:
        ValueError: if sizes differ.
    """
    return sum(len(switched_objects(before, after)) for before, after in pairwise(frames))


def switched_objects(before: Mapping[int, BoolMask], after: Mapping[int, BoolMask]) -> list[int]:
    """Ids that took over the place of another object from one frame to the next.

    An object is in the place of the older mask that it overlaps most. It has switched if that is
    another's, and the other one has switched, too, or is gone: one that follows another through the
    picture, or becomes its duplicate, has not.

    Args:
        before: bool [H, W] by object id; an id that is not there is empty.
        after: the same of the next frame.

    Raises:
        ValueError: if sizes differ.
    """
    old = {i: mask for i, mask in before.items() if mask.any()}
    new = {i: mask for i, mask in after.items() if mask.any()}
    places = {i: _place(i, mask, old) for i, mask in new.items()}
    return sorted(i for i in new if _is_switched(i, places))


def _place(object_id: int, mask: BoolMask, old: Mapping[int, BoolMask]) -> int | None:
    """Whose older mask it overlaps most, its own one before others."""
    overlaps = {i: _iou(mask, older) for i, older in old.items()}
    best = max(overlaps, key=lambda i: (overlaps[i], i == object_id), default=None)
    return best if best is not None and overlaps[best] > MIN_OVERLAP else None


def _is_switched(object_id: int, places: Mapping[int, int | None]) -> bool:
    """Go from each object to the one whose place it has: in a ring, or to one that is gone."""
    seen: list[int] = []
    at: int | None = object_id
    while at is not None and at in places and at not in seen:
        seen.append(at)
        at = places[at]
    if at is None:
        return False
    return at == object_id != places[at] if at in places else len(seen) > 0


def _iou(mask: BoolMask, older: BoolMask) -> float:
    if mask.shape != older.shape:
        raise ValueError(
            f"masks must have one size, got {list(older.shape)} and {list(mask.shape)}"
        )
    x0, y0, x1, y1 = box_around(mask)
    box = slice(y0, y1 + 1), slice(x0, x1 + 1)
    shared = np.count_nonzero(mask[box] & older[box])
    return shared / (np.count_nonzero(mask) + np.count_nonzero(older) - shared)


def _windows(masks: Iterable[ArrayLike]) -> Iterator[tuple[ArrayLike, ArrayLike, ArrayLike]]:
    window: deque[ArrayLike] = deque(maxlen=3)
    for mask in masks:
        window.append(mask)
        if len(window) == 3:
            yield window[0], window[1], window[2]


def _as_mask(value: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(value)
    if array.ndim != 2:
        raise ValueError(f"masks must be [H, W], got {list(array.shape)}")
    return array if array.dtype == bool else array != 0
