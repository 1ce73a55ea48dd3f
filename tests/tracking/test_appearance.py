"""Tracked masks that heed what an object looked like where the user showed it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam2_hq.build_sam import load
from sam2_hq.compose import compose_tree
from sam2_hq.config import parse_model
from sam2_hq.evaluation.metrics import jaccard
from sam2_hq.ops.appearance import cells_of, learn, surroundings
from sam2_hq.ops.masks import fill_holes
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import TrackedFrame
from sam2_hq.tracking.state import VideoState
from sam2_hq.transforms import frame_pixels
from tests.toy import disc_centre, disc_mask, toy_clip, toy_predictor

ROOT = Path(__file__).parents[2]


def shown(model: SAM2VideoPredictor) -> VideoState:
    """A session with a painted object and a clicked one."""
    state = model.init_state(toy_clip(4))
    model.add_new_mask(state, 0, 1, disc_mask())
    model.add_new_points_or_box(state, 1, 2, [disc_centre(1)], [1])
    return state


def track(weight: float, **flags: object) -> tuple[list[TrackedFrame], VideoState]:
    model = toy_predictor(appearance_weight=weight, **flags)
    state = shown(model)
    return list(model.propagate_in_video(state)), state


def test_tracked_masks_heed_it_and_prompted_ones_stay_as_given() -> None:
    (plain, _), (judged, _) = track(0.0), track(2.0)
    assert torch.equal(plain[0].masks[0], judged[0].masks[0])
    assert torch.equal(plain[1].masks[1], judged[1].masks[1])
    assert not torch.equal(plain[1].masks[0], judged[1].masks[0])
    assert not torch.equal(plain[3].masks, judged[3].masks)


def test_what_is_remembered_and_how_sure_it_is_stay_the_same() -> None:
    (plain, before), (judged, after) = track(0.0), track(2.0)
    for one, other in zip(plain, judged, strict=True):
        torch.testing.assert_close(one.scores, other.scores, equal_nan=True)
    for object_id in before.obj_ids:
        one, other = before.tracks[object_id].tracked[3], after.tracks[object_id].tracked[3]
        assert torch.equal(one.memory, other.memory)
        assert torch.equal(one.pointer, other.pointer)


def test_the_options_of_a_predictor_switch_it() -> None:
    model = toy_predictor(appearance_weight=2.0)
    model.options = replace(model.options, appearance_weight=0.0)
    masks = [frame.masks for frame in model.propagate_in_video(shown(model))]
    (plain, _) = track(0.0)
    assert torch.equal(masks[3], plain[3].masks)


def test_objects_in_one_pass_are_as_one_by_one() -> None:
    (alone, _), (together, _) = track(2.0, object_batch=1), track(2.0, object_batch=8)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.masks, other.masks, rtol=0, atol=1e-3)


def test_autocast_does_not_round_what_is_learnt() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        rounded, state = track(2.0)
    exact, wanted = track(2.0)
    for object_id in state.obj_ids:
        looks, plain = state.tracks[object_id].looks(), wanted.tracks[object_id].looks()
        assert looks.feature_weights.dtype == torch.float32
        torch.testing.assert_close(looks.colours, plain.colours, rtol=0, atol=0.02)
    for one, other in zip(rounded, exact, strict=True):
        assert jaccard(one.masks[0, 0] > 0, other.masks[0, 0] > 0) > 0.7


def test_a_prompt_that_is_taken_back_is_no_example_any_more() -> None:
    model = toy_predictor(appearance_weight=2.0)
    state, fresh = shown(model), shown(model)
    model.add_new_mask(state, 2, 1, disc_mask(2))
    list(model.propagate_in_video(state))
    one, both = fresh.tracks[1].looks(), state.tracks[1].looks()
    assert not torch.equal(one.colours, both.colours)
    model.clear_all_prompts_in_frame(state, 2, 1)
    assert torch.equal(one.colours, state.tracks[1].looks().colours)
    for one, other in zip(
        model.propagate_in_video(state), model.propagate_in_video(fresh), strict=True
    ):
        torch.testing.assert_close(one.masks, other.masks, rtol=0, atol=1e-4)


def test_an_object_shown_twice_looks_like_the_mean_of_both() -> None:
    model = toy_predictor(appearance_weight=2.0)
    looks = []
    for frames in ([0], [2], [0, 2]):
        state = model.init_state(toy_clip(4))
        for frame in frames:
            model.add_new_mask(state, frame, 1, disc_mask(frame))
        looks.append(state.tracks[1].looks())
    for first, second, both in zip(*looks, strict=True):
        torch.testing.assert_close(both, (first + second) / 2)


def test_a_frame_that_shows_no_object_teaches_nothing() -> None:
    model = toy_predictor(appearance_weight=2.0)
    state = model.init_state(toy_clip(4))
    model.add_new_mask(state, 0, 1, np.zeros_like(disc_mask()))
    assert state.tracks[1].looks() is None
    assert len(list(model.propagate_in_video(state))) == 4


@pytest.mark.parametrize("num_frames", [4, None])
def test_a_stream_gives_the_masks_of_a_file_or_an_iterator(num_frames: int | None) -> None:
    clip = toy_clip(4)
    model = toy_predictor(appearance_weight=2.0)
    state = model.init_state(clip if num_frames else iter(clip))
    model.add_new_mask(state, 0, 1, disc_mask())
    wanted = model.propagate_in_video(state)
    stream = model.open_stream(num_frames=num_frames)
    for i, frame in enumerate(clip):
        live = stream.step(frame)
        if i == 0:
            live = stream.add_new_mask(1, disc_mask())
        torch.testing.assert_close(live.masks, next(wanted).masks, rtol=0, atol=1e-4)


def test_a_correction_of_a_frame_that_has_passed_keeps_what_it_looked_like() -> None:
    """Its features are still there, its picture is not."""
    model = toy_predictor(appearance_weight=2.0)
    stream = model.open_stream()
    for frame in toy_clip(4):
        stream.step(frame)
        if stream.frame_idx == 1:
            stream.add_new_mask(1, disc_mask(1))
    before = stream.state.tracks[1].looks()
    model.add_new_points_or_box(stream.state, 1, 1, [disc_centre(1)], [1])
    assert stream.state.tracks[1].pending
    assert torch.equal(before.colours, stream.state.tracks[1].looks().colours)


def test_holes_stay_filled_and_pixels_have_one_owner() -> None:
    small = {"fill_hole_area": 0}, {"fill_hole_area": 12}
    (open_, _), (filled, state) = (track(2.0, **flags) for flags in small)
    assert not torch.equal(open_[3].masks, filled[3].masks)
    for one in state.tracks.values():
        for record in one.tracked.values():
            assert torch.equal(fill_holes(record.mask_logits, 12), record.mask_logits)
    apart, _ = track(2.0, non_overlap_masks=True)
    for frame in apart:
        assert ((frame.masks > 0).sum(dim=0) <= 1).all()


def test_a_line_thinner_than_the_cells_of_a_mask_is_learnt() -> None:
    model = toy_predictor(appearance_weight=2.0)
    state = model.init_state(toy_clip(2))
    line = np.eye(*disc_mask().shape, dtype=bool)
    model.add_new_mask(state, 0, 1, line)
    looks = state.tracks[1].looks()
    assert looks is not None
    side = 4 * model.grid_size
    features = state.features.get(0, model.num_loads, pytest.fail)
    cells = cells_of(frame_pixels(state.images.get(0), state.device), features, (side, side))
    logits = state.tracks[1].pending[0].record.mask_logits[0]
    share = torch.nn.functional.interpolate(
        torch.from_numpy(line)[None, None].float(), (side, side), mode="area"
    )[0, 0]
    wanted = learn(cells, share, surroundings(logits > 0)[0])
    torch.testing.assert_close(looks.colours, wanted.colours, rtol=0, atol=0.02)
    assert share.max() < 0.5


def test_what_is_prompted_again_without_it_or_painted_unseen_is_forgotten() -> None:
    model = toy_predictor(appearance_weight=2.0)
    state = shown(model)
    model.options = replace(model.options, appearance_weight=0.0)
    model.add_new_mask(state, 0, 1, disc_mask())
    assert state.tracks[1].looks() is None
    model.options = replace(model.options, appearance_weight=2.0)
    stream = model.open_stream()
    for frame in toy_clip(4):
        stream.step(frame)
        if stream.frame_idx == 1:
            stream.add_new_mask(1, disc_mask(1))
    model.add_new_mask(stream.state, 1, 1, disc_mask(3))
    assert stream.state.tracks[1].looks() is None


def test_what_was_learnt_is_kept_where_masks_are() -> None:
    record = next(
        iter(shown(toy_predictor(appearance_weight=2.0)).tracks[1].pending.values())
    ).record
    moved = record.to(torch.device("meta"))
    assert record.looks is not None
    assert {moved.mask_logits.device.type, *(part.device.type for part in moved.looks)} == {"meta"}
    assert moved.pointer.device.type == moved.scores.device.type == "cpu"


def test_a_session_that_was_saved_goes_on_to_the_same_masks(tmp_path: Path) -> None:
    clip = toy_clip(6)
    model = toy_predictor(appearance_weight=2.0)
    state = model.init_state(clip)
    model.add_new_mask(state, 0, 1, disc_mask())
    list(model.propagate_in_video(state, num_frames=3))
    model.save_state(state, tmp_path / "session.safetensors")
    again = model.load_state(tmp_path / "session.safetensors", clip)
    rest = list(model.propagate_in_video(state, start_frame_idx=3))
    resumed = list(model.propagate_in_video(again, start_frame_idx=3))
    for one, other in zip(rest, resumed, strict=True):
        torch.testing.assert_close(one.masks, other.masks, rtol=0, atol=1e-4)


def test_published_models_judge_by_memory_alone() -> None:
    for config, weight in (("sam2.1_hq_hiera_t", 0.0), ("sam2.1_hq_hiera_n", 2.0)):
        options = parse_model(compose_tree(f"sam2.1/{config}.yaml")["model"]).options
        assert options.appearance_weight == weight


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="appearance_weight must be"):
        toy_predictor(appearance_weight=wrong)


def test_the_bundled_model_keeps_the_thin_frame_of_a_bicycle() -> None:
    clip = ROOT / "examples/clip"
    pictures = [np.asarray(Image.open(clip / f"JPEGImages/meadow/{i:05}.jpg")) for i in range(7)]
    owners = [np.asarray(Image.open(clip / f"Annotations/meadow/{i:05}.png")) for i in range(7)]
    truths = [owner == 2 for owner in owners]
    predictor = load()
    ious = {}
    for weight in (0.0, predictor.options.appearance_weight):
        predictor.options = replace(predictor.options, appearance_weight=weight)
        state = predictor.init_state(np.stack(pictures))
        predictor.add_new_mask(state, 0, 2, truths[0])
        masks = [frame.masks[0, 0] > 0 for frame in predictor.propagate_in_video(state)][1:]
        ious[weight] = np.mean([jaccard(m, t) for m, t in zip(masks, truths[1:], strict=True)])
    assert ious[2.0] > ious[0.0] + 0.1
