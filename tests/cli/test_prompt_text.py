from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sam2_hq.cli.prompt_text import gather_prompts, read_prompts
from sam2_hq.cli.prompts import Clicks, PaintedMask, check_prompts, describe_prompt

pixels = st.floats(0, 4096, allow_nan=False)


def write_prompts(folder: Path, *entries: object, version: object = 1) -> Path:
    path = folder / "prompts.json"
    path.write_text(json.dumps({"version": version, "prompts": list(entries)}))
    return path


def save_mask(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


@given(st.integers(1, 255), st.integers(0, 9999), pixels, pixels, st.integers(0, 1))
def test_a_point_means_what_its_parts_say(object_id, frame, x, y, label):
    (prompt,) = gather_prompts([f"{object_id}@{frame}:{x!r},{y!r},{label}"], None, None, None)
    assert (prompt.object_id, prompt.frame) == (object_id, frame)
    assert (prompt.points, prompt.labels, prompt.box) == (((x, y),), (label,), None)


@pytest.mark.parametrize(
    ("text", "object_id", "frame"),
    [("5,6", 1, 0), ("3:5,6", 3, 0), ("@7:5,6", 1, 7), ("3@7:5,6", 3, 7)],
)
def test_object_one_and_frame_zero_are_meant_unless_said(text, object_id, frame):
    (prompt,) = gather_prompts([text], None, None, None)
    assert (prompt.object_id, prompt.frame) == (object_id, frame)
    assert prompt.points == ((5.0, 6.0),)
    assert prompt.labels == (1,)


def test_clicks_and_a_box_of_one_object_become_one_prompt():
    (prompt,) = gather_prompts(["2:5,6", "2:7,8,0"], ["2:1,2,30,40"], None, None)
    assert prompt.points == ((5, 6), (7, 8))
    assert prompt.labels == (1, 0)
    assert prompt.box == (1, 2, 30, 40)


def test_prompts_come_in_order_of_frame_then_of_mention():
    prompts = gather_prompts(["4@9:1,1", "3:1,1", "2:1,1"], None, None, None)
    assert [(prompt.object_id, prompt.frame) for prompt in prompts] == [(3, 0), (2, 0), (4, 9)]


def test_every_id_of_a_mask_becomes_an_object(tmp_path):
    ids = np.zeros((6, 8))
    ids[1:3, 1:4], ids[4, 5] = 3, 9
    path = save_mask(tmp_path / "a@b.png", ids)
    prompts = gather_prompts(None, None, [f"{path}@12", str(path)], None)
    assert [(prompt.object_id, prompt.frame) for prompt in prompts] == [
        (3, 0),
        (9, 0),
        (3, 12),
        (9, 12),
    ]
    np.testing.assert_array_equal(prompts[0].mask, ids == 3)


def test_a_black_and_white_mask_is_object_one(tmp_path):
    path = save_mask(tmp_path / "mask.png", np.eye(6) * 255)
    (prompt,) = gather_prompts(None, None, [str(path)], None)
    assert prompt.object_id == 1
    np.testing.assert_array_equal(prompt.mask, np.eye(6) > 0)


def test_a_file_says_the_same_as_options(tmp_path):
    file = write_prompts(
        tmp_path,
        {"object": 1, "frame": 0, "box": [1, 2, 30, 40], "points": [[5, 6]], "labels": [0]},
        {"object": 2, "frame": 3, "points": [[7, 8.5]], "labels": [1]},
    )
    from_file = gather_prompts(None, None, None, file)
    from_options = gather_prompts(["5,6,0", "2@3:7,8.5"], ["1,2,30,40"], None, None)
    assert [*map(describe_prompt, from_file)] == [*map(describe_prompt, from_options)]


def test_a_mask_in_a_file_lies_relative_to_it_and_gives_its_own_object(tmp_path):
    (tmp_path / "masks").mkdir()
    ids = np.arange(12).reshape(3, 4) % 3
    save_mask(tmp_path / "masks" / "a.png", ids)
    file = write_prompts(tmp_path, {"object": 2, "frame": 1, "mask": "masks/a.png"})
    (prompt,) = read_prompts(file)
    assert isinstance(prompt, PaintedMask)
    np.testing.assert_array_equal(prompt.mask, ids == 2)


@pytest.mark.parametrize(
    "text",
    ["", "5", "5;6", "a:5,6", "1@b:5,6", "1@:5,6", "5,6,7,8", "0:5,6", "256:5,6", "1@-1:5,6",
     "5,6,2", "5,x"],
)  # fmt: skip
def test_a_point_that_cannot_be_read_is_named(text):
    with pytest.raises(ValueError, match=r"^--point "):
        gather_prompts([text], None, None, None)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ([1, 2], "must be an object"),
        ({"object": 1, "frame": 0}, "must have points"),
        ({"object": 1, "box": [1, 2, 3, 4]}, "'frame' is missing"),
        ({"object": 1, "frame": 0, "boxx": [1, 2, 3, 4]}, "unknown key 'boxx'"),
        ({"object": "1", "frame": 0, "box": [1, 2, 3, 4]}, "object id must be 1 to 255"),
        ({"object": True, "frame": 0, "box": [1, 2, 3, 4]}, "object id must be 1 to 255"),
        ({"object": 1, "frame": -1, "box": [1, 2, 3, 4]}, "frame must be"),
        ({"object": 1, "frame": 0.0, "box": [1, 2, 3, 4]}, "frame must be"),
        ({"object": 1, "frame": 0, "box": [1, 2, 3]}, "a box must be"),
        ({"object": 1, "frame": 0, "box": [1, 2, 3, "4"]}, "a box must be"),
        ({"object": 1, "frame": 0, "points": [[1, 2]]}, "labels must be one a point"),
        ({"object": 1, "frame": 0, "points": [[1, 2]], "labels": [2]}, "label must be 1"),
        ({"object": 1, "frame": 0, "points": [1, 2], "labels": [1, 1]}, "a point must be"),
        ({"object": 1, "frame": 0, "points": 5, "labels": 1}, "must be lists"),
        ({"object": 1, "frame": 0, "mask": 5}, "path of a PNG"),
        ({"object": 1, "frame": 0, "mask": "m.png", "box": [1, 2, 3, 4]}, "stands alone"),
    ],
)
def test_a_wrong_entry_of_a_file_is_named(tmp_path, entry, words):
    good = {"object": 9, "frame": 0, "box": [1, 2, 3, 4]}
    with pytest.raises(ValueError, match=rf"prompts\.json, entry 1: .*{words}"):
        read_prompts(write_prompts(tmp_path, good, entry))


