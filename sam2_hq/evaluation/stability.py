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

SAME_PLACE_IOU = 0.5
"""Above it two masks are in one place. Of masks that do not overlap, at most one can be."""


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

    The two differ where a pixel changes and changes back at once. An edge that moves on does not do
    that, nor does an object that comes or goes: only one thinner than its step does.

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
    majority = (first & middle) | (middle & last) | (first & last)
    return 1 - jaccard(middle, majority)


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

    Objects that stay in their place (`SAME_PLACE_IOU`) have not switched, nor have those that
    follow one that moves on: somebody must be back in the first place, or be gone.

    Args:
        before: bool [H, W] by object id; an id that is not there is empty.
        after: the same of the next frame.

    Raises:
        ValueError: if sizes differ.
    """
    old = {i: mask for i, mask in before.items() if mask.any()}
    new = {i: mask for i, mask in after.items() if mask.any()}
    strayed = [i for i in old.keys() | new.keys() if not _same_place(new.get(i), old.get(i))]
    taken: dict[int, int] = {}
    for i in strayed:
        others = (j for j in strayed if j != i and _same_place(new.get(i), old.get(j)))
        if (owner := next(others, None)) is not None:
            taken[i] = owner
    return sorted(i for i in taken if not _moves_on(i, taken, new))


def _moves_on(object_id: int, taken: Mapping[int, int], new: Mapping[int, BoolMask]) -> bool:
    """Whether the last of the objects that follow each other is in a place of its own."""
    seen = {object_id}
    while object_id in taken:
        object_id = taken[object_id]
        if object_id in seen:
            return False
        seen.add(object_id)
    return object_id in new


def _same_place(mask: BoolMask | None, place: BoolMask | None) -> bool:
    if mask is None or place is None:
        return False
    if mask.shape != place.shape:
        raise ValueError(
            f"masks must have one size, got {list(place.shape)} and {list(mask.shape)}"
        )
    x0, y0, x1, y1 = box_around(mask)
    shared = np.count_nonzero(mask[y0 : y1 + 1, x0 : x1 + 1] & place[y0 : y1 + 1, x0 : x1 + 1])
    union = np.count_nonzero(mask) + np.count_nonzero(place) - shared
    return bool(shared > SAME_PLACE_IOU * union)


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
