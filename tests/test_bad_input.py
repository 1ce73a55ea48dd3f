"""What a user gets wrong with a session: an error that names it, and a session as it was before.

Single prompts are in `test_sam2_video_predictor.py`, sources in `data/`, checkpoints, configs and
devices beside their files.
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.toy import SIZE, disc_centre, disc_mask, masks_by_frame, toy_clip, toy_predictor


@pytest.fixture(scope="module")
def predictor() -> Any:
    return toy_predictor()


@pytest.fixture
def state(predictor: Any) -> Any:
    state = predictor.init_state(toy_clip(4))
    predictor.add_new_points_or_box(state, 0, 1, points=[disc_centre()], labels=[1])
    return state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four noisy JPEG files."""
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg")
    return tmp_path


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


@pytest.mark.parametrize("damage", ["missing", "empty", "no image", "first cut", "other size"])
def test_a_bad_folder_is_refused_when_it_is_opened(
    predictor: Any, folder: Path, damage: str
) -> None:
    threads = set(threading.enumerate())
    if damage == "missing":
        folder = folder / "missing"
    elif damage == "empty":
        folder = folder / "empty"
        folder.mkdir()
    elif damage == "no image":
        (folder / "2.jpg").write_bytes(b"not a picture")
    elif damage == "first cut":
        cut(folder / "0.jpg")
    else:
        Image.new("RGB", (96, 70)).save(folder / "2.jpg")
    named = {"no image": r"2\.jpg", "first cut": r"0\.jpg", "other size": r"2\.jpg.* 70x96"}
    with pytest.raises(ValueError, match=named.get(damage, folder.name)):
        predictor.init_state(folder)
    assert set(threading.enumerate()) == threads


@pytest.mark.parametrize("ahead", [False, True])
def test_a_damaged_frame_ends_tracking_there_and_keeps_what_was_tracked(
    predictor: Any, folder: Path, ahead: bool
) -> None:
    whole = (folder / "2.jpg").read_bytes()
    cut(folder / "2.jpg")
    state = predictor.init_state(folder, async_loading_frames=ahead)
    predictor.add_new_points_or_box(state, 0, 1, points=[[20, 20]], labels=[1])
    tracked = []
    with pytest.raises(ValueError, match=r"2\.jpg' cannot be decoded"):
        tracked.extend(predictor.propagate_in_video(state))
    assert [result.frame_idx for result in tracked] == [0, 1]
    with pytest.raises(ValueError, match=r"2\.jpg' cannot be decoded"):
        predictor.add_new_points_or_box(state, 2, 1, points=[[20, 20]], labels=[1])
    assert list(state.tracks[1].prompts) == [0]
    (folder / "2.jpg").write_bytes(whole)  # mended: tracking goes on where it stopped
    rest = masks_by_frame(predictor.propagate_in_video(state, start_frame_idx=2))
    assert list(rest) == [2, 3]
    state.close()


@pytest.mark.parametrize(
    ("limits", "error", "message"),
    [
        ({"num_frames": 1.5}, TypeError, "num_frames must be an integer, got 1.5"),
        ({"num_frames": -1}, ValueError, "num_frames must be 0 or more, got -1"),
        ({"max_frame_num_to_track": "3"}, TypeError, "max_frame_num_to_track must be an integer"),
        ({"max_frame_num_to_track": -2}, ValueError, "max_frame_num_to_track must be 0 or more"),
        ({"start_frame_idx": "0"}, TypeError, "start_frame_idx must be an integer, got '0'"),
        ({"start_frame_idx": 4}, ValueError, r"start_frame_idx must be in 0\.\.3, got 4"),
    ],
)
def test_a_wrong_limit_is_named_at_the_call(
    predictor: Any, state: Any, limits: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        predictor.propagate_in_video(state, **limits)


def test_after_a_reset_there_is_nothing_to_track_until_the_next_prompt(
    predictor: Any, state: Any
) -> None:
    before = masks_by_frame(predictor.propagate_in_video(state))
    predictor.reset_state(state)
    with pytest.raises(ValueError, match="there is no object to track"):
        predictor.propagate_in_video(state)
    with pytest.raises(ValueError, match="obj_id 1 is not an object of this session"):
        predictor.remove_object(state, 1, strict=True)
    predictor.add_new_points_or_box(state, 0, 1, points=[disc_centre()], labels=[1])
    after = masks_by_frame(predictor.propagate_in_video(state))
    assert all((after[frame] == before[frame]).all() for frame in before)


def test_a_painted_mask_may_be_a_picture_and_must_be_one(predictor: Any, state: Any) -> None:
    picture = Image.fromarray(disc_mask())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        painted = predictor.add_new_mask(state, 1, "painted", picture)
    predictor.add_new_mask(state, 1, "array", disc_mask())
    assert (painted.masks[-1] > 0).any()
    for wrong in (None, "mask", np.full(SIZE, None)):
        with pytest.raises(TypeError, match="mask must be an array"):
            predictor.add_new_mask(state, 1, "wrong", wrong)
    assert state.obj_ids == [1, "painted", "array"]


def test_a_stream_refuses_what_is_no_frame_and_goes_on(predictor: Any) -> None:
    stream = predictor.open_stream()
    with pytest.raises(ValueError, match="the stream has no frame yet"):
        stream.add_new_points_or_box("a", points=[[1, 1]], labels=[1])
    with pytest.raises(ValueError, match="frame is float32 and must lie in"):
        stream.step(np.full((*SIZE, 3), np.nan, np.float32))
    with pytest.raises(TypeError, match="frame must be"):
        stream.step(3)
    with pytest.raises(ValueError, match=r"frame 'lost\.png': no such file"):
        stream.step("lost.png")
    assert stream.frame_idx == -1
    stream.step(toy_clip(1)[0])
    assert stream.frame_idx == 0