@pytest.mark.parametrize("text", ["", "[]", '{"prompts": []}', '{"version": 1, "prompts": 3}'])
def test_a_file_of_another_form_is_refused(tmp_path, text):
    path = tmp_path / "prompts.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"prompts\.json"):
        read_prompts(path)


def test_a_file_of_a_later_version_is_refused(tmp_path):
    with pytest.raises(ValueError, match="version must be 1, got 2"):
        read_prompts(write_prompts(tmp_path, version=2))


def test_two_boxes_for_one_object_on_a_frame_contradict_each_other():
    with pytest.raises(ValueError, match="already has the box of --box 1,2,3,4"):
        gather_prompts(None, ["1,2,3,4", "1:2,3,4,5"], None, None)


def test_a_mask_and_a_click_for_one_object_on_a_frame_contradict_each_other(tmp_path):
    path = save_mask(tmp_path / "mask.png", np.eye(6))
    with pytest.raises(ValueError, match="a mask stands alone"):
        gather_prompts(["1:2,3"], None, [str(path)], None)


def test_saying_nothing_is_answered_with_what_to_say():
    with pytest.raises(ValueError, match=r"--point .*--box .*--mask .*--prompts"):
        gather_prompts(None, None, None, None)


@pytest.mark.parametrize(
    ("points", "boxes", "words"),
    [
        (["65,5"], None, "--point 65,5: points must lie inside"),
        (["5,-1"], None, "must lie inside"),
        (["nan,5"], None, "finite"),
        (["@5:5,5"], None, "frame must be 0 to 4, got 5"),
        (None, ["20,5,10,9"], "x0 < x1"),
        (None, ["5,5,5,9"], "x0 < x1"),
        (None, ["5,5,70,9"], "must lie inside"),
    ],
)
def test_prompts_outside_the_video_are_refused_by_name(points, boxes, words):
    prompts = gather_prompts(points, boxes, None, None)
    with pytest.raises(ValueError, match=words):
        check_prompts(prompts, 5, (48, 64))


def test_a_mask_of_another_size_than_the_video_is_refused():
    prompt = PaintedMask(1, 0, np.ones((6, 8), bool), "--mask m.png")
    with pytest.raises(ValueError, match=r"--mask m\.png: mask must be \[48, 64\]"):
        check_prompts([prompt], 5, (48, 64))


def test_descriptions_tell_masks_apart():
    one, other = np.zeros((2, 4, 4), dtype=bool)
    other[0, 0] = True
    prompts = [PaintedMask(1, 0, mask, "") for mask in (one, other, one.copy())]
    first, second, third = map(describe_prompt, prompts)
    assert first == third != second


def test_where_a_prompt_was_said_does_not_change_its_description():
    here, there = (Clicks(1, 0, ((1, 2),), (1,), None, origin) for origin in ("a", "b"))
    assert describe_prompt(here) == describe_prompt(there)
