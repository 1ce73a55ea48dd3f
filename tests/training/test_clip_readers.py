"""Videos with masks in the layouts of the public data sets."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sam2_hq.data.masks import write_id_map
from sam2_hq.data.video import VideoWriter
from sam2_hq.ops.rle import coco_encode_rle, mask_to_rle_pytorch
from sam2_hq.training.clip_readers import FrameFolders, find_frame_folders, open_clips
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.sav_reader import SavFolder

SIZE = (6, 8)


def save_frame(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), value, np.uint8)).save(path)


def save_ids(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_id_map(path, ids)


def columns(*ids):
    """An id map of equal columns."""
    return np.repeat(np.array(ids, np.uint8), SIZE[1] // len(ids))[None].repeat(SIZE[0], 0)


COWS = ((0, columns(0, 1, 2, 2)), (2, columns(1, 1, 0, 0)))


def tree(root, name="cows", maps=COWS):
    for number in range(3):
        save_frame(root / "JPEGImages" / name / f"{number:05d}.jpg", 40 * number)
    for number, ids in maps:
        save_ids(root / "Annotations" / name / f"{number:05d}.png", ids)
    return root


def test_annotated_frames_come_with_their_objects(tmp_path):
    reader = find_frame_folders(tree(tmp_path))
    assert (len(reader), reader.sample_name(0), reader.num_frames(0)) == (1, "cows", 2)
    clip = reader.read(0, [1, 0])
    assert clip.frames[:, 0, 0, 0].tolist() == [80, 0]
    assert clip.masks.shape == (2, 2, *SIZE)
    np.testing.assert_array_equal(clip.masks[1, 0], (columns(0, 1, 2, 2) == 1) * 255)
    np.testing.assert_array_equal(clip.masks[1, 1], (columns(0, 1, 2, 2) == 2) * 255)
    np.testing.assert_array_equal(clip.masks[0, 0], (columns(1, 1, 0, 0) == 1) * 255)
    assert not clip.masks[0, 1].any(), "absent on that frame"


def test_objects_in_folders_of_their_own_may_overlap(tmp_path):
    save_frame(tmp_path / "JPEGImages_24fps" / "v" / "00000.jpg")
    save_frame(tmp_path / "JPEGImages_24fps" / "v" / "00001.jpg")
    for number, ids in (("000", columns(1, 1, 0, 0)), ("001", columns(0, 1, 1, 0))):
        save_ids(tmp_path / "Annotations_6fps" / "v" / number / "00000.png", ids)
    masks = find_frame_folders(tmp_path).read(0, [0]).masks
    assert masks.shape == (1, 2, *SIZE)
    assert (masks[0].min(0) == 255).any()


def test_the_resolution_folders_of_davis_are_found(tmp_path):
    save_frame(tmp_path / "JPEGImages" / "480p" / "bear" / "00000.jpg")
    save_ids(tmp_path / "Annotations" / "480p" / "bear" / "00000.png", columns(0, 1))
    assert find_frame_folders(tmp_path).sample_name(0) == "bear"


@pytest.mark.parametrize(
    ("ids", "objects"), [((0, 255), 1), ((1, 255), 1), ((1, 2), 2)], ids=["binary", "void", "two"]
)
def test_255_is_void_only_beside_other_ids(tmp_path, ids, objects):
    reader = find_frame_folders(tree(tmp_path, maps=[(0, columns(*ids))]))
    assert reader.read(0, [0]).masks.shape[1] == objects


def test_videos_can_be_chosen_and_unusable_ones_are_named(tmp_path):
    tree(tmp_path, "cows")
    save_frame(tmp_path / "JPEGImages" / "unmarked" / "00000.jpg")
    log = SampleLog()
    tree(tmp_path, "dogs")
    reader = find_frame_folders(tmp_path, names=["cows", "unmarked"], log=log)
    assert [one.name for one in reader.videos] == ["cows"]
    assert set(log.names) == {"unmarked"}
    with pytest.raises(ValueError, match=r"JPEGImages', got 4 that are not: a, b, c, \.\.\.$"):
        find_frame_folders(tmp_path, names=["a", "cows", "b", "c", "d"])


def test_masks_may_end_in_capitals(tmp_path):
    save_frame(tmp_path / "JPEGImages" / "whole" / "00000.JPG")
    save_ids(tmp_path / "Annotations" / "whole" / "00000.png", columns(1, 2))
    save_frame(tmp_path / "JPEGImages" / "apart" / "00000.JPG")
    save_ids(tmp_path / "Annotations" / "apart" / "000" / "00000.png", columns(0, 1))
    for path in list((tmp_path / "Annotations").rglob("*.png")):
        path.rename(path.with_suffix(".PNG"))
    reader = find_frame_folders(tmp_path)
    found = {reader.sample_name(i): reader.read(i, [0]).masks.shape[1] for i in range(len(reader))}
    assert found == {"apart": 1, "whole": 2}


def test_bad_videos_are_errors(tmp_path):
    tree(tmp_path, "empty", maps=[(0, columns(0))])
    tree(tmp_path, "small", maps=[(0, columns(0, 1)[:4])])
    reader = FrameFolders(tmp_path / "JPEGImages", tmp_path / "Annotations")
    with pytest.raises(ValueError, match="video empty shows no object"):
        reader.read(0, [0])
    with pytest.raises(ValueError, match=r"a mask of video small is \[4, 8\]"):
        reader.read(1, [0])


def test_an_empty_data_set_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no video data set in"):
        find_frame_folders(tmp_path)
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="video data set is empty"):
        find_frame_folders(tmp_path)


LEFT, RIGHT, NOTHING = (torch.from_numpy(columns(*ids) > 0) for ids in ((1, 0), (0, 1), (0, 0)))


def save_masklets(path, steps=((LEFT, RIGHT), (LEFT, NOTHING), (RIGHT, LEFT))):
    """Masklets on annotated frames of a video of twelve."""
    masklet = [[coco_encode_rle(one) for one in mask_to_rle_pytorch(torch.stack(s))] for s in steps]
    path.write_text(json.dumps({"video_frame_count": 12.0, "masklet": masklet}))


def save_film(path, num_frames=12):
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, 24, SIZE) as film:
        for number in range(num_frames):
            film.write(np.full((*SIZE, 3), 20 * number, np.uint8))


def sav(root, *, frames):
    """Two masklets on three annotated frames, and the frames that were extracted."""
    save_masklets(root / "sav_1_manual.json")
    for number in frames:
        save_frame(root / "frames" / "sav_1" / f"{number:05d}.jpg", 10 * number)
    return SavFolder(root / "frames", root)


@pytest.mark.parametrize(
    ("frames", "shown"),
    [(range(12), [0, 40, 80]), ((0, 4, 8), [0, 40, 80]), ((0, 1, 2), [0, 10, 20])],
    ids=["all frames", "annotated, by number", "annotated, in a row"],
)
def test_masklets_of_sav_meet_their_frames(tmp_path, frames, shown):
    reader = sav(tmp_path, frames=frames)
    assert reader.num_frames(0) == 3
    clip = reader.read(0, [0, 1, 2])
    np.testing.assert_allclose(clip.frames[:, 0, 0, 0], shown, atol=3)  # JPEG
    assert clip.masks[:, :, 0, 0].tolist() == [[255, 0], [255, 0], [0, 255]]
    assert not clip.masks[1, 1].any()


def test_sav_without_frames_is_an_error(tmp_path):
    (tmp_path / "frames").mkdir()
    with pytest.raises(ValueError, match="SA-V is empty"):
        sav(tmp_path, frames=[])


@pytest.mark.parametrize("shard", [".", "sav_train/sav_000"])
def test_sav_is_read_as_it_is_published(tmp_path, shard):
    folder = tmp_path / "SA-V" / shard
    save_film(folder / "sav_1.mp4")
    save_masklets(folder / "sav_1_manual.json")
    reader = open_clips(tmp_path / "SA-V")
    assert isinstance(reader, SavFolder)
    assert [reader.sample_name(0), len(reader), reader.num_frames(0)] == ["sav_1", 1, 3]
    clip = reader.read(0, [2, 0, 1, 0])
    np.testing.assert_allclose(clip.frames[:, 0, 0, 0], [160, 0, 80, 0], atol=6)  # H.264
    assert clip.masks[:, :, 0, 0].tolist() == [[0, 255], [255, 0], [255, 0], [255, 0]]


def test_shards_of_sav_may_be_links(tmp_path):
    save_film(tmp_path / "other_disk" / "sav_1.mp4")
    save_masklets(tmp_path / "other_disk" / "sav_1_manual.json")
    (tmp_path / "SA-V").mkdir()
    (tmp_path / "SA-V" / "sav_000").symlink_to(tmp_path / "other_disk")
    assert len(open_clips(tmp_path / "SA-V")) == 1


def test_masklets_of_people_go_before_those_of_a_model(tmp_path):
    log = SampleLog()
    for name in ("sav_1", "sav_2"):
        save_film(tmp_path / f"{name}.mp4")
        save_masklets(tmp_path / f"{name}_auto.json", [(LEFT,)] * 3)
    save_masklets(tmp_path / "sav_1_manual.json", [(RIGHT,)] * 3)
    save_masklets(tmp_path / "sav_3_auto.json")
    reader = open_clips(tmp_path, log=log)
    assert [reader.sample_name(i) for i in range(len(reader))] == ["sav_1", "sav_2"]
    assert list(log.names) == ["sav_3"]
    in_the_left = [int(reader.read(i, [0]).masks[0, 0, 0, 0]) for i in range(2)]
    assert in_the_left == [0, 255]


def test_videos_of_sav_can_be_chosen(tmp_path):
    for name in ("sav_1", "sav_2"):
        save_film(tmp_path / f"{name}.mp4")
        save_masklets(tmp_path / f"{name}_manual.json")
    reader = open_clips(tmp_path, names=["sav_2"])
    assert [reader.sample_name(i) for i in range(len(reader))] == ["sav_2"]
    with pytest.raises(ValueError, match=r"got 1 that are not: sav_9$"):
        open_clips(tmp_path, names=["sav_2", "sav_9"])


def test_a_video_that_was_cut_short_is_an_error(tmp_path):
    save_film(tmp_path / "sav_1.mp4", num_frames=7)
    save_masklets(tmp_path / "sav_1_manual.json")
    reader = open_clips(tmp_path)
    assert reader.read(0, [0, 1]).masks.shape == (2, 2, *SIZE)
    with pytest.raises(ValueError, match=r"sav_1\.mp4' has 7 frames, but frame 8 is annotated"):
        reader.read(0, [0, 2])


def test_a_frame_without_masklets_is_an_error(tmp_path):
    reader = sav(tmp_path, frames=range(12))
    path = tmp_path / "sav_1_manual.json"
    path.write_text(json.dumps({"video_frame_count": 12.0, "masklet": [[], None, []]}))
    with pytest.raises(ValueError, match="each frame of 'masklet' must be a list"):
        reader.read(0, [0, 1])


def test_a_data_set_opens_by_what_its_folder_holds(tmp_path):
    davis, objects, masklets = tmp_path / "davis", tmp_path / "objects", tmp_path / "masklets"
    save_frame(davis / "JPEGImages" / "480p" / "bear" / "00000.jpg")
    save_ids(davis / "Annotations" / "480p" / "bear" / "00000.png", columns(0, 1))
    reader = open_clips(davis)
    assert [reader.sample_name(i) for i in range(len(reader))] == ["bear"]

    save_frame(objects / "JPEGImages_24fps" / "v" / "00000.jpg")
    save_ids(objects / "Annotations_6fps" / "v" / "000" / "00000.png", columns(0, 1))
    assert isinstance(open_clips(objects), FrameFolders)

    annotations = masklets / "Annotations_6fps"
    annotations.mkdir(parents=True)
    sav(annotations, frames=range(12))
    (annotations / "frames").rename(masklets / "JPEGImages_24fps")
    assert isinstance(open_clips(masklets), SavFolder)
