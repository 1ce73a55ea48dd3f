"""Masks of tracked frames that follow the edges of the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2_hq.build_sam import load
from sam2_hq.compose import compose_tree
from sam2_hq.config import PredictorOptions, parse_model
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


def leave_a_frame(state: VideoState) -> None:
    """An iterator goes on until its first pictures are gone."""


def close(state: VideoState) -> None:
    state.close()


def lose_the_file(state: VideoState) -> None:
    class Lost:
        def get(self, index: int) -> np.ndarray:
            raise ValueError(f"frame {index}: no such file")

        def close(self) -> None: ...

    state.images = Lost()


@pytest.mark.parametrize("go_on", [leave_a_frame, close, lose_the_file])
def test_where_the_picture_is_gone_masks_are_shown_as_decoded(
    go_on: Callable[[VideoState], None],
) -> None:
    shown = {}
    for reach in (None, 0.25):
        model = toy_predictor(edge_reach=reach)
        clip = toy_clip(20)
        state = model.init_state(iter(clip) if go_on is leave_a_frame else clip)
        model.add_new_mask(state, 0, 1, disc_mask())
        model.add_new_mask(state, 2, 2, disc_mask(2))
        list(model.propagate_in_video(state))
        go_on(state)
        left, shown[reach] = model.remove_object(state, 2)
        assert left == [1]
    (frame, mask), (_, decoded) = shown[0.25][0], shown[None][0]
    assert frame == 2
    assert (mask > 0).any()
    assert torch.equal(mask, decoded)


def test_a_look_at_a_frame_to_come_reads_nothing_from_a_camera() -> None:
    read = []

    def camera() -> Iterator[np.ndarray]:
        for i, frame in enumerate(toy_clip(12)):
            read.append(i)
            yield frame

    model = toy_predictor(edge_reach=0.25)
    state = model.init_state(camera())
    model.add_new_mask(state, 0, 1, disc_mask())
    before = list(read)
    model.clear_all_prompts_in_frame(state, 10, 1)
    assert read == before
    assert len(list(model.propagate_in_video(state))) == 12


def test_absent_objects_are_shown_absent() -> None:
    model = toy_predictor(edge_reach=0.25, object_bias=-8.0)
    state = model.init_state(toy_clip(3))
    model.add_new_mask(state, 0, 1, disc_mask())
    last = list(model.propagate_in_video(state))[-1]
    assert (last.masks == last.masks.max()).all()
    assert last.masks.max() < -100


def test_each_pixel_still_has_one_owner() -> None:
    frames, _ = track(0.25, non_overlap_masks=True)
    owners = sum((frames[3].masks > 0).int())
    assert owners.max() == 1


def test_a_session_that_was_saved_shows_the_same_masks(tmp_path: Path) -> None:
    clip = toy_clip(6)
    model = toy_predictor(edge_reach=0.25)
    state = model.init_state(clip)
    model.add_new_mask(state, 0, 1, disc_mask())
    frames = list(model.propagate_in_video(state, num_frames=3))
    model.save_state(state, tmp_path / "session.safetensors")
    again = model.load_state(tmp_path / "session.safetensors", clip)
    rest = list(model.propagate_in_video(state, start_frame_idx=3))
    resumed = list(model.propagate_in_video(again, start_frame_idx=3))
    assert len(frames) == 3
    for one, other in zip(rest, resumed, strict=True):
        torch.testing.assert_close(one.masks, other.masks, rtol=0, atol=1e-4)


def options_of(config: str) -> PredictorOptions:
    return parse_model(compose_tree(config)["model"]).options


def test_published_models_return_masks_as_decoded() -> None:
    assert options_of("sam2.1/sam2.1_hq_hiera_t.yaml").edge_reach is None
    assert options_of("sam2.1/sam2.1_hq_hiera_n.yaml").edge_reach == 0.25


@pytest.mark.parametrize("wrong", [-0.1, 0.0, 1.5, float("nan")])
def test_a_reach_that_is_no_share_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"edge_reach must be (between|above|a number)"):
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
