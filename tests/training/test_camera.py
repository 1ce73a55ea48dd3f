"""What part of a picture a clip shows."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_hq.training.camera import draw_camera, draw_window

BOX, SIZE = (20.0, 10.0, 40.0, 30.0), (60.0, 100.0)


def windows(*, whole: float, zoom: tuple[float, float]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([draw_window(BOX, SIZE, rng, whole=whole, zoom=zoom) for _ in range(200)])


def test_a_whole_picture_is_a_whole_picture() -> None:
    assert (windows(whole=1.0, zoom=(0.5, 0.5)) == [0, 0, 100, 60]).all()


@pytest.mark.parametrize("zoom", [(0.35, 1.15), (0.5, 4.0)])
def test_windows_are_as_small_and_as_large_as_asked(zoom) -> None:
    x0, y0, x1, y1 = windows(whole=0.0, zoom=zoom).T
    share = np.sqrt((x1 - x0) * (y1 - y0) / (SIZE[0] * SIZE[1]))
    assert zoom[0] <= share.min() < 1.1 * zoom[0]
    assert 0.9 * zoom[1] < share.max() <= zoom[1]


def test_large_windows_show_all_of_the_picture() -> None:
    x0, y0, x1, y1 = windows(whole=0.0, zoom=(2.0, 4.0)).T
    assert x0.max() <= 0
    assert y0.max() <= 0
    assert x1.min() >= SIZE[1]
    assert y1.min() >= SIZE[0]


def views(*, still: float, num_frames: int = 6) -> np.ndarray:
    """[200, T, 3, 3]."""
    rng = np.random.default_rng(0)
    window = (0.0, 0.0, SIZE[1], SIZE[0])
    return np.array(
        [draw_camera(window, SIZE, num_frames, rng, still=still, speed=0.02) for _ in range(200)]
    )


def test_a_camera_on_a_tripod_shows_the_same_and_another_one_drifts() -> None:
    fixed, moving = views(still=1.0), views(still=0.0)
    assert (fixed == fixed[:, :1]).all()
    change = np.abs(moving[:, -1] - moving[:, 0]).max((1, 2))
    assert (change > 1e-3).mean() > 0.95
    assert np.median(change) < 0.5


def test_half_of_the_clips_are_mirrored_and_some_are_turned() -> None:
    first = views(still=1.0, num_frames=1)[:, 0]
    assert 0.35 < (np.linalg.det(first[:, :2, :2]) < 0).mean() < 0.65
    assert 0.35 < (np.abs(first[:, 0, 1]) > 1e-9).mean() < 0.65
