"""Prompts from the truth, tracking from the first of them, and masks cut out of logits."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sam2_hq.data.frames import open_frames
from sam2_hq.data.masks import BoolMask
from sam2_hq.evaluation.mask_folders import MaskFolder
from sam2_hq.evaluation.semi_supervised import (
    Prompts,
    TrackingRules,
    cut_out,
    first_appearances,
    track_objects,
)
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import TrackedFrame
from tests.evaluation.folders import square, write_packed, write_per_object
from tests.toy import SIZE, disc_mask, toy_clip, toy_predictor

NAMES = [f"{i:05d}" for i in range(6)]
ONE, OTHER = square(1, 10, 10), square(2, 30, 40, side=8)
BOTH = square(2, 30, 40, side=8, on=ONE)
NOTHING = np.zeros_like(ONE)


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return toy_predictor()


def given_on(prompts: Prompts) -> dict[int, list[int]]:
    return {frame: list(masks) for frame, masks in prompts.items()}


def test_an_object_starts_from_its_first_mask(tmp_path: Path):
    folder = MaskFolder(write_packed(tmp_path / "v", [NOTHING, ONE, ONE, BOTH]))
    prompts = first_appearances(folder, NAMES)
    assert given_on(prompts) == {1: [1], 3: [2]}
    assert (prompts[1][1] == (ONE == 1)).all()
    assert (prompts[3][2] == (BOTH == 2)).all()


def test_late_objects_can_be_left_out(tmp_path: Path):
    folder = MaskFolder(write_packed(tmp_path / "v", [NOTHING, ONE, BOTH]))
    assert given_on(first_appearances(folder, NAMES, late=False)) == {1: [1]}


def test_every_mask_of_an_object_can_be_given(tmp_path: Path):
    folder = MaskFolder(write_packed(tmp_path / "v", [ONE, BOTH, OTHER, BOTH]))
    assert given_on(first_appearances(folder, NAMES, every=True)) == {
        0: [1], 1: [1, 2], 2: [2], 3: [1, 2],
    }  # fmt: skip
    assert given_on(first_appearances(folder, NAMES, late=False, every=True)) == {
        0: [1], 1: [1], 3: [1],
    }  # fmt: skip


def test_annotations_may_be_sparser_than_frames_and_lie_in_object_folders(tmp_path: Path):
    write_per_object(tmp_path / "v", [ONE, BOTH], [1, 2])
    for object_id in ("001", "002"):
        (tmp_path / "v" / object_id / "00001.png").rename(tmp_path / "v" / object_id / "00004.png")
    assert given_on(first_appearances(MaskFolder(tmp_path / "v"), NAMES)) == {0: [1], 4: [2]}


def test_annotations_of_other_frames_are_left_out(tmp_path: Path):
    folder = MaskFolder(write_packed(tmp_path / "v", [ONE, BOTH]))
    assert given_on(first_appearances(folder, NAMES[1:])) == {0: [1, 2]}
    with pytest.raises(ValueError, match="begins with '00000', the video with '00002'"):
        first_appearances(folder, NAMES[2:])
    empty = MaskFolder(write_packed(tmp_path / "e", [NOTHING]))
    with pytest.raises(ValueError, match="e' has no object on any frame of the video"):
        first_appearances(empty, NAMES)


def test_masks_of_another_size_are_named(tmp_path: Path):
    folder = MaskFolder(write_packed(tmp_path / "v", [ONE]))
    height, width = ONE.shape
    assert first_appearances(folder, NAMES, size=(height, width))
    with pytest.raises(ValueError, match=r"mask '00000' in '.*v' is .*, the frames are \[9, 9\]"):
        first_appearances(folder, NAMES, size=(9, 9))


def test_void_is_never_an_object(tmp_path: Path):
    ids = ONE.copy()
    ids[30:] = 255
    folder = write_packed(tmp_path / "v", [ids])
    assert given_on(first_appearances(MaskFolder(folder), NAMES)) == {0: [1, 255]}
    assert given_on(first_appearances(MaskFolder(folder, void=255), NAMES)) == {0: [1]}


def test_tracking_begins_at_the_first_prompt_and_late_objects_join(predictor: SAM2VideoPredictor):
    prompts = {2: {1: disc_mask(2)}, 4: {9: corner()}}
    with open_frames(toy_clip(6)) as frames:
        results = list(track_objects(predictor, frames, prompts))
    assert [result.frame for result in results] == [2, 3, 4, 5]
    assert [list(result.masks) for result in results] == [[1], [1], [1, 9], [1, 9]]
    assert all(mask.shape == SIZE for result in results for mask in result.masks.values())


def test_a_late_object_does_not_change_the_others(predictor: SAM2VideoPredictor):
    rules = TrackingRules(may_overlap=True)
    with open_frames(toy_clip(6)) as frames:
        alone = list(track_objects(predictor, frames, {0: {1: disc_mask()}}, rules))
        joined = list(
            track_objects(predictor, frames, {0: {1: disc_mask()}, 3: {9: corner()}}, rules)
        )
    for before, after in zip(alone, joined, strict=True):
        # 1e-3 of the pixels: sums of a larger batch are rounded otherwise.
        assert (before.masks[1] != after.masks[1]).mean() < 1e-3


def test_a_late_object_is_as_if_tracked_by_itself(predictor: SAM2VideoPredictor):
    rules = TrackingRules(may_overlap=True)
    with open_frames(toy_clip(6)) as frames:
        alone = list(track_objects(predictor, frames, {3: {9: corner()}}, rules))
        joined = list(
            track_objects(predictor, frames, {0: {1: disc_mask()}, 3: {9: corner()}}, rules)
        )
    for before, after in zip(alone, joined[3:], strict=True):
        assert (before.masks[9] != after.masks[9]).mean() < 1e-3


def test_all_masks_of_an_object_are_given_before_it_is_tracked(predictor: SAM2VideoPredictor):
    prompts = {1: {1: disc_mask(1)}, 2: {9: corner()}, 4: {1: disc_mask(4), 9: corner()}}
    rules = TrackingRules(may_overlap=True)
    with open_frames(toy_clip(6)) as frames:
        joined = list(track_objects(predictor, frames, prompts, rules))
        for object_id, start in ((1, 1), (9, 2)):
            with closing(predictor.init_state(frames)) as state:
                for frame, masks in prompts.items():
                    if object_id in masks:
                        predictor.add_new_mask(state, frame, object_id, masks[object_id])
                alone = [cut_out(t, rules) for t in predictor.propagate_in_video(state)]
            for index, masks in enumerate(alone, start):
                assert (masks[object_id] == joined[index - 1].masks[object_id]).all()


def test_every_mask_of_a_long_video_costs_a_picture_an_object_and_frame(
    predictor: SAM2VideoPredictor, monkeypatch: pytest.MonkeyPatch
):
    seen, encode = [], SAM2VideoPredictor.encode_image

    def counted(self, pixels):
        seen.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(SAM2VideoPredictor, "encode_image", counted)
    late = {i: {9: corner()} for i in range(3, 24)}
    prompts = {i: {1: disc_mask(i), **late.get(i, {})} for i in range(24)}
    with open_frames(toy_clip(24)) as frames:
        list(track_objects(predictor, frames, prompts))
    # Once for the prompts of each object; of the first one as far ahead as features are not held.
    assert sum(seen) <= 2 * 24


@pytest.mark.parametrize("prompt", ["box", "click"])
def test_what_is_said_of_a_mask_is_not_the_mask(predictor: SAM2VideoPredictor, prompt):
    with open_frames(toy_clip(2)) as frames:
        painted, said = (
            next(track_objects(predictor, frames, {0: {1: corner()}}, TrackingRules(kind)))
            for kind in ("mask", prompt)
        )
    # A painted mask is the answer, up to the stretch to model pixels and back.
    assert (painted.masks[1] == corner()).mean() > 0.97
    assert (said.masks[1] != painted.masks[1]).any()


@pytest.mark.parametrize("line", [np.s_[5:40, -1], np.s_[-1, 10:60], np.s_[30, 20]])
def test_a_line_of_one_pixel_can_be_given_as_a_box(predictor: SAM2VideoPredictor, line):
    thin = np.zeros(SIZE, dtype=bool)
    thin[line] = True
    with open_frames(toy_clip(2)) as frames:
        results = list(track_objects(predictor, frames, {0: {1: thin}}, TrackingRules("box")))
    assert [list(result.masks) for result in results] == [[1], [1]]


def test_mistakes_are_named(predictor: SAM2VideoPredictor):
    with pytest.raises(ValueError, match="prompt must be one of mask, box, click, got word"):
        TrackingRules("word")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="score_threshold must be a finite logit, got nan"):
        TrackingRules(score_threshold=float("nan"))
    with open_frames(toy_clip(2)) as frames, pytest.raises(ValueError, match="at least one mask"):
        next(track_objects(predictor, frames, {}))


Logits = npst.arrays(np.float32, (3, 2, 4), elements=st.sampled_from([-9.0, -1.0, 0.0, 1.0, 9.0]))


def tracked(logits: np.ndarray) -> TrackedFrame:
    return TrackedFrame(0, [5, 2, 8], torch.from_numpy(logits)[:, None], torch.zeros(3, 3))


@given(Logits, st.sampled_from([-2.0, 0.0, 2.0]))
def test_a_pixel_belongs_to_the_highest_logit_above_the_threshold(
    logits: np.ndarray, threshold: float
):
    masks = cut_out(tracked(logits), TrackingRules(score_threshold=threshold))
    for y, x in np.ndindex(2, 4):
        owner = int(logits[:, y, x].argmax())  # the first of equal ones
        expected = [5, 2, 8][owner] if logits[owner, y, x] > threshold else None
        assert [i for i, mask in masks.items() if mask[y, x]] == [expected] * (expected is not None)


@given(Logits)
def test_overlaps_are_kept_on_request(logits: np.ndarray):
    masks = cut_out(tracked(logits), TrackingRules(may_overlap=True))
    assert list(masks) == [5, 2, 8]
    for mask, own in zip(masks.values(), logits, strict=True):
        assert (mask == (own > 0)).all()


def corner() -> BoolMask:
    mask = np.zeros(SIZE, dtype=bool)
    mask[-20:, -24:] = True
    return mask
