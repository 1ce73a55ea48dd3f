"""Folders of pictures with masks, as people and publishers lay them out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sam2_hq.data.masks import write_id_map
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.still_readers import HQSEG_FOLDERS, StillFolder, read_hqseg, read_masks


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def soft_mask(height=6, width=8):
    return np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)


def grey(height=6, width=8):
    return np.full((height, width, 3), 90, np.uint8)


def test_pictures_and_masks_are_paired_by_stem(tmp_path):
    for stem in ("b10", "b9"):
        save(tmp_path / "images" / f"{stem}.jpg", grey())
        save(tmp_path / "masks" / f"{stem}.png", soft_mask())
    folder = StillFolder(tmp_path / "images", tmp_path / "masks", name="mine")
    assert [folder.sample_name(i) for i in range(2)] == ["mine/b9.jpg", "mine/b10.jpg"]
    assert folder[0].picture.shape == (6, 8, 3)
    np.testing.assert_array_equal(folder[0].masks, soft_mask()[None])


def test_a_palette_mask_holds_several_objects(tmp_path):
    ids = np.zeros((6, 8), np.uint8)
    ids[:2], ids[4:] = 1, 7
    save(tmp_path / "images" / "a.png", grey())
    (tmp_path / "masks").mkdir()
    write_id_map(tmp_path / "masks" / "a.png", ids)
    masks = StillFolder(tmp_path / "images", tmp_path / "masks")[0].masks
    np.testing.assert_array_equal(masks, np.stack([ids == 1, ids == 7]) * 255)


@pytest.mark.parametrize(("ids", "num_masks"), [((1, 255), 1), ((1, 7, 255), 2), ((255,), 1)])
def test_255_of_a_palette_is_void_only_beside_other_ids(tmp_path, ids, num_masks):
    pixels = np.zeros((6, 8), np.uint8)
    for row, number in enumerate(ids):
        pixels[row] = number
    (tmp_path / "masks").mkdir()
    write_id_map(tmp_path / "masks" / "a.png", pixels)
    masks = read_masks(tmp_path / "masks" / "a.png")
    assert [np.unique(one.nonzero()[0]).tolist() for one in masks] == [
        [i] for i in range(num_masks)
    ]


@pytest.mark.parametrize("white_first", [False, True])
def test_a_palette_of_grays_is_one_soft_object(tmp_path, white_first):
    image = Image.fromarray(255 - soft_mask() if white_first else soft_mask())
    ramp = range(255, -1, -1) if white_first else range(256)
    image.putpalette([value for value in ramp for _ in "rgb"])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_masks(tmp_path / "a.png"), soft_mask()[None])


def test_ids_saved_without_choosing_colours_are_ids_all_the_same(tmp_path):
    ids = np.zeros((6, 8), np.uint8)
    ids[1], ids[4] = 1, 2
    Image.fromarray(ids).convert("P").save(tmp_path / "a.png")  # in grays no eye can tell apart
    masks = read_masks(tmp_path / "a.png")
    np.testing.assert_array_equal(masks, np.stack([ids == 1, ids == 2]) * 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_an_object_is_refused_without_a_palette(tmp_path, mode):
    colours = grey() * 0
    colours[:2], colours[4:] = (128, 0, 0), (0, 128, 0)
    save(tmp_path / "images" / "a.png", grey())
    (tmp_path / "masks").mkdir()
    Image.fromarray(colours).convert(mode).save(tmp_path / "masks" / "a.png")
    message = r"mask '.*a\.png' must be gray, got colours .*differ by 128\); .* a palette PNG"
    with pytest.raises(ValueError, match=message):
        StillFolder(tmp_path / "images", tmp_path / "masks")[0]


def test_gray_that_jpeg_has_tinted_is_gray(tmp_path):
    tinted = np.stack([soft_mask() // 2 + step for step in (118, 120, 128)], 2)
    np.testing.assert_array_equal(read_masks(save(tmp_path / "a.png", tinted))[0], tinted[..., 0])


def test_a_picture_too_large_to_open_is_a_bad_sample(tmp_path, monkeypatch):
    save(tmp_path / "masks" / "a.png", soft_mask(6, 8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    with pytest.raises(ValueError, match=r"a\.png' cannot be read: .*decompression bomb"):
        read_masks(tmp_path / "masks" / "a.png")


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "zero and one"])
def test_masks_of_any_gray_kind_reach_255(tmp_path, mode):
    mask = (soft_mask() > 100).astype(np.uint8)
    shown = Image.fromarray(mask if mode == "zero and one" else mask * 255)
    save(tmp_path / "images" / "a.jpg", grey())
    (tmp_path / "masks").mkdir()
    shown.convert("L" if mode == "zero and one" else mode).save(tmp_path / "masks" / "a.png")
    masks = StillFolder(tmp_path / "images", tmp_path / "masks")[0].masks
    np.testing.assert_array_equal(masks[0], mask * 255)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("largest", [1, 255, 65535], ids=["zero and one", "8 bits", "16 bits"])
def test_gray_of_16_bits_keeps_soft_edges(tmp_path, suffix, largest):
    ramp = np.linspace(0, largest, 48).reshape(6, 8).round().astype(np.uint16)
    path = save(tmp_path / f"a.{suffix}", ramp)
    expected = {1: ramp * 255, 255: ramp, 65535: ramp >> 8}[largest]
    np.testing.assert_array_equal(read_masks(path), expected[None])


def test_integers_of_32_bits_are_read_like_16_up_to_there(tmp_path):
    ramp = (soft_mask().astype(np.int32) * 257)[:, ::-1]
    path = save(tmp_path / "a.tif", np.ascontiguousarray(ramp))
    np.testing.assert_array_equal(read_masks(path)[0], soft_mask()[:, ::-1])
    for value in (70000, -1):
        save(path, np.full((6, 8), value, np.int32))
        with pytest.raises(ValueError, match=rf"must be of 8 or 16 bits, .* {value}"):
            read_masks(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("colour", [0, 255])
def test_a_mask_of_one_colour_is_in_its_alpha(tmp_path, mode, colour):
    paint = np.full((6, 8, 3 if mode == "RGBA" else 1), colour, np.uint8)
    path = save(tmp_path / "a.png", np.concatenate([paint, soft_mask()[..., None]], 2))
    np.testing.assert_array_equal(read_masks(path), soft_mask()[None])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_mask_of_two_colours_is_in_its_colours(tmp_path, mode):
    shown = np.where(soft_mask() > 100, 255, 0).astype(np.uint8)
    image = Image.fromarray(shown).convert(mode)
    image.putalpha(Image.fromarray(soft_mask()[::-1]))
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_masks(tmp_path / "a.png"), shown[None])


@pytest.mark.parametrize(
    ("pixel", "dtype"), [(2, np.uint8), (127, np.uint8), (3, np.uint16), (32767, np.uint16)]
)
def test_gray_that_never_passes_half_is_an_error(tmp_path, pixel, dtype):
    ids = np.zeros((6, 8), dtype)
    ids[2:4] = pixel
    path = save(tmp_path / "a.png", ids)
    with pytest.raises(ValueError, match=rf"largest value is {pixel}, .* need a palette PNG"):
        read_masks(path)


def test_a_picture_without_a_mask_is_skipped_and_named(tmp_path):
    save(tmp_path / "images" / "a.jpg", grey())
    save(tmp_path / "images" / "alone.jpg", grey())
    save(tmp_path / "masks" / "a.png", soft_mask())
    log = SampleLog()
    assert len(StillFolder(tmp_path / "images", tmp_path / "masks", log=log)) == 1
    assert list(log.names) == [str(tmp_path / "images" / "alone.jpg")]


def test_the_same_file_name_in_two_roots_is_two_samples(tmp_path):
    for root in ("a", "b"):
        save(tmp_path / root / "train" / "images" / "1.jpg", grey())
        save(tmp_path / root / "train" / "masks" / "1.png", soft_mask())
    roots = [tmp_path / root / "train" for root in ("a", "b")]
    folders = [StillFolder(root / "images", root / "masks") for root in roots]
    assert folders[0].sample_name(0) != folders[1].sample_name(0)


def test_a_mask_of_another_size_is_an_error(tmp_path):
    save(tmp_path / "images" / "a.jpg", grey())
    save(tmp_path / "masks" / "a.png", soft_mask(5, 8))
    folder = StillFolder(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(ValueError, match=r"is \[5, 8\] \(height, width\), but its picture \[6, 8"):
        folder[0]


def test_an_empty_mask_is_an_error(tmp_path):
    save(tmp_path / "images" / "a.jpg", grey())
    save(tmp_path / "masks" / "a.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(ValueError, match="is empty"):
        StillFolder(tmp_path / "images", tmp_path / "masks")[0]


def test_an_empty_data_set_is_an_error(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="no folder"):
        StillFolder(tmp_path / "images", tmp_path / "masks")
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match="data set mine is empty"):
        StillFolder(tmp_path / "images", tmp_path / "masks", name="mine")


def test_the_sets_of_hqseg_are_found_where_they_are_published(tmp_path):
    for number, (images, masks) in enumerate(HQSEG_FOLDERS.values()):
        for stem in range(number + 1):
            save(tmp_path / images / f"{stem}.jpg", grey())
            save(tmp_path / masks / f"{stem}.png", soft_mask())
    sets = read_hqseg(tmp_path)
    assert [one.name for one in sets] == list(HQSEG_FOLDERS)
    assert [len(one) for one in sets] == list(range(1, len(HQSEG_FOLDERS) + 1))
    assert [one.name for one in read_hqseg(tmp_path, names=["FSS"])] == ["FSS"]
    with pytest.raises(ValueError, match=r"got \['COCO'\]"):
        read_hqseg(tmp_path, names=["COCO"])
