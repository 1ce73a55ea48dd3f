"""The resampler against what can be computed by hand or by scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from sam2_hq.training.gallery import hang
from sam2_hq.training.geometry import BEND_POINTS, view
from sam2_hq.training.rendering import look

SIDE = 16


def picture(height: int = SIDE, width: int = SIDE, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(seed))


def see(pixels: torch.Tensor, matrix: np.ndarray, *, size=None, side=SIDE, **bends):
    size = size or tuple(pixels.shape[2:])
    return look(pixels, matrix[None, None], sizes=np.array([size]), side=side, **bends)


def test_the_identity_gives_the_picture():
    pixels = picture()
    values, inside = see(pixels, np.eye(3))
    torch.testing.assert_close(values[0, 0], pixels[0])
    assert inside.all()


def test_mirroring_flips_the_picture():
    pixels = picture()
    values, _ = see(pixels, np.diag([-1.0, 1.0, 1.0]))
    torch.testing.assert_close(values[0, 0], pixels[0].flip(-1))


def test_an_affine_view_agrees_with_scipy():
    pixels = picture(24, 24)
    matrix = view((4, 5, 18, 16), (24, 24), angle=0.2, mirrored=False)
    values, _ = see(pixels, matrix)
    centres = (np.arange(SIDE) + 0.5) * 2 / SIDE - 1
    x, y = np.meshgrid(centres, centres)
    places = np.einsum("ij,jhw->ihw", matrix, np.stack([x, y, np.ones_like(x)]))
    columns, rows = (places[:2] + 1) * 12 - 0.5
    expected = map_coordinates(pixels[0, 0].numpy(), [rows, columns], order=1)
    np.testing.assert_allclose(values[0, 0, 0], expected, atol=1e-5)  # float32 coordinates


def test_a_minified_picture_is_averaged():
    pixels = picture(4 * SIDE, 4 * SIDE)
    values, _ = see(pixels, np.eye(3))
    expected = torch.nn.functional.avg_pool2d(pixels, 4)
    torch.testing.assert_close(values[0, 0], expected[0])


@pytest.mark.parametrize("side", [40, 12, 5])
def test_the_empty_canvas_around_a_picture_is_never_seen(side):
    shapes = [(11, 21, 1), (24, 32, 1)]
    pixels = hang([np.full(shape, 255, np.uint8) for shape in shapes])[:1].float() / 255
    matrix = view((-15, -8, 35, 18), (11, 21), angle=0.5, mirrored=False)
    values, inside = see(pixels, matrix, size=(11, 21), side=side)
    assert values.min() > 1 - 1e-5
    assert not inside.all()


def test_beyond_its_edge_a_picture_is_mirrored_and_called_outside():
    pixels = picture()
    matrix = view((0, 0, 2 * SIDE, SIDE), (SIDE, SIDE), angle=0.0, mirrored=False)
    values, inside = see(pixels, matrix, side=2 * SIDE)
    torch.testing.assert_close(values[0, 0], values[0, 0].flip(-1))
    assert inside[..., :SIDE].all()
    assert not inside[..., SIDE:].any()


def test_every_frame_and_picture_has_its_own_matrix():
    pixels = torch.cat([picture(seed=1), picture(seed=2)])
    flip_x, flip_y = np.diag([-1.0, 1, 1]), np.diag([1.0, -1, 1])
    matrices = np.array([[np.eye(3), flip_x], [flip_y, np.eye(3)]])
    values, _ = look(pixels, matrices, sizes=np.full((2, 2), SIDE), side=SIDE)
    torch.testing.assert_close(values[0, 1], pixels[0].flip(-1))
    torch.testing.assert_close(values[1, 0], pixels[1].flip(-2))


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_a_bend_that_shifts_all_points_moves_the_picture(shift):
    pixels = picture()
    bends = np.zeros((1, 1, 2, BEND_POINTS**2))
    bends[:, :, 0] = shift
    values, _ = see(pixels, np.eye(3), bends=bends)
    pixels_moved = round(shift * SIDE / 2)
    torch.testing.assert_close(
        values[0, 0, :, :, : SIDE - pixels_moved], pixels[0, :, :, pixels_moved:]
    )
