"""J, F, boundary IoU and statistics against published vectors, brute force and other tools."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage

from sam2_hq.evaluation.metrics import (
    boundary_band,
    boundary_f,
    boundary_iou,
    boundary_map,
    jaccard,
    jaccard_and_boundary_f,
    statistics,
    tolerance_in_pixels,
)
from sam2_hq.evaluation.packed_masks import grow_by_disk, pack, unpack
from tests.evaluation import oracles
from tests.evaluation.oracles import mask_pairs

Mask = np.ndarray[Any, Any]


def rectangle(
    size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int], hole: bool = False
) -> Mask:
    mask = np.zeros(size, dtype=bool)
    mask[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
    if hole:
        mask[20:24, 30:34] = False
    return mask


SMALL = (64, 96)
WIDE = (480, 854)
SQUARE = rectangle(SMALL, (10, 39), (20, 59))
LARGE = rectangle(WIDE, (100, 299), (200, 499))


@pytest.mark.parametrize(
    ("prediction", "truth", "j", "f"),
    [
        (SQUARE, SQUARE, 100, 100),
        (rectangle(SMALL, (11, 40), (20, 59)), SQUARE, 93.5484, 100),
        (rectangle(SMALL, (12, 41), (20, 59)), SQUARE, 87.5, 44.2857),
        (rectangle(SMALL, (15, 44), (20, 59)), SQUARE, 71.4286, 40),
        (rectangle(SMALL, (13, 36), (23, 56)), SQUARE, 68, 0),
        (rectangle(SMALL, (10, 39), (20, 59), hole=True), SQUARE, 98.6667, 94.5946),
        (np.zeros(SMALL, dtype=bool), SQUARE, 0, 0),
        (rectangle(WIDE, (108, 307), (200, 499)), LARGE, 92.3077, 100),
        (rectangle(WIDE, (109, 308), (200, 499)), LARGE, 91.3876, 41.6),
        (rectangle(WIDE, (100, 299), (200, 349)), LARGE, 50, 60.8235),
    ],
)
def test_j_and_f_of_shifted_rectangles_are_the_published_ones(
    prediction: Mask, truth: Mask, j: float, f: float
) -> None:
    assert 100 * jaccard(prediction, truth) == pytest.approx(j, abs=5e-5)
    assert 100 * boundary_f(prediction, truth) == pytest.approx(f, abs=5e-5)


def test_j_and_f_of_two_discs_are_the_published_ones() -> None:
    y, x = np.ogrid[: WIDE[0], : WIDE[1]]
    truth = (y - 240) ** 2 + (x - 400) ** 2 <= 100**2
    prediction = (y - 244) ** 2 + (x - 409) ** 2 <= 103**2
    assert 100 * jaccard(prediction, truth) == pytest.approx(87.8635, abs=5e-5)
    assert 100 * boundary_f(prediction, truth) == pytest.approx(68.6797, abs=5e-5)


def test_the_contour_lies_half_a_pixel_up_and_left() -> None:
    mask = rectangle((4, 5), (1, 2), (1, 2))
    drawn = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    assert (boundary_map(mask) == drawn).all()


def test_the_contour_does_not_follow_the_border_of_the_picture() -> None:
    mask = rectangle((4, 5), (2, 3), (3, 4))
    found = {tuple(point) for point in np.argwhere(boundary_map(mask)).tolist()}
    assert found == {(1, 2), (1, 3), (1, 4), (2, 2), (3, 2)}
    assert not boundary_map(np.ones((4, 5), dtype=bool)).any()


@pytest.mark.parametrize(
    ("size", "radius"),
    [
        ((64, 96), 1),
        ((100, 100), 2),
        ((480, 854), 8),
        ((480, 910), 9),
        ((720, 1280), 12),
        ((1080, 1920), 18),
    ],
)
def test_the_tolerance_grows_with_the_diagonal(size: tuple[int, int], radius: int) -> None:
    assert tolerance_in_pixels(size) == radius
    assert tolerance_in_pixels(size, 7) == 7


@given(mask_pairs(largest=40))
@settings(max_examples=60)
def test_f_is_what_the_definition_says(pair: tuple[Mask, Mask]) -> None:
    for tolerance in (0.008, 1, 3, 70):
        ours = boundary_f(*pair, tolerance=tolerance)
        assert ours == pytest.approx(oracles.boundary_f(*pair, tolerance), abs=1e-12)
    assert (boundary_map(pair[0]) == oracles.contour(pair[0])).all()


@pytest.mark.parametrize("column", [0, 1, 5, 62, 63, 64, 127])
def test_a_disk_is_whole_also_where_the_picture_cuts_it(column: int) -> None:
    pixel = np.zeros((128, 128), dtype=bool)
    pixel[64, column] = True
    rows, columns = np.mgrid[:128, :128]
    for radius in range(60):
        disk = (rows - 64) ** 2 + (columns - column) ** 2 <= radius**2
        assert (unpack(grow_by_disk(pack(pixel), radius), 128) == disk).all(), radius


@given(mask_pairs())
@settings(max_examples=60)
def test_boundary_iou_is_what_the_definition_says(pair: tuple[Mask, Mask]) -> None:
    for ratio in (0.02, 0.1, 0.7):
        assert boundary_iou(*pair, ratio=ratio) == oracles.boundary_iou(*pair, ratio)


@given(mask_pairs())
@settings(max_examples=40)
def test_the_band_of_a_mask_is_what_erosion_takes_away(pair: tuple[Mask, Mask]) -> None:
    mask, _ = pair
    for ratio in (0.02, 0.3):
        distance = max(1, round(ratio * float(np.hypot(*mask.shape))))
        eroded = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=distance)
        assert (boundary_band(mask, ratio=ratio) == (mask & ~eroded)).all()


@given(mask_pairs())
@settings(max_examples=40)
def test_j_and_f_in_one_go_are_those_one_by_one(pair: tuple[Mask, Mask]) -> None:
    void = np.random.default_rng(0).random(pair[0].shape) < 0.1
    for ignored in (None, void):
        both = jaccard_and_boundary_f(*pair, tolerance=2, void=ignored)
        alone = jaccard(*pair, void=ignored), boundary_f(*pair, tolerance=2, void=ignored)
        assert both == alone


@given(mask_pairs())
@settings(max_examples=100)
def test_j_and_f_are_those_of_vos_benchmark(pair: tuple[Mask, Mask]) -> None:
    evaluator = pytest.importorskip("vos_benchmark.evaluator").Evaluator()
    prediction, truth = pair
    if not truth.any():
        return
    evaluator.feed_frame(prediction.astype(np.uint8), truth.astype(np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        iou, f = evaluator.conclude()
    assert 100 * jaccard(*pair) == pytest.approx(iou[1], abs=1e-12)
    assert 100 * boundary_f(*pair) == pytest.approx(f[1], abs=1e-12)


@given(mask_pairs())
@settings(max_examples=40)
def test_every_score_is_symmetric_and_blind_to_mirrors(pair: tuple[Mask, Mask]) -> None:
    one, two = pair
    for score in (jaccard, boundary_f, boundary_iou):
        assert 0 <= score(one, two) <= 1
        assert score(one, two) == pytest.approx(score(two, one), abs=1e-12)
        assert score(one, one) == 1
    assert jaccard(one[::-1], two[::-1]) == jaccard(one, two)
    assert boundary_iou(one[:, ::-1], two[:, ::-1]) == boundary_iou(one, two)


@pytest.mark.parametrize(
    ("rows", "columns", "score"),
    [
        ((21, 80), (20, 79), 0.714286),
        ((23, 82), (20, 79), 0.333333),
        ((22, 77), (22, 77), 0.2),
        ((20, 79), (20, 49), 0.404255),
    ],
)
def test_boundary_iou_of_rectangles_is_the_published_one(
    rows: tuple[int, int], columns: tuple[int, int], score: float
) -> None:
    size = (100, 100)
    truth = rectangle(size, (20, 79), (20, 79))
    prediction = rectangle(size, rows, columns)
    assert boundary_iou(prediction, truth) == pytest.approx(score, abs=5e-7)


def test_the_border_of_the_picture_is_boundary_in_boundary_iou() -> None:
    size = (100, 100)
    full, half = np.ones(size), rectangle(size, (0, 49), (0, 99))
    assert boundary_iou(half, full) == pytest.approx(582 / (1164 + 864 - 582))


def test_void_pixels_do_not_count() -> None:
    truth = rectangle((40, 40), (10, 29), (10, 29))
    void = rectangle((40, 40), (0, 39), (20, 39))
    prediction = rectangle((40, 40), (10, 29), (10, 19))
    assert jaccard(prediction, truth, void=void) == 1
    assert boundary_f(prediction, truth, void=void) == 1


def test_any_number_but_zero_is_foreground() -> None:
    truth = SQUARE.astype(np.int16) * -7
    assert jaccard(SQUARE, truth) == boundary_f(SQUARE, truth) == boundary_iou(SQUARE, truth) == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], (0.65, 0.625, 0.5)),
        ([0.9] * 10 + [0.5] * 10, (0.7, 0.5, 0.4)),
        ([0.2, 0.4, 0.6, 0.8], (0.5, 0.5, -0.4)),
        ([1.0], (1, 1, 0)),
    ],
)
def test_statistics_are_the_published_ones(
    values: list[float], expected: tuple[float, float, float]
) -> None:
    assert statistics(values) == pytest.approx(expected)
    assert statistics(values, strict_official=True) == pytest.approx(expected)


def test_decay_of_a_long_sequence_needs_the_official_overflow_to_go_wrong() -> None:
    values = np.linspace(1, 0, 300)
    assert statistics(values).decay == pytest.approx(0.75, abs=0.01)
    assert np.isnan(statistics(values, strict_official=True).decay)
    assert statistics(values).mean == statistics(values, strict_official=True).mean


@pytest.mark.parametrize("score", [jaccard, boundary_f, boundary_iou])
def test_masks_of_another_shape_are_refused_by_name(score: Any) -> None:
    with pytest.raises(ValueError, match=r"prediction must have the size of truth, \[4, 5\]"):
        score(np.zeros((5, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"truth must be \[H, W\], got \[1, 4, 5\]"):
        score(np.zeros((4, 5)), np.zeros((1, 4, 5)))


def test_numbers_without_meaning_are_refused_by_name() -> None:
    mask = np.ones((4, 5))
    with pytest.raises(ValueError, match="tolerance must be"):
        boundary_f(mask, mask, tolerance=0)
    with pytest.raises(ValueError, match=r"tolerance must be .* got 1\.5"):
        boundary_f(mask, mask, tolerance=1.5)
    with pytest.raises(ValueError, match="ratio must be above 0"):
        boundary_iou(mask, mask, ratio=-1)
    with pytest.raises(ValueError, match="void must have the size of truth"):
        jaccard(mask, mask, void=np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"values must be \[T\]"):
        statistics([])
