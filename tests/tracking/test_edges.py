"""Masks of tracked frames that follow the edges of the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2_hq.build_sam import load
from sam2_hq.evaluation.metrics import jaccard
from sam2_hq.structures import TrackedFrame
from sam2_hq.tracking.state import VideoState
from tests.toy import disc_centre, disc_mask, toy_clip, toy_predictor


def track(edge_reach: float | None, **flags: object) -> tuple[list[TrackedFrame], VideoState]:
    model = toy_predictor(edge_reach=edge_reach, **flags)
    state = model.init_state(toy_clip(4))
    model.add_new_mask(state, 0, 1, disc_mask())
    model.add_new_points_or_box(state, 1, 2, [disc_centre(1)], [1])
    return list(model.propagate_in_video(state)), state


def test_tracked_masks_follow_edges_and_prompted_ones_stay_as_given() -> None:
    (plain, _), (fine, _) = track(None), track(0.25)
    assert torch.equal(plain[0].masks[0], fine[0].masks[0])
    assert torch.equal(plain[1].masks[1], fine[1].masks[1])
    assert not torch.equal(plain[1].masks[0], fine[1].masks[0])
    assert not torch.equal(plain[3].masks, fine[3].masks)


def test_what_is_remembered_and_how_sure_it_is_stay_the_same() -> None:
    (plain, before), (fine, after) = track(None), track(0.25)
    for one, other in zip(plain, fine, strict=True):
        torch.testing.assert_close(one.scores, other.scores, equal_nan=True)
    for object_id in before.obj_ids:
        one, other = before.tracks[object_id].tracked[3], after.tracks[object_id].tracked[3]
        assert torch.equal(one.mask_logits, other.mask_logits)
        assert torch.equal(one.memory, other.memory)


def test_the_options_of_a_predictor_switch_it() -> None:
    model = toy_predictor(edge_reach=0.25)
    model.options = replace(model.options, edge_reach=None)
    state = model.init_state(toy_clip(4))
    model.add_new_mask(state, 0, 1, disc_mask())
    (plain, _) = track(None)
    masks = [frame.masks for frame in model.propagate_in_video(state)]
    assert torch.equal(masks[3][0], plain[3].masks[0])


def test_objects_in_one_pass_are_as_one_by_one() -> None:
    (alone, _), (together, _) = track(0.25, object_batch=1), track(0.25, object_batch=8)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.masks, other.masks, rtol=0, atol=1e-3)


@pytest.mark.parametrize("num_frames", [4, None])
def test_a_stream_gives_the_masks_of_a_file_or_an_iterator(num_frames: int | None) -> None:
    clip = toy_clip(4)
    model = toy_predictor(edge_reach=0.25)
    state = model.init_state(clip if num_frames else iter(clip))
    model.add_new_mask(state, 0, 1, disc_mask())
    wanted = model.propagate_in_video(state)
    stream = model.open_stream(num_frames=num_frames)
    for i, frame in enumerate(clip):
        live = stream.step(frame)
        if i == 0:
            live = stream.add_new_mask(1, disc_mask())
        torch.testing.assert_close(live.masks, next(wanted).masks, rtol=0, atol=1e-4)


def test_a_frame_that_has_passed_is_shown_as_decoded() -> None:
    """A stream has let its picture go; a correction there shows the other objects all the same."""
    answers = {}
    for reach in (None, 0.25):
        model = toy_predictor(edge_reach=reach)
        stream = model.open_stream()
        for frame in toy_clip(5):
            stream.step(frame)
            if stream.frame_idx == 0:
                stream.add_new_mask(1, disc_mask())
        answers[reach] = model.add_new_points_or_box(stream.state, 2, 2, [disc_centre(2)], [1])
    assert torch.equal(answers[None].masks, answers[0.25].masks)


def test_a_closed_session_still_shows_its_masks() -> None:
    shown = {}
    for reach in (None, 0.25):
        model = toy_predictor(edge_reach=reach)
        state = model.init_state(toy_clip(4))
        model.add_new_mask(state, 0, 1, disc_mask())
        model.add_new_mask(state, 2, 2, disc_mask(2))
        list(model.propagate_in_video(state))
        state.close()
        _, shown[reach] = model.remove_object(state, 2)
    assert shown[0.25][0][0] == 2
    assert torch.equal(shown[None][0][1], shown[0.25][0][1])


def test_a_frame_of_a_file_that_cannot_be_read_any_more_is_told() -> None:
    class Broken:
        def get(self, index: int) -> np.ndarray:
            raise ValueError(f"frame {index} is broken")

        def close(self) -> None: ...

    model = toy_predictor(edge_reach=0.25)
    state = model.init_state(toy_clip(4))
    model.add_new_mask(state, 0, 1, disc_mask())
    model.add_new_mask(state, 2, 2, disc_mask(2))
    list(model.propagate_in_video(state))
    state.images = Broken()
    with pytest.raises(ValueError, match="frame 2 is broken"):
        model.remove_object(state, 2)


def test_published_models_return_masks_as_decoded() -> None:
    assert toy_predictor().options.edge_reach is None


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan")])
def test_a_reach_that_is_no_share_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"model.edge_reach must be (between 0 and 1|a number)"):
        toy_predictor(edge_reach=wrong)


def test_the_bundled_model_follows_a_star_along_its_points() -> None:
    """A starfish of 200 pixels that turns on sand, in a picture of 480 x 640."""
    rng = np.random.default_rng(2)
    sand = np.kron(rng.integers(-12, 12, (120, 160, 3)), np.ones((4, 4, 1), np.int64))
    y, x = np.mgrid[:480, :640]
    clip, truths = [], []
    for i in range(6):
        angle = np.arctan2(y - 230, x - 300 - 4 * i) + 0.04 * i
        star = np.hypot(y - 230, x - 300 - 4 * i) < 75 + 35 * np.cos(5 * angle)
        colours = np.where(star[..., None], (190, 90, 60), (170, 160, 130))
        clip.append((colours + sand).astype(np.uint8))
        truths.append(star)
    predictor = load()
    ious = {}
    for reach in (None, predictor.options.edge_reach):
        predictor.options = replace(predictor.options, edge_reach=reach)
        state = predictor.init_state(np.stack(clip))
        predictor.add_new_mask(state, 0, 1, truths[0])
        masks = [frame.masks[0, 0] > 0 for frame in predictor.propagate_in_video(state)][1:]
        ious[reach] = np.mean([jaccard(m, t) for m, t in zip(masks, truths[1:], strict=True)])
    assert ious[0.25] > ious[None] + 0.03
