"""Pictures to the network's square: torchvision is the oracle of stills, Pillow that of videos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close
from torchvision.transforms import v2

from sam2_hq.data.pictures import resize_for_video_model
from sam2_hq.transforms import (
    PIXEL_MEAN,
    PIXEL_STD,
    SAM2Transforms,
    normalize_frame,
    to_rgb_array,
)

SIDE = 64


def picture(height: int = 50, width: int = 90, channels: int = 3) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, channels))
    return noise.astype(np.uint8)


# -------------------------------------------------------------------- kinds


def test_every_kind_of_the_same_picture_gives_the_same_array() -> None:
    rgb = picture()
    alpha = np.full((*rgb.shape[:2], 1), 7, np.uint8)
    kinds: list[Any] = [
        rgb,
        torch.from_numpy(rgb),
        Image.fromarray(rgb),
        np.concatenate([rgb, alpha], axis=2),
        Image.fromarray(np.concatenate([rgb, alpha], axis=2)),
        rgb.astype(np.float32) / 255,
        rgb.astype(np.float64) / 255,
        torch.from_numpy(rgb).double() / 255,
    ]
    for kind in kinds:
        got = to_rgb_array(kind)
        assert got.dtype == np.uint8
        assert np.array_equal(got, rgb)


def test_gray_pictures_get_three_equal_channels() -> None:
    gray = picture(channels=1)
    for kind in (gray, gray[..., 0], Image.fromarray(gray[..., 0]), torch.from_numpy(gray[..., 0])):
        assert np.array_equal(to_rgb_array(kind), gray.repeat(3, axis=2))


def test_other_modes_of_pillow_are_converted() -> None:
    colours = Image.fromarray(picture(8, 8))
    palette = colours.quantize(16)
    assert np.array_equal(to_rgb_array(palette), np.asarray(palette.convert("RGB")))
    see_through = palette.copy()
    see_through.info["transparency"] = bytes(range(16))
    assert np.array_equal(to_rgb_array(see_through), to_rgb_array(palette))
    bits = colours.convert("1")
    assert set(np.unique(to_rgb_array(bits))) <= {0, 255}


def test_the_input_is_not_handed_through() -> None:
    rgb = picture()
    to_rgb_array(rgb)[:] = 0
    assert np.array_equal(rgb, picture())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)) + 255.0, r"image is float64 and must lie in \[0, 1\], got 255 to 255"),
        (np.full((4, 4, 3), -0.1), r"image is float64 and must lie in \[0, 1\], got -0.1"),
        (np.full((4, 4, 3), np.nan), r"must lie in \[0, 1\], got nan"),
        (
            np.zeros((4, 4, 3), np.uint16),
            r"image must be uint8, or floating in \[0, 1\], got uint16",
        ),
        (np.zeros((4, 4, 3), bool), "image must be uint8, or floating"),
        (np.zeros((4, 4, 2), np.uint8), r"image must be \[H, W\], .* got \[4, 4, 2\]"),
        (np.zeros((3, 40, 40), np.uint8), r"image must be \[H, W\], .* got \[3, 40, 40\]"),
        (np.zeros((0, 4, 3), np.uint8), r"image must be \[H, W\], .* got \[0, 4, 3\]"),
        (Image.new("RGB", (0, 4)), r"image must be \[H, W\], .* got \[4, 0, 3\]"),
        (Image.fromarray(np.zeros((4, 4), np.uint16)), "8 bits a channel, .* mode I;16"),
        (Image.fromarray(np.zeros((4, 4), np.int32)), "8 bits a channel, .* mode I"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), "8 bits a channel, .* mode F"),
    ],
)
def test_what_is_no_picture_of_8_bits_is_named(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_rgb_array(image)


@pytest.mark.parametrize("image", ["picture.png", None, [[1, 2], [3, 4]]])
def test_what_is_no_picture_at_all_is_named(image: Any) -> None:
    with pytest.raises(TypeError, match=f"PIL image, got {type(image).__name__}"):
        to_rgb_array(image)


# ------------------------------------------------------------------ squares


@settings(max_examples=25)
@given(height=st.integers(1, 150), width=st.integers(1, 150))
def test_a_still_is_resized_as_torchvision_does_with_antialiasing(height: int, width: int) -> None:
    rgb = picture(height, width)
    oracle = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((SIDE, SIDE), antialias=True),
            v2.Normalize(PIXEL_MEAN, PIXEL_STD),
        ]
    )
    assert_close(SAM2Transforms(SIDE)(rgb), torch.Tensor(oracle(rgb)), rtol=0, atol=1e-5)


def test_antialiasing_has_the_specified_values() -> None:
    row = np.array([0, 1, 4, 9, 16, 25, 36, 49], np.uint8)
    got = SAM2Transforms(2)(np.broadcast_to(row[None, :, None], (8, 8, 3)))[:, 0]
    mean, std = torch.tensor(PIXEL_MEAN)[:, None], torch.tensor(PIXEL_STD)[:, None]
    want = torch.tensor([5.4642863, 27.9642849]).expand(3, 2)
    assert_close((got * std + mean) * 255, want, rtol=0, atol=1e-4)


def test_a_video_frame_is_resized_as_pillow_does_and_then_normalised() -> None:
    rgb = picture(50, 90)
    squashed = resize_for_video_model(rgb, SIDE)
    assert np.array_equal(squashed, np.asarray(Image.fromarray(rgb).resize((SIDE, SIDE))))
    pixels = normalize_frame(squashed, torch.device("cpu"))
    mean, std = np.array(PIXEL_MEAN), np.array(PIXEL_STD)
    want = ((squashed / 255.0 - mean) / std).transpose(2, 0, 1)[None]
    assert_close(pixels, torch.from_numpy(want).float(), rtol=0, atol=1e-6)


def test_stills_and_videos_differ_where_they_shrink() -> None:
    rgb = picture(200, 200)
    still = SAM2Transforms(SIDE)(rgb)
    frame = normalize_frame(resize_for_video_model(rgb, SIDE), torch.device("cpu"))[0]
    assert (still - frame).abs().max() > 0.1  # the published filters are not the same


def test_pictures_of_any_size_form_a_batch() -> None:
    transforms = SAM2Transforms(SIDE)
    pictures = [picture(20, 30), picture(70, 10)]
    batch = transforms.forward_batch(pictures)
    assert batch.shape == (2, 3, SIDE, SIDE)
    assert torch.equal(batch[1], transforms(pictures[1]))


# ------------------------------------------------------- prompts and masks


def test_points_and_boxes_are_scaled_to_model_pixels() -> None:
    transforms = SAM2Transforms(SIDE)
    points = torch.tensor([[0.0, 0.0], [45.0, 50.0], [90.0, 25.0]])
    want = torch.tensor([[0, 0], [32, 64], [64, 32]]).float()
    assert_close(transforms.transform_coords(points, True, (50, 90)), want)
    fractions = points / torch.tensor([90.0, 50.0])
    assert_close(transforms.transform_coords(fractions), want)
    box = torch.tensor([[0.0, 0.0, 45.0, 50.0]])
    assert_close(transforms.transform_boxes(box, True, (50, 90)), want[None, :2])
    with pytest.raises(ValueError, match="orig_hw must be given when normalize is true"):
        transforms.transform_coords(points, True)


@pytest.mark.parametrize("size", [(5, 7), (64, 64), (100, 33)])
def test_masks_come_back_in_the_size_of_the_picture(size: tuple[int, int]) -> None:
    logits = torch.randn(2, 3, 16, 16)
    got = SAM2Transforms(SIDE).postprocess_masks(logits.to(torch.bfloat16), size)
    assert got.shape == (2, 3, *size)
    assert got.dtype == torch.float32
    plain = v2.functional.resize(logits.bfloat16().float(), list(size), antialias=False)
    assert_close(got, plain, rtol=0, atol=1e-5)


def test_small_regions_are_cleaned_on_the_low_resolution_map() -> None:
    logits = torch.full((1, 1, 16, 16), -3.0)
    logits[..., 2:10, 2:10] = 3.0
    logits[..., 5, 5] = -3.0  # a hole of one pixel
    logits[..., 13:15, 13] = 3.0  # an island of two
    got = SAM2Transforms(SIDE, 0.0, 1, 2).postprocess_masks(logits, (16, 16))
    want = torch.full((16, 16), -3.0)
    want[2:10, 2:10] = 3.0
    want[5, 5] = 10.0
    want[13:15, 13] = -10.0
    assert torch.equal(got[0, 0], want)
