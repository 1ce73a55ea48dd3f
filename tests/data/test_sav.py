"""Looking at SA-V: a video, its masklets, and both in one picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2_hq.data.sav import SAVDataset, masks_of, read_annotation
from sam2_hq.data.video import VideoWriter
from sam2_hq.ops.rle import coco_encode_rle, mask_to_rle_pytorch
from sam2_hq.visualization import object_colors

SIZE = (48, 64)
NUM_FRAMES = 9


def box(left: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[8:40, left : left + width] = True
    return mask


MANUAL = [[box(4 * t, 24), box(0, 0)] for t in range(3)]  # the second object is out of sight
AUTO = [[box(4 * t + 4, 8)] for t in range(3)]  # small, and inside the first


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine gray frames and three annotated ones, brighter from frame to frame."""
    with VideoWriter(tmp_path / "sav_7.mp4", 24, SIZE) as video:
        for index in range(NUM_FRAMES):
            video.write(np.full((*SIZE, 3), 40 + 20 * index, np.uint8))
    for kind, frames in (("manual", MANUAL), ("auto", AUTO)):
        masklet = [
            [coco_encode_rle(r) for r in mask_to_rle_pytorch(torch.from_numpy(np.stack(masks)))]
            for masks in frames
        ]
        record = {"video_id": "sav_7", "masklet": masklet, "masklet_num": len(frames[0])}
        (tmp_path / f"sav_7_{kind}.json").write_text(json.dumps(record))
    return tmp_path


def test_a_video_comes_with_both_kinds_of_masklets(folder: Path):
    frames, manual, auto = SAVDataset(folder).get_frames_and_annotations("sav_7")
    with frames:
        assert len(frames) == NUM_FRAMES
    assert manual is not None
    assert auto is not None
    assert manual["masklet_num"] == 2
    for index in range(3):
        np.testing.assert_array_equal(masks_of(manual, index), MANUAL[index])
        np.testing.assert_array_equal(masks_of(auto, index), AUTO[index])


def test_a_video_without_one_kind_says_none(folder: Path):
    (folder / "sav_7_auto.json").unlink()
    video = SAVDataset(folder).get_frames_and_annotations("sav_7")
    assert video.auto is None
    assert video.manual is not None


def test_masklets_are_painted_on_the_frame_they_belong_to(folder: Path):
    data = SAVDataset(folder)
    frames, manual, auto = data.get_frames_and_annotations("sav_7")
    with frames:
        plain = data.visualize_annotation(frames, auto, manual, 2, False, False)
        np.testing.assert_array_equal(plain, frames[8])
        drawn = data.visualize_annotation(frames, None, manual, 2)
        changed = (drawn != plain).any(axis=2)
        np.testing.assert_array_equal(changed, MANUAL[2][0])
        both = data.visualize_annotation(frames, auto, manual, 2).astype(int)
        middle = (20, 16)  # in both objects; the smaller one is seen
        expected = (plain[middle] + object_colors()[0].astype(int)) / 2
        np.testing.assert_allclose(both[middle], expected, atol=1)
        rare = SAVDataset(folder, annot_sample_rate=3)
        np.testing.assert_array_equal(rare.visualize_annotation(frames, None, None, 2), frames[6])


def test_mistakes_are_named(folder: Path):
    data = SAVDataset(folder)
    with pytest.raises(ValueError, match="sav_dir: there is no folder"):
        SAVDataset(folder / "no")
    with pytest.raises(ValueError, match="annot_sample_rate must be 1 or more, got 0"):
        SAVDataset(folder, annot_sample_rate=0)
    with pytest.raises(ValueError, match=r"'sav_8' has no masklets: no file '.*sav_8_manual.json'"):
        data.get_frames_and_annotations("sav_8")
    frames, manual, auto = data.get_frames_and_annotations("sav_7")
    with frames, pytest.raises(ValueError, match="annotated_frame_id must be 0 to 2, got 3"):
        data.visualize_annotation(frames, auto, manual, 3)
    (folder / "sav_7.mp4").unlink()
    with pytest.raises(ValueError, match=r"sav_7\.mp4"):
        data.get_frames_and_annotations("sav_7")
    (folder / "sav_7_auto.json").write_text("{")
    with pytest.raises(ValueError, match=r"sav_7_auto.json' is no JSON"):
        data.get_frames_and_annotations("sav_7")
    (folder / "sav_7_auto.json").write_text("[]")
    with pytest.raises(ValueError, match="has no list 'masklet'"):
        read_annotation(folder / "sav_7_auto.json")
    with pytest.raises(ValueError, match="no such file"):
        read_annotation(folder / "sav_9_auto.json")
