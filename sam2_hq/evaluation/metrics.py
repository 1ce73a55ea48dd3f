"""J, F and boundary IoU of two binary masks, and what the benchmarks report of a sequence of them.

Pure functions on arrays. A mask is [H, W]; every pixel that is not zero is foreground. Which
frames and objects count is the business of `scoring`.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_hq.evaluation.packed_masks import (
    Words,
    contours,
    count,
    grow_by_disk,
    pack,
    shrink_by_square,
    unpack,
)

Mask = NDArray[np.bool_]

BOUNDARY_TOLERANCE = 0.008
"""Share of the picture's diagonal within which contour pixels match (DAVIS)."""

BOUNDARY_IOU_RATIO = 0.02
"""Share of the picture's diagonal that counts as boundary in boundary IoU."""


class SequenceStatistics(NamedTuple):
    """What DAVIS reports of the values of one object over time."""

    mean: float
    recall: float
    decay: float


def jaccard(prediction: ArrayLike, truth: ArrayLike, *, void: ArrayLike | None = None) -> float:
    """Region similarity J: intersection over union, 1 where both masks are empty.

    Args:
        prediction: [H, W], foreground where not zero.
        truth: [H, W].
        void: [H, W], pixels that do not count.

    Returns:
        J, from 0 to 1.

    Raises:
        ValueError: if a mask is not [H, W] or the sizes differ.
    """
    first, second = _mask_pair(prediction, truth, void)
    return _overlap(int(np.count_nonzero(first & second)), int(np.count_nonzero(first | second)))


def boundary_f(
    prediction: ArrayLike,
    truth: ArrayLike,
    *,
    tolerance: float = BOUNDARY_TOLERANCE,
    void: ArrayLike | None = None,
) -> float:
    """Contour accuracy F: harmonic mean of the shares of contour pixels that have a partner.

    Args:
        prediction: [H, W], foreground where not zero.
        truth: [H, W].
        tolerance: largest distance of partners; below 1 a share of the diagonal, rounded up to
            whole pixels, otherwise pixels.
        void: [H, W], pixels taken as background in both masks.

    Returns:
        F, from 0 to 1; 1 where both contours are empty and 0 where one is.

    Raises:
        ValueError: if a mask is not [H, W], the sizes differ or `tolerance` is not positive.

    Source: Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object
    Segmentation, 2016, with contours and disks as in the DAVIS 2017 evaluation.
    """
    return jaccard_and_boundary_f(prediction, truth, tolerance=tolerance, void=void)[1]


def jaccard_and_boundary_f(
    prediction: ArrayLike,
    truth: ArrayLike,
    *,
    tolerance: float = BOUNDARY_TOLERANCE,
    void: ArrayLike | None = None,
) -> tuple[float, float]:
    """`jaccard` and `boundary_f` of the same masks in one go."""
    first, second = _mask_pair(prediction, truth, void)
    radius = tolerance_in_pixels(first.shape, tolerance)
    box = _box_around(first, second)
    if box is None:
        return 1.0, 1.0
    words = pack(np.stack([first[box], second[box]]))
    region = _overlap(count(words[0] & words[1]), count(words[0] | words[1]))
    return region, _matching(contours(words, first[box].shape[1]), radius)


def boundary_iou(
    prediction: ArrayLike, truth: ArrayLike, *, ratio: float = BOUNDARY_IOU_RATIO
) -> float:
    """Intersection over union of the bands along the inner side of two outlines.

    A band is what `d` erosions by a 3x3 square take away, the border of the picture included.

    Args:
        prediction: [H, W], foreground where not zero.
        truth: [H, W].
        ratio: width `d` of the band as a share of the diagonal, at least one pixel.

    Returns:
        Boundary IoU, from 0 to 1; 1 where both masks are empty.

    Raises:
        ValueError: if a mask is not [H, W], the sizes differ or `ratio` is not positive.

    Source: Cheng et al., Boundary IoU, 2021.
    """
    first, second = _mask_pair(prediction, truth, None)
    distance = _band_width(first.shape, ratio)
    box = _box_around(first, second)
    if box is None:
        return 1.0
    bands = _bands(pack(np.stack([first[box], second[box]])), distance)
    return _overlap(count(bands[0] & bands[1]), count(bands[0] | bands[1]))


def boundary_band(mask: ArrayLike, *, ratio: float = BOUNDARY_IOU_RATIO) -> Mask:
    """The pixels that boundary IoU compares: bool [H, W], part of the mask.

    Args:
        mask: [H, W], foreground where not zero.
        ratio: as in `boundary_iou`.

    Raises:
        ValueError: if the mask is not [H, W] or `ratio` is not positive.
    """
    whole = _mask("mask", mask)
    distance = _band_width(whole.shape, ratio)
    band = np.zeros_like(whole)
    box = _box_around(whole, whole)
    if box is not None:
        inside = whole[box]
        band[box] = unpack(_bands(pack(inside), distance), inside.shape[1])
    return band


