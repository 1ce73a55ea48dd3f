"""Position codes against the specification's numbers and against complex multiplication."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from sam2_hq.modeling.position_encoding import (
    PositionEmbeddingRandom,
    PositionEmbeddingSine,
    axial_rotation,
    rotate,
    sine_1d,
)

PRINTED = {"rtol": 0, "atol": 1e-6}  # the specification prints seven digits


@pytest.mark.parametrize(
    ("channels", "want"),
    [
        (
            256,
            {
                (0, 0, 0): 0.0980171,
                (1, 0, 0): 0.9951847,
                (2, 9, 0): 0.7513850,
                (127, 63, 5): 0.9999998,
                (128, 7, 11): 0.9238796,
                (129, 7, 11): 0.3826834,
                (254, 20, 40): 0.0004648,
            },
        ),
        (
            64,
            {
                (0, 0, 0): 0.0980171,
                (3, 9, 0): 0.8514369,
                (32, 7, 11): 0.9238796,
                (63, 20, 40): 0.9999998,
            },
        ),
    ],
)
def test_the_sine_map_has_the_specified_values(
    channels: int, want: dict[tuple[int, int, int], float]
) -> None:
    table = PositionEmbeddingSine(channels)(64, 64)
    assert_close(
        torch.stack([table[i] for i in want]), torch.tensor(list(want.values())), **PRINTED
    )


def test_the_first_half_of_the_sine_map_tells_y_and_the_second_x() -> None:
    table = PositionEmbeddingSine(8)(3, 5)
    assert table.shape == (8, 3, 5)
    assert torch.equal(table[:4], table[:4, :, :1].expand(4, 3, 5))
    assert torch.equal(table[4:], table[4:, :1].expand(4, 3, 5))


def test_a_sine_map_needs_channels_for_two_axes_of_pairs() -> None:
    with pytest.raises(ValueError, match="num_pos_feats must be a multiple of 4, got 6"):
        PositionEmbeddingSine(6)


def test_scalars_are_encoded_as_sines_then_cosines() -> None:
    code = sine_1d(torch.tensor([5 / 15, -3 / 15]), 256)
    first = {0: 0.3271947, 1: 0.3271947, 2: 0.2846629, 127: 0.0000385}
    first |= {128: 0.9449570, 129: 0.9449570, 130: 0.9586277}
    second = {0: -0.1986693, 2: -0.1723283, 128: 0.9800666, 130: 0.9850396}
    for row, want in enumerate((first, second)):
        assert_close(code[row, list(want)], torch.tensor(list(want.values())), **PRINTED)


def test_the_rotation_table_has_the_specified_values() -> None:
    cos, sin = axial_rotation(256, 64, 64)
    assert cos.shape == sin.shape == (4096, 128)
    want = {
        (1, 0): (0.5403023, 0.8414710),
        (64, 0): (1.0, 0.0),
        (64, 64): (0.5403023, 0.8414710),
        (130, 1): (-0.1604360, 0.9870462),
        (130, 65): (-0.1604360, 0.9870462),
        (4095, 63): (0.9999735, 0.0072751),
    }
    got = torch.stack([torch.stack([cos[at], sin[at]]) for at in want])
    # float32: an angle of up to 63 radians is known to 4e-6
    assert_close(got, torch.tensor(list(want.values())), rtol=0, atol=5e-6)


def test_rotating_is_multiplying_complex_numbers() -> None:
    x = torch.randn(2, 3, 35, 16, generator=torch.manual_seed(0))
    cos, sin = axial_rotation(16, 5, 7)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    want = torch.view_as_real(pairs * torch.complex(cos, sin)).flatten(-2)
    assert_close(rotate(x, cos, sin), want, rtol=0, atol=1e-6)


def test_rotated_tokens_see_each_other_by_their_distance_alone() -> None:
    q, k = torch.randn(2, 1, 16, generator=torch.manual_seed(1)).double()
    cos, sin = (t.double() for t in axial_rotation(16, 6, 6))
    turned_q, turned_k = (rotate(t.expand(36, 16), cos, sin).unflatten(0, (6, 6)) for t in (q, k))
    near_corner = turned_q[1, 2] @ turned_k[0, 4]
    elsewhere = turned_q[4, 1] @ turned_k[3, 3]
    assert_close(near_corner, elsewhere, rtol=0, atol=1e-5)  # rotate works in float32


def test_rotation_keeps_the_dtype() -> None:
    cos, sin = axial_rotation(8, 2, 2)
    assert rotate(torch.ones(4, 8, dtype=torch.bfloat16), cos, sin).dtype == torch.bfloat16


@pytest.fixture
def fourier() -> PositionEmbeddingRandom:
    layer = PositionEmbeddingRandom(2)
    matrix = torch.tensor([[0.5, -1.0], [0.25, 2.0]])
    layer.load_state_dict({"positional_encoding_gaussian_matrix": matrix})
    return layer


def test_fourier_features_have_the_specified_values(fourier: PositionEmbeddingRandom) -> None:
    point = fourier.encode(torch.tensor([[100.5 / 1024, 300.5 / 1024]]))
    want = torch.tensor([[0.0322082, -0.1406582, -0.9994812, 0.9900582]])
    assert_close(point, want, **PRINTED)
    cell = fourier((64, 64))[:, 3, 10]
    assert_close(cell, torch.tensor([0.3598952, -0.6343935, -0.9329928, 0.7730103]), **PRINTED)


def test_the_fourier_map_holds_the_pixel_centres(fourier: PositionEmbeddingRandom) -> None:
    table = fourier((3, 4))
    centre = fourier.encode(torch.tensor([1.5 / 4, 2.5 / 3]))
    assert_close(table[:, 2, 1], centre)


def test_autocast_leaves_points_where_they_are(fourier: PositionEmbeddingRandom) -> None:
    points = torch.rand(5, 2, generator=torch.manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        inside = fourier.encode(points)
    assert torch.equal(inside, fourier.encode(points))


def test_half_precision_weights_give_half_precision_codes_of_exact_points(
    fourier: PositionEmbeddingRandom,
) -> None:
    points = torch.rand(5, 2, generator=torch.manual_seed(2))
    want = fourier.encode(points)
    assert_close(fourier.to(torch.bfloat16).encode(points), want.bfloat16(), rtol=0, atol=0)
