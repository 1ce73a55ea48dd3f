from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sam2_hq.data.masks import (
    davis_palette,
    merge_masks,
    read_id_map,
    split_ids,
    write_id_map,
    write_object_masks,
)


def test_the_palette_begins_with_the_known_colours_of_davis():
    expected = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]
    palette = davis_palette()
    np.testing.assert_array_equal(palette[:6], expected)
    np.testing.assert_array_equal(palette[[20, 255]], [[0, 64, 128], [224, 224, 192]])
    assert len({tuple(color) for color in palette.tolist()}) == 256


def test_a_header_cut_short_is_named(tmp_path):
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 4) + b"IHDR" + bytes(4)
    (tmp_path / "a.png").write_bytes(header + struct.pack(">I", zlib.crc32(b"IHDR" + bytes(4))))
    with pytest.raises(ValueError, match=r"a\.png' cannot be read: Truncated IHDR"):
        read_id_map(tmp_path / "a.png")


def test_ids_survive_writing_and_reading(tmp_path):
    ids = np.arange(256, dtype=np.int64).reshape(8, 32)
    write_id_map(tmp_path / "ids.png", ids)
    np.testing.assert_array_equal(read_id_map(tmp_path / "ids.png"), ids)
    with Image.open(tmp_path / "ids.png") as image:
        assert image.mode == "P"
        colors = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(colors, davis_palette()[ids])
    assert [file.name for file in tmp_path.iterdir()] == ["ids.png"]


@pytest.mark.parametrize(("mode", "dtype"), [("L", np.uint8), ("I;16", np.uint16), ("1", np.uint8)])
def test_gray_files_give_their_values(tmp_path, mode, dtype):
    top = {"L": 255, "I;16": 40000, "1": 1}[mode]
    ids = np.array([[0, top], [1, 0]], dtype=dtype)
    image = Image.fromarray(ids.astype(bool)) if mode == "1" else Image.fromarray(ids)
    image.save(tmp_path / "ids.png")
    read = read_id_map(tmp_path / "ids.png")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, ids)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_mask_in_colour_is_refused_by_name(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "red.png")
    with pytest.raises(ValueError, match=rf"red\.png' has mode {mode}"):
        read_id_map(tmp_path / "red.png")


def test_lossy_missing_and_broken_masks_are_refused_by_name(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "gray.jpg")
    (tmp_path / "text.png").write_text("no picture")
    for name, reason in [("gray.jpg", "blurs"), ("text.png", "read"), ("none.png", "no such")]:
        with pytest.raises(ValueError, match=rf"{name}.*{reason}"):
            read_id_map(tmp_path / name)


@pytest.mark.parametrize(
    "ids",
    [
        np.array([[256]]),
        np.array([[-1]]),
        np.array([[0.5]]),
        np.zeros((2, 2, 3), np.uint8),
        np.zeros((0, 2), np.uint8),
    ],
)
def test_what_is_no_id_map_is_refused_and_nothing_written(tmp_path, ids):
    with pytest.raises(ValueError, match="ids must be"):
        write_id_map(tmp_path / "ids.png", ids)
    assert not list(tmp_path.iterdir())


def test_an_error_while_saving_leaves_the_old_file(tmp_path, monkeypatch):
    write_id_map(tmp_path / "ids.png", np.ones((2, 2), np.uint8))

    def fill_the_disk(self, path, format):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        write_id_map(tmp_path / "ids.png", np.zeros((2, 2), np.uint8))
    assert [file.name for file in tmp_path.iterdir()] == ["ids.png"]
    assert read_id_map(tmp_path / "ids.png").all()


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_splitting_and_merging_give_the_map_back(ids):
    masks = split_ids(ids)
    assert list(masks) == sorted(set(ids.ravel().tolist()) - {0})
    np.testing.assert_array_equal(merge_masks(masks, size=ids.shape), ids)


def test_void_is_left_out_on_request():
    ids = np.array([[0, 3, 255]], dtype=np.uint8)
    assert list(split_ids(ids)) == [3, 255]
    assert list(split_ids(ids, void=255)) == [3]


def test_the_highest_positive_logit_wins_a_pixel():
    masks = {
        7: torch.tensor([[2.0, 1.0, -1.0, 0.0, 3.0]]),
        4: torch.tensor([[1.0, 2.0, -0.5, 0.0, 3.0]]),
    }
    np.testing.assert_array_equal(merge_masks(masks), [[7, 4, 0, 0, 7]])


def test_the_later_of_two_bool_masks_wins_a_pixel():
    masks = {7: np.array([[True, True]]), 4: np.array([[False, True]])}
    np.testing.assert_array_equal(merge_masks(masks), [[7, 4]])


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({256: np.ones((2, 2), bool)}, "1 to 255"),
        ({0: np.ones((2, 2), bool)}, "1 to 255"),
        ({1: np.ones((2, 2), bool), 2: np.ones((2, 3), bool)}, "object 2"),
        ({1: np.ones((2, 2), bool), 2: np.ones((2, 2), np.float32)}, "all be"),
        ({1: np.ones((2, 2), np.int64)}, "all be"),
        ({}, "empty"),
    ],
)
def test_masks_that_do_not_fit_one_map_are_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        merge_masks(masks)


def test_object_masks_have_a_folder_each_and_keep_their_overlap(tmp_path):
    masks = {1: np.array([[True, True]]), 12: np.array([[False, True]])}
    write_object_masks(tmp_path / "out", "frame7", masks)
    for folder, mask in [("001", masks[1]), ("012", masks[12])]:
        np.testing.assert_array_equal(read_id_map(tmp_path / "out" / folder / "frame7.png"), mask)


def test_a_wrong_object_mask_writes_none(tmp_path):
    with pytest.raises(ValueError, match="object 2 must be bool"):
        write_object_masks(tmp_path, "f", {1: np.ones((2, 2), bool), 2: np.ones((2, 2))})
    assert not list(tmp_path.iterdir())