def boundary_map(mask: Mask) -> Mask:
    """One-pixel contour: where a mask differs from its right, lower or lower right neighbour.

    Args:
        mask: [H, W] bool. Pixels outside are not compared.

    Returns:
        [H, W] bool, shifted half a pixel up and to the left.
    """
    return unpack(contours(pack(mask), mask.shape[1]), mask.shape[1])


def tolerance_in_pixels(size: tuple[int, ...], tolerance: float = BOUNDARY_TOLERANCE) -> int:
    """Distance within which contour pixels match in a picture of `size` = (height, width).

    Raises:
        ValueError: if `tolerance` is not positive, or above 1 and not whole.
    """
    if not tolerance > 0 or (tolerance >= 1 and tolerance != int(tolerance)):
        raise ValueError(
            f"tolerance must be a share of the diagonal below 1 or whole pixels, got {tolerance}"
        )
    if tolerance >= 1:
        return int(tolerance)
    return ceil(tolerance * float(np.linalg.norm(size)))


def statistics(values: ArrayLike, *, strict_official: bool = False) -> SequenceStatistics:
    """Mean, recall and decay of the J or F values of one object, as DAVIS 2017 reports them.

    Recall is the share of frames above 0.5; decay is the mean of the first quarter less the mean
    of the last, quarters sharing the frame between them.

    Args:
        values: [T], from 0 to 1, in the order of the frames.
        strict_official: cut quarters where the official tool does, which keeps their bounds in
            eight bits: another decay, or NaN, for sequences of more than 256 frames.

    Raises:
        ValueError: if `values` is not [T] with T > 0.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"values must be [T] with at least one frame, got {list(scores.shape)}")
    bounds = (np.round(np.linspace(1, len(scores), 5) + 1e-10) - 1).astype(np.int64)
    if strict_official:
        bounds %= 256
    quarters = scores[bounds[0] : bounds[1] + 1], scores[bounds[3] : bounds[4] + 1]
    first, last = (float(part.mean()) if part.size else float("nan") for part in quarters)
    return SequenceStatistics(float(scores.mean()), float((scores > 0.5).mean()), first - last)


def _mask_pair(prediction: ArrayLike, truth: ArrayLike, void: ArrayLike | None) -> list[Mask]:
    masks = [_mask("prediction", prediction), _mask("truth", truth)]
    if masks[0].shape != masks[1].shape:
        raise ValueError(
            f"prediction must have the size of truth, {list(masks[1].shape)}, "
            f"got {list(masks[0].shape)}"
        )
    if void is None:
        return masks
    counted = ~_mask("void", void)
    if counted.shape != masks[1].shape:
        raise ValueError(
            f"void must have the size of truth, {list(masks[1].shape)}, got {list(counted.shape)}"
        )
    return [mask & counted for mask in masks]


def _mask(name: str, value: ArrayLike) -> Mask:
    array = np.asarray(value)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be [H, W], got {list(array.shape)}")
    return array if array.dtype == bool else array != 0


def _matching(outlines: Words, radius: int) -> float:
    """F of two contours."""
    predicted, true = count(outlines[0]), count(outlines[1])
    if predicted == 0 or true == 0:
        return float(predicted == true)
    matched = outlines & grow_by_disk(outlines, radius)[::-1]
    precision, recall = count(matched[0]) / predicted, count(matched[1]) / true
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def _band_width(size: tuple[int, ...], ratio: float) -> int:
    if not ratio > 0:
        raise ValueError(f"ratio must be above 0, got {ratio}")
    return max(1, round(ratio * float(np.linalg.norm(size))))


def _bands(words: Words, distance: int) -> Words:
    return words & ~shrink_by_square(words, distance)


def _box_around(first: Mask, second: Mask) -> tuple[slice, slice] | None:
    """Rows and columns with foreground in either mask, and one more on each side if there is one.

    The extra row and column make the edge of the box behave as the picture does there.
    """
    rows = np.flatnonzero(first.any(axis=1) | second.any(axis=1))
    if rows.size == 0:
        return None
    height = slice(max(0, rows[0] - 1), rows[-1] + 2)
    columns = np.flatnonzero(first[height].any(axis=0) | second[height].any(axis=0))
    return height, slice(max(0, columns[0] - 1), columns[-1] + 2)


def _overlap(intersection: int, union: int) -> float:
    return intersection / union if union else 1.0
