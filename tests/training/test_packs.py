"""What a pack holds arrives whole, in order, and what is bad is named."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from sam2_hq.training.packs import read_backgrounds, read_clips, read_cutouts, read_photos
from sam2_hq.training.sample_log import SampleLog
from tests.training import toy_packs


def test_photos_come_back_as_they_were_packed(tmp_path):
    gallery = read_photos(toy_packs.photos(tmp_path / "photos.zip"))
    name, picture, masks = next(gallery.stills())
    red, green = (picture == colour for colour in (toy_packs.RED, toy_packs.GREEN))
    assert name == "photo0"
    assert picture.shape == (40, 48, 3)
    np.testing.assert_array_equal(masks[0], red.all(-1))
    np.testing.assert_array_equal(masks[1], green.all(-1))
    np.testing.assert_array_equal(masks[2], masks[0] | masks[1])


def test_stills_come_in_the_same_order_every_time(tmp_path):
    gallery = read_photos(toy_packs.photos(tmp_path / "photos.zip"))
    names = [name for name, _, _ in gallery.stills()]
    assert names == [name for name, _, _ in gallery.stills()] == [f"photo{i}" for i in range(4)]


def test_boxes_hold_the_objects_tightly(tmp_path):
    gallery = read_photos(toy_packs.photos(tmp_path / "photos.zip"))
    for number, (_, _, masks) in enumerate(gallery.stills()):
        for target, mask in zip(gallery.targets[number], masks, strict=True):
            rows, columns = np.nonzero(mask)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert target.box == box


def test_only_the_licences_asked_for_are_taken(tmp_path):
    pack = toy_packs.photos(tmp_path / "photos.zip")
    gallery = read_photos(pack, allow={"permissive"})
    assert [entry["id"] for entry in gallery.entries] == ["photo1", "photo3"]
    with pytest.raises(ValueError, match="no usable item of the classes"):
        read_photos(pack, allow={"copyleft"})
    with pytest.raises(ValueError, match=r"allow must name classes.*\['free'\]"):
        read_photos(pack, allow={"free"})


def test_an_item_without_a_known_licence_is_skipped_and_named(tmp_path):
    entries = [
        {"id": "a", "bg": "a.png", "license_class": "permissive"},
        {"id": "b", "bg": "a.png"},
        {"id": "c", "bg": "a.png", "license_class": "permisive"},
    ]
    files = {"a.png": toy_packs.png(np.zeros((8, 8, 3), dtype=np.uint8))}
    log = SampleLog()
    pack = toy_packs.write_pack(tmp_path / "mixed.zip", entries, files)
    assert len(read_backgrounds(pack, log=log)) == 1
    assert "license_class must be one of" in log.names["mixed.zip:b"]
    assert "got 'permisive'" in log.names["mixed.zip:c"]


def test_alpha_of_cutouts_is_kept_exactly(tmp_path):
    gallery = read_cutouts(toy_packs.cutouts(tmp_path / "cutouts.zip"))
    _, pixels, masks = next(gallery.stills())
    assert pixels.shape == (toy_packs.SIDE, toy_packs.SIDE, 4)
    assert len(np.unique(pixels[..., 3])) > 10
    assert masks == []


def test_the_frames_of_a_clip_stay_together(tmp_path):
    gallery = read_clips(toy_packs.clips(tmp_path / "clips.zip"))
    assert gallery.clips == [list(range(6)), list(range(6, 12))]
    assert gallery.targets[0][0].box != (0, 0, 0, 0)
    assert gallery.targets[5][0].box == (0, 0, 0, 0)


def test_backgrounds_have_no_objects(tmp_path):
    gallery = read_backgrounds(toy_packs.backgrounds(tmp_path / "backgrounds.zip"))
    assert len(gallery) == 2
    assert gallery.targets == [[], []]


def test_a_bad_item_is_skipped_counted_and_named(tmp_path, caplog):
    blue = toy_packs.painted(np.zeros((8, 8), np.bool_))
    good = {"license_class": "permissive", "objects": [{"id": 1}], "img": "a.png"}
    entries = [
        {**good, "id": "good", "mask": "a_mask.png"},
        {**good, "id": "missing", "mask": "nowhere.png"},
        {**good, "id": "other size", "mask": "small.png"},
        {**good, "id": "empty", "mask": "zero.png"},
        {**good, "id": "damaged", "img": "torn.png", "mask": "a_mask.png"},
        {**good, "id": "no such id", "mask": "a_mask.png", "groups": [{"ids": [0, 1]}]},
    ]
    files = {
        "a.png": toy_packs.png(blue),
        "a_mask.png": toy_packs.png(np.ones((8, 8), np.uint8), palette=True),
        "small.png": toy_packs.png(np.ones((4, 8), np.uint8), palette=True),
        "zero.png": toy_packs.png(np.zeros((8, 8), np.uint8), palette=True),
        "torn.png": toy_packs.png(blue)[:50],
    }
    log = SampleLog()
    pack = toy_packs.write_pack(tmp_path / "pack.zip", entries, files)
    assert len(read_photos(pack, log=log)) == 1
    assert log.count == 5
    assert set(log.names) == {f"pack.zip:{entry['id']}" for entry in entries[1:]}
    assert "mask is [4, 8] (height, width), but its picture [8, 8]" in caplog.text


@pytest.mark.parametrize("content", [b"no zip", None])
def test_what_is_no_pack_is_refused(tmp_path, content):
    path = tmp_path / "pack.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be opened"):
        read_photos(path)


def test_clips_without_frames_and_cutouts_of_no_thinness_are_skipped(tmp_path):
    log = SampleLog()
    entries = [{"license_class": "permissive", "id": 7, "frames": 0, "objects": [{"id": 1}]}]
    with pytest.raises(ValueError, match="no usable item"):
        read_clips(toy_packs.write_pack(tmp_path / "clips.zip", entries, {}), log=log)
    entries = [{"license_class": "permissive", "id": 8, "rgba": "a.png", "thin": None}]
    with pytest.raises(ValueError, match="no usable item"):
        read_cutouts(toy_packs.write_pack(tmp_path / "cutouts.zip", entries, {}), log=log)
    assert set(log.names) == {"clips.zip:7", "cutouts.zip:8"}


def test_items_without_an_id_are_named_by_their_place(tmp_path):
    picture = toy_packs.png(toy_packs.painted(np.ones((8, 8), np.bool_)))
    mask = toy_packs.png(np.ones((8, 8), np.uint8), palette=True)
    entry = {"license_class": "permissive", "objects": [{"id": 1}], "img": "a", "mask": "b"}
    pack = toy_packs.write_pack(tmp_path / "pack.zip", [entry], {"a": picture, "b": mask})
    assert [name for name, _, _ in read_photos(pack).stills()] == ["item 1"]


def test_a_damaged_index_is_refused(tmp_path):
    pack = toy_packs.photos(tmp_path / "pack.zip")
    content = bytearray(pack.read_bytes())
    content[content.index(b'"license_class"')] ^= 1
    pack.write_bytes(content)
    with pytest.raises(ValueError, match=r"no readable index\.jsonl: Bad CRC-32"):
        read_photos(pack)


def test_a_line_that_is_no_object_is_refused(tmp_path):
    pack = toy_packs.write_pack(tmp_path / "pack.zip", [[1, 2]], {})
    with pytest.raises(ValueError, match="line 1 of its index is no object"):
        read_photos(pack)


def test_a_zip_without_an_index_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(ValueError, match=r"no readable index\.jsonl"):
        read_photos(tmp_path / "pack.zip")
