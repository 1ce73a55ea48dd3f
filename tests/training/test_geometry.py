"""Maps go where their names say, and thin plates bend as thin plates do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RBFInterpolator

from sam2_hq.training.geometry import (
    BEND_CELLS,
    BEND_POINTS,
    Pose,
    bend_basis,
    box_in_picture,
    place,
    smooth_path,
    view,
)


def test_a_view_of_the_whole_picture_is_the_identity():
    matrix = view((0, 0, 30, 20), (20, 30), angle=0.0, mirrored=False)
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-12)


def test_a_view_shows_the_window():
    matrix = view((10, 0, 30, 5), (20, 40), angle=0.0, mirrored=False)
    corners = matrix @ np.array([[-1, 1], [-1, 1], [1, 1]])
    # The window spans the middle half in x and the upper quarter in y.
    np.testing.assert_allclose(corners[:2], [[-0.5, 0.5], [-1, -0.5]])


def test_a_mirrored_view_swaps_left_and_right():
    matrix = view((0, 0, 40, 20), (20, 40), angle=0.0, mirrored=True)
    np.testing.assert_allclose(matrix, np.diag([-1, 1, 1]))


@given(
    x=st.floats(-1, 1),
    y=st.floats(-1, 1),
    size=st.floats(0.05, 1),
    angle=st.floats(-math.pi, math.pi),
    aspect=st.floats(0.2, 5),
    window_aspect=st.floats(0.2, 5),
)
def test_a_placed_thing_has_its_centre_and_area(x, y, size, angle, aspect, window_aspect):
    pose = Pose(x, y, size, angle)
    matrix = place(pose, aspect=aspect, window_aspect=window_aspect)
    np.testing.assert_allclose(matrix @ [0, 0, 1], [x, y, 1], atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(size**2)


def test_a_thing_keeps_its_shape_in_the_window_before_the_squash():
    # A square thing in a window twice as wide as high: half as wide in the squashed output.
    matrix = place(Pose(size=0.5), aspect=1.0, window_aspect=2.0)
    assert matrix[1, 1] / matrix[0, 0] == pytest.approx(2)


def test_a_box_fills_its_square():
    matrix = box_in_picture((10, 0, 20, 10), (20, 40))
    np.testing.assert_allclose((matrix @ [-1, -1, 1])[:2], [-0.5, -1])
    np.testing.assert_allclose((matrix @ [1, 1, 1])[:2], [0, 0], atol=1e-12)


def test_bends_are_thin_plate_splines():
    ticks = np.linspace(-1, 1, BEND_POINTS)
    points = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    heights = np.random.default_rng(0).normal(size=len(points))
    centres = (np.arange(BEND_CELLS) + 0.5) * 2 / BEND_CELLS - 1
    cells = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
    expected = RBFInterpolator(points, heights, kernel="thin_plate_spline", degree=1)(cells)
    field = np.einsum("p,pij->ij", heights, bend_basis().numpy())
    np.testing.assert_allclose(field.reshape(-1), expected, atol=1e-5)  # float32


def test_a_path_starts_at_zero_and_is_smooth():
    path = smooth_path(np.random.default_rng(1), 8, 4, speed=0.02)
    assert path.shape == (8, 4)
    np.testing.assert_array_equal(path[0], 0)
    assert np.abs(np.diff(path, 2, axis=0)).max() < 0.1
