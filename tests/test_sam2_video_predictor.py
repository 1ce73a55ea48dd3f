"""Stories of a user with a video: click, look, correct, add, remove, go back, save, go on."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from sam2_hq.config import MemoryPolicy
from sam2_hq.data.frames import open_frames
from sam2_hq.data.video import VideoWriter
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import NO_OBJECT_LOGIT
from tests.toy import (
    SIZE,
    disc_centre,
    disc_mask,
    masks_by_frame,
    toy_clip,
    toy_predictor,
)


@pytest.fixture(scope="module")
def toy() -> SAM2VideoPredictor:
    return toy_predictor()


@pytest.fixture
def predictor(toy: SAM2VideoPredictor) -> SAM2VideoPredictor:
    """The toy model; rules that a test replaces are put back."""
    policy, options, mode = toy.memory_policy, toy.options, toy.hq_mode
    yield toy
    toy.memory_policy, toy.options, toy.hq_mode = policy, options, mode


@pytest.fixture
def state(predictor: SAM2VideoPredictor) -> Any:
    return predictor.init_state(toy_clip())


def click(predictor: SAM2VideoPredictor, state: Any, frame: int = 0, obj_id: Any = 1) -> Any:
    return predictor.add_new_points_or_box(
        state, frame, obj_id, points=[disc_centre(frame)], labels=[1]
    )


def box(predictor: SAM2VideoPredictor, state: Any, frame: int = 0, obj_id: Any = 2) -> Any:
    return predictor.add_new_points_or_box(state, frame, obj_id, box=[60, 8, 84, 34])


def track(predictor: SAM2VideoPredictor, state: Any, **how: Any) -> dict[int, torch.Tensor]:
    return masks_by_frame(predictor.propagate_in_video(state, **how))


# ------------------------------------------------------------------ prompts


def test_a_click_gives_a_mask_on_every_frame(predictor: Any, state: Any) -> None:
    preview = click(predictor, state)
    frame, ids, masks = preview  # unpacks as in the published packages
    assert (frame, ids, masks.shape) == (0, [1], (1, 1, *SIZE))
    tracked = track(predictor, state)
    assert list(tracked) == list(range(12))
    assert_close(tracked[0], masks, rtol=0, atol=0)
    assert all((m > 0).any() for m in tracked.values())


def test_a_box_is_two_labelled_points(predictor: Any, state: Any) -> None:
    by_box = box(predictor, state).masks
    other = predictor.init_state(toy_clip())
    by_points = predictor.add_new_points_or_box(
        other, 0, 2, points=[[60, 8], [84, 34]], labels=[2, 3]
    ).masks
    assert torch.equal(by_box, by_points)


def test_no_clicks_beside_a_box_are_the_box(predictor: Any, state: Any) -> None:
    by_box = box(predictor, state).masks
    other = predictor.init_state(toy_clip())
    both = predictor.add_new_points_or_box(
        other, 0, 2, points=np.zeros((0, 2)), labels=[], box=[60, 8, 84, 34]
    )
    assert torch.equal(both.masks, by_box)
    with pytest.raises(ValueError, match="points must hold a click where there is no box"):
        predictor.add_new_points_or_box(
            other, 0, 2, points=np.zeros((0, 2)), labels=[], clear_old_points=False
        )


def test_clicks_join_a_box_and_use_its_mask(predictor: Any, state: Any) -> None:
    box(predictor, state)
    predictor.add_new_points_or_box(
        state, 0, 2, points=[[70, 20]], labels=[1], clear_old_points=False
    )
    assert state.tracks[2].prompts[0].labels.tolist() == [[2, 3, 1]]
    with pytest.raises(ValueError, match="box needs clear_old_points=True"):
        predictor.add_new_points_or_box(state, 0, 2, box=[60, 8, 84, 34], clear_old_points=False)


def test_a_painted_mask_is_the_mask_of_its_frame(predictor: Any, state: Any) -> None:
    mask = disc_mask()
    got = predictor.add_new_mask(state, 0, 7, mask).masks[0, 0] > 0
    overlap = (got.numpy() & mask).sum() / (got.numpy() | mask).sum()
    assert overlap > 0.9  # the mask passed through a quarter of the model's side
    assert predictor.init_state(toy_clip()).obj_ids == []
    as_bytes = (mask * 255).astype(np.uint8)
    again = predictor.add_new_mask(predictor.init_state(toy_clip()), 0, 7, as_bytes).masks
    assert torch.equal(again[0, 0] > 0, got)


def test_an_empty_painted_mask_says_the_object_is_absent(predictor: Any, state: Any) -> None:
    result = predictor.add_new_mask(state, 0, 1, np.zeros(SIZE, bool))
    assert result.scores[1].object_score == -10
    assert not (result.masks > 0).any()


@pytest.mark.parametrize("part", [(30, 60), (30, slice(None)), (slice(None), 20)])
def test_a_mask_too_thin_for_the_model_is_not_an_absent_object(predictor: Any, part: Any) -> None:
    large = np.zeros((8 * SIZE[0], 8 * SIZE[1], 3), np.uint8)
    painted = np.zeros(large.shape[:2], bool)
    painted[part] = True
    result = predictor.add_new_mask(predictor.init_state([large]), 0, 1, painted)
    assert result.scores[1].object_score > 0
    rows, columns = (result.masks[0, 0] > 0).nonzero().float().mean(dim=0)
    at = np.argwhere(painted).mean(axis=0)
    assert (float(rows), float(columns)) == pytest.approx(tuple(at), abs=12)  # cells of S/4: 24


def test_the_same_click_twice_differs_unless_the_previous_mask_is_left_out(predictor: Any) -> None:
    first = click(predictor, state := predictor.init_state(toy_clip())).masks
    second = click(predictor, state).masks
    fresh = predictor.add_new_points_or_box(
        state, 0, 1, points=[disc_centre()], labels=[1], use_previous_mask=False
    ).masks
    assert not torch.equal(first, second)
    assert torch.equal(first, fresh)


# ----------------------------------------------------------- many objects


def test_two_objects_are_tracked_as_if_each_were_alone(predictor: Any) -> None:
    alone = {}
    for obj_id, prompt in ((1, click), (2, box)):
        prompt(predictor, state := predictor.init_state(toy_clip()))
        alone[obj_id] = track(predictor, state)
    state = predictor.init_state(toy_clip())
    click(predictor, state), box(predictor, state)
    together = track(predictor, state)
    for frame, masks in together.items():
        assert torch.equal(masks[0], alone[1][frame][0])
        assert torch.equal(masks[1], alone[2][frame][0])


@pytest.mark.parametrize("object_batch", [2, 64])
def test_objects_in_one_pass_get_the_masks_of_single_passes(
    predictor: Any, object_batch: int
) -> None:
    def run() -> dict[int, torch.Tensor]:
        state = predictor.init_state(toy_clip())
        for i in range(5):
            predictor.add_new_points_or_box(state, 0, i, points=[[20 + 9 * i, 30]], labels=[1])
        click(predictor, state, frame=3, obj_id="late")
        return track(predictor, state, start_frame_idx=0)

    one_by_one = run()
    predictor.options = replace(predictor.options, object_batch=object_batch)
    for frame, masks in run().items():
        # Stored memories are bfloat16: one rounding step may differ and is then carried on.
        assert_close(masks, one_by_one[frame], rtol=0, atol=0.05)


def test_an_object_may_be_added_after_tracking(predictor: Any, state: Any) -> None:
    click(predictor, state)
    before = track(predictor, state)
    predictor.add_new_mask(state, 4, "late", disc_mask(4))
    after = track(predictor, state, start_frame_idx=4)
    assert state.obj_ids == [1, "late"]
    for frame in range(4, 12):
        assert torch.equal(after[frame][0], before[frame][0])
        assert (after[frame][1] > 0).any()


def test_an_object_is_tracked_on_frames_before_its_first_prompt(predictor: Any, state: Any) -> None:
    click(predictor, state, frame=5)  # no pointer of the past is there: only the prompted memory
    tracked = track(predictor, state, start_frame_idx=2)
    assert list(tracked) == list(range(2, 12))
    assert all(torch.isfinite(masks).all() for masks in tracked.values())


def test_removing_an_object_keeps_the_others(predictor: Any, state: Any) -> None:
    click(predictor, state), box(predictor, state)
    before = track(predictor, state)
    ids, views = predictor.remove_object(state, 1)
    assert ids == [2]
    assert [(frame, masks.shape[0]) for frame, masks in views] == [(0, 1)]
    after = track(predictor, state)
    for frame, masks in after.items():
        assert torch.equal(masks[0], before[frame][1])
    assert predictor.remove_object(state, 99) == ([2], [])
    with pytest.raises(ValueError, match="obj_id 99 is not an object of this session"):
        predictor.remove_object(state, 99, strict=True)
    assert predictor.remove_object(state, 2) == ([], [])


def test_objects_may_come_and_go_while_tracking_runs(predictor: Any, state: Any) -> None:
    click(predictor, state), box(predictor, state)
    seen = []
    for frame, ids, masks in predictor.propagate_in_video(state):
        seen.append(ids)
        assert masks.shape[0] == len(ids)
        if frame == 3:
            predictor.remove_object(state, 1)
        if frame == 6:
            predictor.add_new_mask(state, 6, 9, disc_mask(6))
    assert seen == [[1, 2]] * 4 + [[2]] * 3 + [[2, 9]] * 5


# ------------------------------------------------------------- corrections


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("corrected", [0, 4])
def test_a_correction_survives_and_changes_what_follows(
    predictor: Any, state: Any, corrected: int, backward: bool
) -> None:
    click(predictor, state, frame=8 if backward else 0)
    before = track(predictor, state, reverse=backward)
    fixed = predictor.add_new_points_or_box(
        state, corrected, 1, points=[[70, 50]], labels=[0]
    ).masks
    start = 8 if backward else 0
    after = track(predictor, state, start_frame_idx=start, reverse=backward)
    again = track(predictor, state, start_frame_idx=start, reverse=backward)
    assert torch.equal(after[corrected], fixed)
    assert torch.equal(again[corrected], fixed)
    assert not torch.equal(fixed, before[corrected])
    later = corrected - 1 if backward else corrected + 1
    if later in before:
        assert not torch.equal(after[later], before[later])


def test_clearing_one_frame_leaves_all_other_prompts(predictor: Any, state: Any) -> None:
    click(predictor, state), box(predictor, state, frame=3)
    click(predictor, state, frame=6)
    shown = predictor.clear_all_prompts_in_frame(state, 6, 1)
    assert shown.frame_idx == 6
    assert sorted(state.tracks[1].prompts) == [0]
    assert sorted(state.tracks[2].prompts) == [3]
    clean = predictor.init_state(toy_clip())
    click(predictor, clean), box(predictor, clean, frame=3)
    want = track(predictor, clean)
    assert all(torch.equal(m, want[f]) for f, m in track(predictor, state).items())


def test_the_only_prompt_may_move_to_another_frame(predictor: Any, state: Any) -> None:
    box(predictor, state, obj_id=1)  # of the wrong object, as the user sees then
    track(predictor, state)
    predictor.clear_all_prompts_in_frame(state, 0, 1)
    with pytest.raises(ValueError, match="object 1 has no prompt left"):
        predictor.propagate_in_video(state)
    moved = click(predictor, state, frame=3).masks
    clean = predictor.init_state(toy_clip())
    assert torch.equal(moved, click(predictor, clean, frame=3).masks)
    want = track(predictor, clean)
    got = track(predictor, state)
    assert list(got) == list(want) == list(range(3, 12))
    assert all(torch.equal(got[f], want[f]) for f in want)


@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize("backward", [True, False])
def test_without_its_first_prompt_an_object_is_tracked_from_its_correction(
    predictor: Any, state: Any, backward: bool, is_committed: bool
) -> None:
    first = 11 if backward else 0
    click(predictor, state, frame=first)
    track(predictor, state, reverse=backward)
    fixed = predictor.add_new_points_or_box(state, 5, 1, points=[[70, 50]], labels=[0]).masks
    if is_committed:
        predictor.propagate_in_video_preflight(state)
    predictor.clear_all_prompts_in_frame(state, first, 1)
    tracked = track(predictor, state, reverse=backward)
    assert list(tracked) == list(range(5, -1, -1) if backward else range(5, 12))
    assert torch.equal(tracked[5], fixed)
    assert all((masks > 0).any() for masks in tracked.values())
    again = click(predictor, state, frame=8).masks
    assert torch.equal(track(predictor, state, start_frame_idx=8, num_frames=1)[8], again)


@pytest.mark.parametrize("add_all_frames_to_correct_as_cond", [False, True])
@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("wrong_clicks", [1, 2])
def test_a_wrong_click_may_be_taken_back_after_tracking_went_on(
    predictor: Any,
    state: Any,
    tmp_path: Path,
    wrong_clicks: int,
    saved: bool,
    add_all_frames_to_correct_as_cond: bool,
) -> None:
    predictor.options = replace(
        predictor.options, add_all_frames_to_correct_as_cond=add_all_frames_to_correct_as_cond
    )
    click(predictor, state)
    before = track(predictor, state)
    for _ in range(wrong_clicks):
        predictor.add_new_points_or_box(state, 4, 1, points=[[70, 50]], labels=[0])
        track(predictor, state, start_frame_idx=4, num_frames=1)
    if saved:
        predictor.save_state(state, tmp_path / "session")
        state = predictor.load_state(tmp_path / "session", toy_clip())
    assert torch.equal(predictor.clear_all_prompts_in_frame(state, 4, 1).masks, before[4])
    assert torch.equal(track(predictor, state, start_frame_idx=5, num_frames=1)[5], before[5])
    again = predictor.add_new_points_or_box(state, 4, 1, points=[disc_centre(4)], labels=[1])
    click(predictor, clean := predictor.init_state(toy_clip()))
    track(predictor, clean)
    want = predictor.add_new_points_or_box(clean, 4, 1, points=[disc_centre(4)], labels=[1])
    assert torch.equal(again.masks, want.masks)


def test_a_wrong_object_that_was_taken_back_does_not_come_back_with_a_correction(
    predictor: Any, state: Any
) -> None:
    wrong = np.zeros(SIZE, bool)
    wrong[2:14, 2:14] = True
    predictor.add_new_mask(state, 0, 1, wrong)
    track(predictor, state)
    predictor.add_new_mask(state, 5, 1, disc_mask(5))
    predictor.propagate_in_video_preflight(state)
    predictor.clear_all_prompts_in_frame(state, 0, 1)
    track(predictor, state)
    track(predictor, state, reverse=True)
    predictor.add_new_mask(state, 8, 1, disc_mask(8))
    shown = predictor.clear_all_prompts_in_frame(state, 5, 1)
    assert np.isnan(shown.scores[1]).all()


def test_a_click_on_a_corrected_frame_that_was_cleared_is_as_if_there_had_been_no_correction(
    predictor: Any,
) -> None:
    def next_click(*, corrected: bool) -> torch.Tensor:
        state = predictor.init_state(toy_clip())
        click(predictor, state, frame=0)
        click(predictor, state, frame=11)
        track(predictor, state)
        if corrected:
            predictor.add_new_points_or_box(state, 5, 1, points=[[70, 50]], labels=[0])
            track(predictor, state, start_frame_idx=5, num_frames=1, reverse=True)
            predictor.clear_all_prompts_in_frame(state, 5, 1)
        return click(predictor, state, frame=5).masks

    assert torch.equal(next_click(corrected=True), next_click(corrected=False))


def test_a_wrong_second_prompt_may_be_taken_back_before_tracking(
    predictor: Any, state: Any
) -> None:
    click(predictor, state)
    predictor.add_new_points_or_box(state, 4, 1, points=[[70, 50]], labels=[1])
    predictor.propagate_in_video_preflight(state)
    predictor.clear_all_prompts_in_frame(state, 4, 1)
    again = click(predictor, state, frame=4)
    clean = predictor.init_state(toy_clip())
    assert torch.equal(again.masks, click(predictor, clean, frame=4).masks)


@pytest.mark.parametrize("backward", [False, True])
def test_clearing_where_nothing_was_said_changes_nothing(
    predictor: Any, state: Any, backward: bool
) -> None:
    click(predictor, state, frame=11 if backward else 0)
    before = track(predictor, state, reverse=backward)
    shown = predictor.clear_all_prompts_in_frame(state, 4, 1)
    assert torch.equal(shown.masks, before[4])


def test_a_prompt_may_be_taken_back_and_given_while_tracking_runs(
    predictor: Any, state: Any
) -> None:
    click(predictor, state), box(predictor, state)
    is_there = {}
    for frame, _, masks in predictor.propagate_in_video(state):
        is_there[frame] = (masks > 0).flatten(1).any(dim=1).tolist()
        if frame == 3:
            predictor.clear_all_prompts_in_frame(state, 0, 1)
        if frame == 6:
            click(predictor, state, frame=2)  # tracking has been there
    gone = range(4, 7)
    assert is_there == {frame: [frame not in gone, True] for frame in range(12)}


def test_reset_forgets_everything_but_the_video(predictor: Any, state: Any) -> None:
    first = click(predictor, state).masks
    ids = state.obj_ids
    track(predictor, state)
    predictor.reset_state(state)
    assert state.obj_ids == []
    assert ids == [1]  # the list the caller holds stays as it was
    with pytest.raises(ValueError, match="no object to track"):
        predictor.propagate_in_video(state)
    assert torch.equal(click(predictor, state).masks, first)


def test_a_step_that_is_interrupted_leaves_no_trace(
    predictor: Any, state: Any, monkeypatch: Any
) -> None:
    untouched = predictor.init_state(toy_clip())
    for one in (state, untouched):
        click(predictor, one), box(predictor, one)
    want = track(predictor, untouched)
    run = predictor.propagate_in_video(state)
    next(run), next(run)
    encode, calls = predictor.encode_memory, []

    def encode_and_stop(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(*args, **kwargs)

    monkeypatch.setattr(predictor, "encode_memory", encode_and_stop)
    with pytest.raises(KeyboardInterrupt):
        next(run)
    monkeypatch.undo()
    assert all(2 not in t.tracked and 2 not in t.directions for t in state.tracks.values())
    again = track(predictor, state, start_frame_idx=2)
    assert all(torch.equal(masks, want[frame]) for frame, masks in again.items())
    first, second = (click(predictor, one, frame=2).masks for one in (state, untouched))
    assert torch.equal(first, second)


# --------------------------------------------------------------- direction


def test_tracking_runs_backward_from_the_last_prompt(predictor: Any, state: Any) -> None:
    click(predictor, state, frame=2)
    click(predictor, state, frame=7)
    assert list(track(predictor, state, reverse=True)) == [7, 6, 5, 4, 3, 2, 1, 0]
    assert list(track(predictor, state)) == list(range(2, 12))


def test_a_correction_is_carried_backward_too(predictor: Any, state: Any) -> None:
    click(predictor, state)
    forward = track(predictor, state, num_frames=7)
    predictor.add_new_points_or_box(state, 5, 1, points=[[70, 50]], labels=[0])
    backward = track(predictor, state, reverse=True)
    assert list(backward) == [5, 4, 3, 2, 1, 0]
    assert not torch.equal(backward[4], forward[4])


def test_after_a_backward_pass_tracking_starts_at_the_first_correction(
    predictor: Any, state: Any
) -> None:
    click(predictor, state, frame=6)
    track(predictor, state, reverse=True)
    predictor.add_new_points_or_box(state, 2, 1, points=[[70, 50]], labels=[0])
    assert list(track(predictor, state, num_frames=3)) == [2, 3, 4]


def test_k_frames_means_k(predictor: Any, state: Any) -> None:
    click(predictor, state, frame=3)
    assert list(track(predictor, state, num_frames=4)) == [3, 4, 5, 6]
    assert list(track(predictor, state, num_frames=4, reverse=True)) == [3, 2, 1, 0]
    assert list(track(predictor, state, max_frame_num_to_track=4)) == [3, 4, 5, 6, 7]
    assert list(track(predictor, state, start_frame_idx=10, num_frames=9)) == [10, 11]
    assert list(track(predictor, state, num_frames=0)) == []


def test_one_frame_is_a_video(predictor: Any) -> None:
    state = predictor.init_state(toy_clip(1))
    click(predictor, state)
    track(predictor, state)
    again = click(predictor, state)  # after tracking, so it is conditioned on itself
    assert torch.isfinite(again.masks).all()
    assert (again.masks > 0).any()


# ------------------------------------------------- disappearance and return


def test_an_object_disappears_and_returns() -> None:
    predictor = toy_predictor(seed=3)
    state = predictor.init_state(toy_clip())
    click(predictor, state)
    head = predictor.sam_mask_decoder.pred_obj_score_head.layers[2]
    present = head.bias.detach().clone()
    shown = {}
    for frame, _, masks in predictor.propagate_in_video(state):
        shown[frame] = masks
        with torch.no_grad():  # the network "does not see" the object on frames 4 to 6
            head.bias.copy_(present - 100 if 3 <= frame < 6 else present)
    absent = [f for f, masks in shown.items() if bool((masks == NO_OBJECT_LOGIT).all())]
    assert absent == [4, 5, 6]
    assert (shown[7] > 0).any()


def test_an_absent_object_is_absent_everywhere() -> None:
    predictor = toy_predictor(object_bias=-30.0)
    state = predictor.init_state(toy_clip())
    predictor.add_new_mask(state, 0, 1, disc_mask())
    tracked = track(predictor, state)
    assert (tracked.pop(0) > 0).any()  # what the user painted is authoritative
    assert all(bool((masks == NO_OBJECT_LOGIT).all()) for masks in tracked.values())


# ------------------------------------------------------------------ scores


def test_every_result_carries_scores(predictor: Any, state: Any) -> None:
    click(predictor, state), box(predictor, state)
    for result in predictor.propagate_in_video(state, num_frames=3):
        assert list(result.scores) == [1, 2]
        for scores in result.scores.values():
            assert 0 <= scores.iou <= 1
            assert 0 <= scores.hq_disagreement <= 1
            assert np.isfinite(scores.object_score)


@pytest.mark.parametrize(
    "carry", [copy.copy, copy.deepcopy, lambda result: pickle.loads(pickle.dumps(result))]
)
def test_a_result_may_be_copied_or_sent_to_another_process(
    predictor: Any, state: Any, carry: Any
) -> None:
    shown = click(predictor, state)
    carried = carry(shown)
    frame, ids, masks = carried
    assert (frame, ids) == (0, [1])
    assert torch.equal(masks, shown.masks)
    assert carried.scores == shown.scores


def test_a_result_with_masks_replaced_keeps_its_scores(predictor: Any, state: Any) -> None:
    shown = click(predictor, state)
    binary = shown._replace(masks=shown.masks > 0)
    assert binary.masks.dtype == torch.bool
    assert binary.scores == shown.scores
    with pytest.raises(TypeError, match="mask"):
        shown._replace(mask=binary.masks)


def test_hq_modes_give_different_masks_and_off_is_the_sam_mask(predictor: Any) -> None:
    shown = {}
    for mode in ("off", "correct", "only", "auto"):
        predictor.hq_mode = mode
        shown[mode] = click(predictor, predictor.init_state(toy_clip())).masks
    assert not torch.equal(shown["off"], shown["correct"])
    assert not torch.equal(shown["only"], shown["correct"])
    either = [torch.equal(shown["auto"], shown[mode]) for mode in ("off", "correct")]
    assert any(either)


def test_a_plain_model_tracks_and_refuses_hq() -> None:
    plain = toy_predictor(hq=False)
    state = plain.init_state(toy_clip())
    click(plain, state)
    assert len(track(plain, state)) == 12
    with pytest.raises(ValueError, match="hq_mode='correct' needs an HQ model"):
        plain.hq_mode = "correct"


# ------------------------------------------------------- memory and storage


def test_a_bounded_memory_gives_the_published_masks_and_stops_growing(predictor: Any) -> None:
    clip = toy_clip(30)
    click(predictor, state := predictor.init_state(clip))
    want = track(predictor, state)
    predictor.memory_policy = replace(predictor.memory_policy, max_memory_frames=6)
    click(predictor, state := predictor.init_state(clip))
    sizes = []
    for frame, _, masks in predictor.propagate_in_video(state):
        assert torch.equal(masks, want[frame])
        sizes.append(kept_bytes(state))
    assert len(set(sizes[16:])) == 1


def test_a_correction_of_the_newest_frame_remembers_all_it_would_have(predictor: Any) -> None:
    shown = []
    for bound in (None, 6):
        predictor.memory_policy = replace(predictor.memory_policy, max_memory_frames=bound)
        click(predictor, state := predictor.init_state(toy_clip(30)))
        track(predictor, state, num_frames=20)
        shown.append(predictor.add_new_points_or_box(state, 19, 1, points=[[70, 50]], labels=[0]))
    assert torch.equal(shown[0].masks, shown[1].masks)


def test_a_small_bound_says_how_many_frames_are_recalled(predictor: Any) -> None:
    predictor.memory_policy = replace(predictor.memory_policy, max_memory_frames=2)
    click(predictor, state := predictor.init_state(toy_clip(12)))
    track(predictor, state, num_frames=9)
    recall = state.tracks[1].recall(
        9, num_frames=None, backward=False, policy=predictor.memory_policy
    )
    assert [frame for frame, _ in recall.spatial] == [0, 7, 8]


@pytest.fixture
def wary(predictor: Any) -> Any:
    """The predictor, which recalls frames of the better half of the predicted IoUs alone."""
    click(predictor, state := predictor.init_state(toy_clip(30)))
    frames = list(predictor.propagate_in_video(state))
    median = float(np.median([frame.scores[1].iou for frame in frames[1:]]))
    predictor.memory_policy = replace(predictor.memory_policy, min_memory_iou=median)
    return predictor


def recalled(predictor: Any, state: Any, frame: int) -> list[int]:
    recall = state.tracks[1].recall(
        frame, num_frames=None, backward=False, policy=predictor.memory_policy
    )
    return [frame for frame, _ in recall.spatial]


def test_frames_with_bad_masks_are_not_recalled(wary: Any) -> None:
    click(wary, state := wary.init_state(toy_clip(30)))
    scores = {r.frame_idx: r.scores[1] for r in wary.propagate_in_video(state)}
    good = [f for f in range(1, 28) if scores[f].iou >= wary.memory_policy.min_memory_iou]
    assert 5 < len(good) < 22
    assert recalled(wary, state, 29) == [0, *good[-5:], 28]


def test_frames_on_which_the_object_is_absent_are_not_recalled(predictor: Any) -> None:
    predictor.memory_policy = replace(predictor.memory_policy, min_memory_iou=0.0)
    click(predictor, state := predictor.init_state(toy_clip(12)))
    track(predictor, state)
    assert recalled(predictor, state, 11) == [0, 5, 6, 7, 8, 9, 10]
    tracked = state.tracks[1].tracked
    for frame in (6, 7, 9, 10):
        gone = tracked[frame].scores * torch.tensor([[-1.0, 1.0, 1.0]])
        tracked[frame] = replace(tracked[frame], scores=gone)
    assert recalled(predictor, state, 11) == [0, 2, 3, 4, 5, 8, 10]


def test_a_corrected_frame_is_recalled_however_bad_once_it_is_remembered(wary: Any) -> None:
    wary.memory_policy = replace(wary.memory_policy, min_memory_iou=1.0)
    click(wary, state := wary.init_state(toy_clip(12)))
    track(wary, state)
    assert recalled(wary, state, 11) == [0, 10]
    wary.add_new_points_or_box(state, 4, 1, points=[[70, 50]], labels=[0])
    assert recalled(wary, state, 11) == [0, 10]  # of frame 4 there is the old mask yet
    track(wary, state)
    assert recalled(wary, state, 11) == [0, 4, 10]
    with_memory = [f for f, record in state.tracks[1].tracked.items() if record.memory is not None]
    assert 4 in with_memory


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_bounded_memory_keeps_the_frames_that_show_the_object(
    wary: Any, batch: int, stride: int
) -> None:
    policy = replace(wary.memory_policy, memory_temporal_stride_for_eval=stride)
    wary.options = replace(wary.options, object_batch=batch)

    def tracked(bound: int | None) -> list[tuple[torch.Tensor, int]]:
        wary.memory_policy = replace(policy, max_memory_frames=bound)
        state = wary.init_state(toy_clip(30))
        for number in range(4):
            click(wary, state, obj_id=number)
        box(wary, state, frame=14, obj_id=0)
        return [(r.masks, kept_bytes(state)) for r in wary.propagate_in_video(state)]

    free, bounded = tracked(None), tracked(6 * stride)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(free, bounded, strict=True))
    assert max(size for _, size in bounded[20:]) < 1.3 * max(size for _, size in bounded[8:20])


def test_without_memories_a_model_still_tracks(predictor: Any, state: Any) -> None:
    for least in (None, 0.0):
        predictor.memory_policy = MemoryPolicy(num_maskmem=0, min_memory_iou=least)
        state = predictor.init_state(toy_clip(4))
        click(predictor, state)
        assert len(track(predictor, state)) == 4


def test_what_lies_under_a_correction_is_forgotten_in_time(predictor: Any) -> None:
    predictor.memory_policy = replace(predictor.memory_policy, max_memory_frames=6)
    click(predictor, state := predictor.init_state(toy_clip(30)))
    track(predictor, state, num_frames=5)
    predictor.add_new_points_or_box(state, 4, 1, points=[[70, 50]], labels=[0])
    held = {r.frame_idx: kept_bytes(state) for r in predictor.propagate_in_video(state)}
    assert held[28] == held[29]
    assert not state.tracks[1].covered
    shown = predictor.clear_all_prompts_in_frame(state, 4, 1)
    assert np.isnan(shown.scores[1]).all()


def test_a_forgotten_object_is_unknown_and_not_absent(predictor: Any) -> None:
    predictor.memory_policy = replace(predictor.memory_policy, max_memory_frames=6)
    click(predictor, state := predictor.init_state(toy_clip(30)))
    track(predictor, state)
    for frame in (2, 25):  # all of it is forgotten, or the mask alone
        shown = box(predictor, state, frame=frame, obj_id="new")
        assert np.isnan(shown.scores[1]).all()
        assert not shown.scores[1].object_score > 0
        assert bool((shown.masks[0] == NO_OBJECT_LOGIT).all())
        assert np.isfinite(shown.scores["new"]).all()


def kept_bytes(state: Any) -> int:
    records = [
        record
        for track in state.tracks.values()
        for store in (track.anchors, track.tracked, {f: c.record for f, c in track.covered.items()})
        for record in store.values()
    ]
    tensors = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for r in records
        for t in (r.mask_logits, r.memory, r.pointer, r.scores)
        if t is not None
    }
    return sum(tensors.values())


@pytest.mark.parametrize("how", ["removed", "all its prompts taken back"])
def test_an_object_that_goes_leaves_no_memory_behind(predictor: Any, state: Any, how: str) -> None:
    predictor.options = replace(predictor.options, object_batch=4)
    for obj_id in range(4):
        click(predictor, state, obj_id=obj_id)
    track(predictor, state)
    of_four = kept_bytes(state)
    for obj_id in (0, 1, 3):
        if how == "removed":
            predictor.remove_object(state, obj_id)
        else:
            predictor.clear_all_prompts_in_frame(state, 0, obj_id)
    assert kept_bytes(state) == of_four // 4


def test_more_memories_than_the_model_was_trained_with_are_refused(predictor: Any) -> None:
    before = predictor.memory_policy
    with pytest.raises(ValueError, match=r"num_maskmem must be at most 7, .* got 9"):
        predictor.memory_policy = replace(before, num_maskmem=9)
    with pytest.raises(TypeError, match=r"max_memory_frames must be a whole number, got 2\.5"):
        predictor.memory_policy = replace(before, max_memory_frames=2.5)
    assert predictor.memory_policy is before


def test_a_smaller_memory_still_tracks(predictor: Any, state: Any) -> None:
    predictor.memory_policy = replace(predictor.memory_policy, max_memory_frames=2)
    click(predictor, state)
    assert len(track(predictor, state)) == 12
    with_memory = [r for r in state.tracks[1].tracked.values() if r.memory is not None]
    assert len(with_memory) == 3  # the newest frame's, and what it recalled


def test_returned_masks_belong_to_the_caller(predictor: Any) -> None:
    clip = np.stack([np.resize(f, (32, 32, 3)) for f in toy_clip(4)])  # S/4: no resize is needed
    state = predictor.init_state(clip)
    predictor.add_new_points_or_box(state, 0, 1, points=[[10, 10]], labels=[1])
    for _, _, masks in predictor.propagate_in_video(state, num_frames=2):
        kept = state.tracks[1].record(1)
        masks.fill_(99)
        assert kept is None or not bool((kept.mask_logits == 99).any())


@pytest.mark.parametrize("how", [{"async_loading_frames": True}, {"offload_state_to_cpu": True}])
def test_loading_and_storage_options_do_not_change_the_masks(predictor: Any, how: Any) -> None:
    click(predictor, state := predictor.init_state(toy_clip()))
    want = track(predictor, state)
    click(predictor, state := predictor.init_state(toy_clip(), offload_video_to_cpu=True, **how))
    assert all(torch.equal(masks, want[f]) for f, masks in track(predictor, state).items())
    state.close()


def test_the_image_encoder_runs_once_a_frame(predictor: Any, monkeypatch: Any) -> None:
    calls = []
    encode = predictor.encode_image
    monkeypatch.setattr(predictor, "encode_image", lambda x: calls.append(1) or encode(x))
    state = predictor.init_state(toy_clip())
    for obj_id, frame in ((1, 0), (2, 2), (3, 4)):
        click(predictor, state, frame=frame, obj_id=obj_id)
    track(predictor, state)
    assert len(calls) == 12


@pytest.mark.parametrize("async_loading_frames", [False, True])
def test_an_iterator_of_unknown_length_is_tracked_to_its_end(
    predictor: Any, async_loading_frames: bool
) -> None:
    clip = toy_clip(20)
    click(predictor, state := predictor.init_state(clip))
    want = track(predictor, state)
    frames = (frame for frame in clip)
    state = predictor.init_state(frames, async_loading_frames=async_loading_frames)
    assert state.num_frames is None
    click(predictor, state)
    got = track(predictor, state)
    assert state.num_frames == 20
    assert list(got) == list(want)
    assert all(torch.equal(got[f], want[f]) for f in want)
    state.close()


def test_prompts_far_apart_on_an_iterator_are_all_tracked_from(predictor: Any) -> None:
    state = predictor.init_state(iter(toy_clip(24)))
    whole = predictor.init_state(toy_clip(24))
    for frame in range(0, 20, 2):  # more frames than an iterator keeps
        click(predictor, state, frame, obj_id=frame // 4)
        click(predictor, whole, frame, obj_id=frame // 4)
    got, want = (track(predictor, one, start_frame_idx=18) for one in (state, whole))
    assert list(got) == list(range(18, 24))
    assert all(torch.equal(masks, want[frame]) for frame, masks in got.items())
    assert len(state.features._features) <= predictor.options.feature_cache_frames


def test_the_end_of_a_short_iterator_changes_no_second_pass(predictor: Any) -> None:
    click(predictor, state := predictor.init_state(iter(toy_clip(6))))
    first = track(predictor, state)
    second = track(predictor, state, start_frame_idx=0)
    assert len(first) == 6
    assert all(torch.equal(masks, second[frame]) for frame, masks in first.items())


def test_other_weights_are_used_on_frames_seen_before(toy: Any) -> None:
    predictor, clip = toy_predictor(), toy_clip(3)
    click(predictor, state := predictor.init_state(clip))
    other = {name: 1.1 * value for name, value in predictor.state_dict().items()}
    predictor.load_state_dict(other)
    fresh = predictor.init_state(clip)
    seen, unseen = (box(predictor, one).masks[-1] for one in (state, fresh))
    assert torch.equal(seen, unseen)


@pytest.mark.parametrize("async_loading_frames", [False, True])
@pytest.mark.parametrize("leave", ["remove", "clear", "reset"])
def test_a_camera_without_objects_left_is_followed_to_its_end(
    predictor: Any, leave: str, async_loading_frames: bool
) -> None:
    camera = (frame for frame in toy_clip(9))
    state = predictor.init_state(camera, async_loading_frames=async_loading_frames)
    click(predictor, state)
    frames = []
    for frame, ids, masks in predictor.propagate_in_video(state):
        frames.append(frame)
        assert len(ids) == len(masks) == (frame <= 3 or leave == "clear")
        assert frame < 9
        if frame == 3 and leave == "remove":
            predictor.remove_object(state, 1)
        if frame == 3 and leave == "clear":
            predictor.clear_all_prompts_in_frame(state, 0, 1)
        if frame == 3 and leave == "reset":
            predictor.reset_state(state)
    assert frames == list(range(9))
    assert state.num_frames == 9
    state.close()


def test_the_progress_of_an_endless_camera_claims_no_end(predictor: Any, capsys: Any) -> None:
    state = predictor.init_state(frame for frame in toy_clip(4))
    click(predictor, state)
    assert len(list(predictor.propagate_in_video(state, progress=True))) == 4
    shown = capsys.readouterr().err
    assert "4frame" in shown
    assert "%" not in shown


@pytest.mark.parametrize("async_loading_frames", [False, True])
def test_a_camera_that_fails_does_not_end_as_if_complete(
    predictor: Any, async_loading_frames: bool
) -> None:
    def camera() -> Any:
        yield from toy_clip(5)
        raise IndexError("camera lost")

    state = predictor.init_state(camera(), async_loading_frames=async_loading_frames)
    click(predictor, state)
    results = predictor.propagate_in_video(state)
    assert [next(results).frame_idx for _ in range(5)] == list(range(5))
    with pytest.raises(IndexError, match="camera lost"):
        next(results)
    assert state.num_frames is None
    state.close()


def test_a_refused_call_does_not_use_up_an_iterator(predictor: Any) -> None:
    state = predictor.init_state(frame for frame in toy_clip())
    click(predictor, state)
    with pytest.raises(ValueError, match="labels"):
        predictor.add_new_points_or_box(state, 11, 1, points=[[1, 1]], labels=[7])
    with pytest.raises(ValueError, match="mask"):
        predictor.add_new_mask(state, 11, 1, np.zeros((3, 3), bool))
    with pytest.raises(ValueError, match="'nobody' is not an object"):
        predictor.clear_all_prompts_in_frame(state, 11, "nobody")
    predictor.clear_all_prompts_in_frame(state, 11, 1)
    assert list(track(predictor, state)) == list(range(12))


def test_a_frame_behind_the_end_of_an_iterator_is_named(predictor: Any) -> None:
    state = predictor.init_state(frame for frame in toy_clip(5))
    with pytest.raises(ValueError, match=r"frame_idx must be in 0\.\.4, got 5"):
        click_at(predictor, state, 5)
    with pytest.raises(ValueError, match=r"frame_idx must be in 0\.\.4, got -1"):
        click_at(predictor, state, -1)
    assert state.obj_ids == []
    click(predictor, state, frame=3)
    with pytest.raises(ValueError, match=r"start_frame_idx must be in 0\.\.4, got 7"):
        predictor.propagate_in_video(state, start_frame_idx=7)
    assert list(track(predictor, state)) == [3, 4]


# ------------------------------------------------------------------- rules


def test_holes_are_filled_in_every_install(predictor: Any, state: Any) -> None:
    predictor.options = replace(predictor.options, fill_hole_area=8)
    ring = disc_mask()
    x, y = disc_centre()
    ring[y - 3 : y + 3, x - 3 : x + 3] = False  # six video pixels: less than eight of the S/4 map
    predictor.add_new_mask(state, 0, 1, ring)
    assert track(predictor, state, num_frames=1)[0][0, 0, y, x] > 0
    predictor.options = replace(predictor.options, fill_hole_area=0)
    predictor.add_new_mask(state, 0, 2, ring)
    assert track(predictor, state, num_frames=1)[0][1, 0, y, x] < 0


def test_objects_do_not_overlap_when_asked(predictor: Any, state: Any) -> None:
    predictor.options = replace(predictor.options, non_overlap_masks=True)
    click(predictor, state), box(predictor, state)
    for masks in track(predictor, state).values():
        assert int((masks > 0).sum(dim=0).max()) <= 1


def test_what_is_painted_wins_over_what_is_tracked(predictor: Any, state: Any) -> None:
    predictor.options = replace(predictor.options, non_overlap_masks=True)
    click(predictor, state)
    track(predictor, state, num_frames=4)
    state.tracks[1].tracked[3].mask_logits.mul_(1000)  # it could not be surer
    tracked, painted = predictor.add_new_mask(state, 3, 2, np.ones(SIZE, bool)).masks
    assert (painted > 0).all()
    assert not (tracked > 0).any()


def test_a_later_prompt_on_a_frame_shares_it_in_the_memory(predictor: Any) -> None:
    """As if both had been painted at once."""
    predictor.options = replace(predictor.options, non_overlap_masks_for_mem_enc=True)
    left, right = np.zeros(SIZE, bool), np.ones(SIZE, bool)
    left[:, :60] = True
    memories = []
    for is_later in (False, True):
        state = predictor.init_state(toy_clip(2))
        predictor.add_new_mask(state, 0, 1, left)
        if is_later:
            track(predictor, state, num_frames=1)
        predictor.add_new_mask(state, 0, 2, right)
        track(predictor, state, num_frames=1)
        memories.append(state.tracks[2].anchors[0].memory)
    assert torch.equal(*memories)


@pytest.mark.parametrize("compatible", [True, False])
def test_what_is_painted_is_remembered_whatever_others_are_sure_of(
    predictor: Any, compatible: bool, monkeypatch: Any
) -> None:
    predictor.options = replace(
        predictor.options, non_overlap_masks_for_mem_enc=True, reference_compatible=compatible
    )
    state = predictor.init_state(toy_clip(6))
    click(predictor, state)
    track(predictor, state, num_frames=4)
    state.tracks[1].tracked[3].mask_logits.mul_(1000)
    half = np.zeros(SIZE, bool)
    half[:, : SIZE[1] // 2] = True
    predictor.add_new_mask(state, 3, 2, half)
    seen = []
    encode = predictor.encode_memory

    def note(features: Any, logits: torch.Tensor, *rest: Any, **how: Any) -> torch.Tensor:
        seen.append(float((logits > 0).float().mean()))
        return encode(features, logits, *rest, **how)

    monkeypatch.setattr(predictor, "encode_memory", note)
    track(predictor, state, start_frame_idx=3, num_frames=1)
    assert seen[0] == pytest.approx(0.5, abs=0.05)


def test_overlap_in_the_memory_is_a_rule_across_objects(predictor: Any) -> None:
    shown = []
    for flag in (False, True):
        predictor.options = replace(predictor.options, non_overlap_masks_for_mem_enc=flag)
        state = predictor.init_state(toy_clip())
        click(predictor, state), box(predictor, state)
        shown.append(track(predictor, state)[6])
    assert not torch.equal(*shown)


@pytest.mark.parametrize("compatible", [True, False])
def test_tracked_objects_do_not_overlap_in_the_memory(predictor: Any, compatible: bool) -> None:
    shown = []
    for flag in (False, True):
        predictor.options = replace(predictor.options, reference_compatible=compatible)
        state = predictor.init_state(toy_clip())
        click(predictor, state, obj_id=1), click(predictor, state, obj_id=2)  # of one disc
        predictor.propagate_in_video_preflight(state)
        predictor.options = replace(predictor.options, non_overlap_masks_for_mem_enc=flag)
        shown.append(track(predictor, state))
        predictor.options = replace(predictor.options, non_overlap_masks_for_mem_enc=False)
    assert torch.equal(shown[0][1], shown[1][1])
    assert not torch.equal(shown[0][2], shown[1][2])


def test_a_correction_may_count_as_a_first_prompt(predictor: Any, state: Any) -> None:
    predictor.options = replace(predictor.options, add_all_frames_to_correct_as_cond=True)
    click(predictor, state)
    before = track(predictor, state)
    predictor.add_new_points_or_box(state, 8, 1, points=[[60, 40]], labels=[0])
    after = track(predictor, state, start_frame_idx=0)
    assert sorted(state.tracks[1].anchors) == [0, 8]
    assert not torch.equal(after[3], before[3])  # recalled from any distance, so before it, too


def test_memories_around_a_prompt_are_dropped_when_asked(predictor: Any, state: Any) -> None:
    click(predictor, state)
    track(predictor, state)
    predictor.options = replace(predictor.options, clear_non_cond_mem_around_input=True)
    predictor.add_new_points_or_box(state, 3, 1, points=[[60, 40]], labels=[0])
    predictor.propagate_in_video_preflight(state)
    assert sorted(state.tracks[1].tracked) == [3, 11]


def test_an_exact_painted_mask_reaches_the_memory_unshrunk() -> None:
    thin = np.zeros(SIZE, bool)
    thin[:, 40:42] = True
    memories = {}
    for compatible in (True, False):
        predictor = toy_predictor(reference_compatible=compatible)
        state = predictor.init_state(toy_clip())
        predictor.add_new_mask(state, 0, 1, thin)
        assert len(track(predictor, state)) == 12
        memories[compatible] = state.tracks[1].anchors[0].memory
    assert not torch.equal(memories[True], memories[False])


def test_memories_may_be_kept_in_full_precision(predictor: Any, state: Any) -> None:
    predictor.options = replace(predictor.options, memory_dtype="float32")
    click(predictor, state)
    track(predictor, state, num_frames=3)
    assert state.tracks[1].anchors[0].memory.dtype == torch.float32


# ------------------------------------------------------- frames and closing


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """The toy clip as a video file."""
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, fps=10, size=SIZE) as writer:
        for frame in toy_clip():
            writer.write(frame)
    return path


def is_open(path: Path) -> bool:
    """Whether this process holds a file open."""
    held = Path("/proc/self/fd")
    if not held.exists():
        pytest.skip("only Linux lists the open files of a process")
    return path in [link.readlink() for link in held.iterdir() if link.is_symlink()]


@pytest.mark.parametrize("ahead", [False, True])
def test_a_closed_session_lets_go_of_what_it_opened(
    predictor: Any, film: Path, ahead: bool
) -> None:
    threads = set(Path("/proc/self/task").glob("*"))  # those of libraries, too
    state = predictor.init_state(film, async_loading_frames=ahead)
    shown = click(predictor, state).masks
    box(predictor, state)
    assert is_open(film)
    features = weakref.ref(state.features.get(0, predictor.num_loads, pytest.fail).embedding)
    state.close()
    state.close()
    gc.collect()
    assert not is_open(film)
    assert not set(Path("/proc/self/task").glob("*")) - threads  # an older one may have ended
    assert features() is None
    assert torch.equal(predictor.remove_object(state, 2)[1][0][1], shown)  # the masks stay
    with pytest.raises(RuntimeError, match="the frames are closed"):
        click(predictor, state)
    with pytest.raises(RuntimeError, match=r"clip\.mp4' is closed"):
        state.frames[0]


def test_a_refused_session_lets_go_of_what_it_opened(
    predictor: Any, film: Path, tmp_path: Path
) -> None:
    threads = threading.enumerate()
    (tmp_path / "junk").write_bytes(b"not a session at all")
    with pytest.raises(ValueError, match="is not a saved session") as refused:
        predictor.load_state(tmp_path / "junk", film, async_loading_frames=True)
    assert refused.tb is not None  # it still holds all locals
    assert not is_open(film)
    assert threading.enumerate() == threads


def test_a_video_with_a_broken_first_frame_is_let_go_of(predictor: Any, tmp_path: Path) -> None:
    threads = threading.enumerate()
    first = tmp_path / "0.png"
    Image.fromarray(toy_clip(1)[0]).save(first)
    first.write_bytes(first.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"0\.png' cannot be decoded") as refused:
        predictor.init_state(tmp_path, async_loading_frames=True)
    assert refused.tb is not None
    assert threading.enumerate() == threads


def test_a_closed_session_leaves_a_reader_of_the_user_open(predictor: Any, film: Path) -> None:
    with open_frames(film) as frames:
        state = predictor.init_state(frames)
        click(predictor, state)
        state.close()
        assert frames[7].shape == (*SIZE, 3)
    assert not is_open(film)


# --------------------------------------------------------- save and resume


def test_a_saved_session_goes_on_to_the_same_masks(predictor: Any, tmp_path: Path) -> None:
    state = predictor.init_state(toy_clip())
    click(predictor, state), box(predictor, state, obj_id="box")
    track(predictor, state, num_frames=5)
    predictor.add_new_points_or_box(state, 3, 1, points=[[60, 40]], labels=[0])  # pending
    predictor.add_new_mask(state, 6, "box", disc_mask(6))
    path = tmp_path / "session.safetensors"
    predictor.save_state(state, path)
    assert [p.name for p in tmp_path.iterdir()] == ["session.safetensors"]
    again = predictor.load_state(path, toy_clip())
    assert again.obj_ids == [1, "box"]
    want = track(predictor, state, start_frame_idx=2)
    got = track(predictor, again, start_frame_idx=2)
    assert list(got) == list(want)
    assert all(torch.equal(got[f], want[f]) for f in want)


def test_a_session_of_another_video_is_refused(predictor: Any, state: Any, tmp_path: Path) -> None:
    click(predictor, state)
    predictor.save_state(state, tmp_path / "s")
    with pytest.raises(ValueError, match="was saved with num_frames 12, here it is 9"):
        predictor.load_state(tmp_path / "s", toy_clip(9))
    (tmp_path / "junk").write_bytes(b"not a session at all")
    with pytest.raises(ValueError, match="is not a saved session"):
        predictor.load_state(tmp_path / "junk", toy_clip())


# --------------------------------------------------------------- object ids


@pytest.mark.parametrize(
    "number", [np.uint8(3), np.int64(3), np.array(3), torch.tensor(3), torch.tensor([3])]
)
def test_whole_numbers_of_any_library_name_one_object(
    predictor: Any, state: Any, tmp_path: Path, number: Any
) -> None:
    predictor.add_new_mask(state, 0, 3, disc_mask())
    click(predictor, state, frame=1, obj_id=number)
    assert [(type(i), i) for i in state.obj_ids] == [(int, 3)]
    predictor.clear_all_prompts_in_frame(state, 0, number)
    assert list(state.tracks[3].prompts) == [1]
    predictor.remove_object(state, number, strict=True)
    assert state.obj_ids == []
    click(predictor, state, obj_id=number)
    predictor.save_state(state, tmp_path / "session")
    assert predictor.load_state(tmp_path / "session", toy_clip()).obj_ids == [3]


# --------------------------------------------------------------- bad input


BAD_PROMPTS = {
    "points must be": {"points": [[1, 2, 3]], "labels": [1]},
    "labels must be": {"points": [[1, 2], [3, 4]], "labels": [1]},
    "labels must be among": {"points": [[1, 2]], "labels": [7]},
    "labels is missing": {"points": [[1, 2]]},
    "points must be finite": {"points": [[np.nan, 2]], "labels": [1]},
    "points must lie inside the picture": {"points": [[97, 2]], "labels": [1]},
    "box must be x0, y0, x1, y1": {"box": [50, 8, 20, 34]},
    "box must lie inside": {"box": [-5, 8, 20, 34]},
    r"box must be \[4\]": {"box": [1, 2, 3]},
    "box must be one box": {"box": [[1, 2, 3, 4], [1, 2, 3, 4]]},
    "several rows of points": {"points": [[[1, 2]], [[3, 4]]], "labels": [[1], [1]]},
    "points with labels, or box": {},
    "points must hold a click where there is no box": {"points": np.zeros((0, 2)), "labels": []},
}


@pytest.mark.parametrize("message", BAD_PROMPTS)
def test_a_bad_prompt_is_named_and_changes_nothing(
    predictor: Any, state: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.add_new_points_or_box(state, 0, 1, **BAD_PROMPTS[message])
    assert state.obj_ids == []


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((10, 10), bool), r"mask must be \[72, 96\]"),
        (np.full(SIZE, 0.5), "mask must be bool"),
        (np.full(SIZE, np.nan), "mask must be bool"),
        (np.full(SIZE, 7, np.int64), "mask must be bool"),
        (np.ones((1, *SIZE), bool), r"mask must be \[72, 96\]"),
    ],
)
def test_a_bad_mask_is_named_and_changes_nothing(
    predictor: Any, state: Any, mask: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.add_new_mask(state, 0, 1, mask)
    assert state.obj_ids == []


@pytest.mark.parametrize("frame", [-1, 12, 10**9])
def test_a_frame_out_of_range_is_named_and_changes_nothing(
    predictor: Any, state: Any, frame: int
) -> None:
    for call in (
        lambda: click_at(predictor, state, frame),
        lambda: predictor.add_new_mask(state, frame, 1, disc_mask()),
    ):
        with pytest.raises(ValueError, match=r"frame_idx must be in 0\.\.11"):
            call()
    assert state.obj_ids == []
    click(predictor, state)
    with pytest.raises(ValueError, match=r"start_frame_idx must be in 0\.\.11"):
        predictor.propagate_in_video(state, start_frame_idx=frame)


def click_at(predictor: Any, state: Any, frame: int) -> Any:
    return predictor.add_new_points_or_box(state, frame, 1, points=[[5, 5]], labels=[1])


def test_tracking_without_prompts_says_so_at_the_call(predictor: Any, state: Any) -> None:
    with pytest.raises(ValueError, match="no object to track"):
        predictor.propagate_in_video(state)
    click(predictor, state)
    predictor.clear_all_prompts_in_frame(state, 0, 1)
    with pytest.raises(ValueError, match="object 1 has no prompt left"):
        predictor.propagate_in_video(state)


def test_unknown_objects_and_wrong_types_are_named(predictor: Any, state: Any) -> None:
    with pytest.raises(ValueError, match="obj_id 5 is not an object"):
        predictor.clear_all_prompts_in_frame(state, 0, 5)
    with pytest.raises(TypeError, match="frame_idx must be an integer"):
        click_at(predictor, state, 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="obj_id must be hashable, got list"):
        predictor.add_new_points_or_box(state, 0, [], points=[[1, 1]], labels=[1])
    with pytest.raises(TypeError, match="obj_id must be one integer if it is a tensor"):
        predictor.add_new_points_or_box(state, 0, torch.ones(2), points=[[1, 1]], labels=[1])
    click(predictor, state)
    with pytest.raises(ValueError, match="max_frame_num_to_track or num_frames, not both"):
        predictor.propagate_in_video(state, max_frame_num_to_track=3, num_frames=3)


def test_a_session_reads_like_the_published_dictionary(predictor: Any, state: Any) -> None:
    click(predictor, state, obj_id="cat")
    assert state["num_frames"] == 12
    assert (state["video_height"], state["video_width"]) == SIZE
    assert state["obj_ids"] == ["cat"]
    assert state["obj_id_to_idx"] == {"cat": 0}
    assert "video_height" in state
    with pytest.raises(KeyError, match="is not a key of a session"):
        state["images"]
