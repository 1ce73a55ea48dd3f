"""What part of a picture a clip shows."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_hq.training.camera import draw_window

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
