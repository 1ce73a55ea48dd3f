"""The protocol on the toy model: what is run how often, and whether the sums are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_hq.benchmark.clock import Clock
from sam2_hq.benchmark.image_speed import time_image
from sam2_hq.benchmark.plan import Plan
from sam2_hq.benchmark.scene import boxes, clip, places
from sam2_hq.benchmark.video_speed import VERBS, HeldVideo, time_video
from sam2_hq.data.frames import open_frames
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from tests.toy import SIDE, SIZE, toy_clip, toy_predictor

PLAN = Plan(objects=2, warm_up=3, repeats=4, passes=2, warm_up_passes=1)


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return toy_predictor()


@pytest.fixture(scope="module")
def video() -> HeldVideo:
    return HeldVideo(open_frames(toy_clip(8)), PLAN.num_frames, SIDE, Clock())


def test_every_stage_is_timed_as_often_as_planned(
    predictor: SAM2VideoPredictor, video: HeldVideo
) -> None:
    speed = time_video(predictor, video, PLAN, Clock())
    counts = {name: timing.count for name, timing in speed.stages.items()}
    assert counts == {"init": 2, "first prompt": 2, "further prompt": 2, "frame": 8}
    assert len(speed.pass_seconds) == PLAN.passes
    assert video.reading.count == PLAN.num_frames


def test_the_encoder_runs_once_a_frame_whatever_the_number_of_objects(
    predictor: SAM2VideoPredictor, video: HeldVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    encode = predictor.encode_image

    def counted(pixels: torch.Tensor) -> object:
        nonlocal calls
        calls += 1
        return encode(pixels)

    monkeypatch.setattr(predictor, "encode_image", counted)
    time_video(predictor, video, PLAN, Clock())
    assert calls == (PLAN.passes + PLAN.warm_up_passes) * PLAN.num_frames


def test_the_published_rate_counts_all_frames_of_a_pass(
    predictor: SAM2VideoPredictor, video: HeldVideo
) -> None:
    speed = time_video(predictor, video, PLAN, Clock())
    assert speed.published_fps == pytest.approx(2 * 7 / sum(speed.pass_seconds))
    assert speed.to_json()["published_fps"] == speed.published_fps
    # Six of the eight frames that count took at least the first quartile.
    assert sum(speed.pass_seconds) > 6 * speed.stages["frame"].first_quartile


def test_the_parts_of_a_frame_add_up_and_the_model_is_left_as_it_was(
    predictor: SAM2VideoPredictor, video: HeldVideo
) -> None:
    before = dict(vars(predictor))
    speed = time_video(predictor, video, PLAN, Clock(cpu_time=True), by_verb=True)
    assert set(speed.verbs) == {*VERBS, "other"}
    assert all(seconds > 0 for seconds in speed.verbs.values())
    # The pass with watched verbs is another one than those of the stage; machines vary.
    assert 0.2 < sum(speed.verbs.values()) / speed.stages["frame"].median < 5
    assert vars(predictor) == before


def test_compiled_verbs_stay_compiled(video: HeldVideo) -> None:
    predictor = toy_predictor()
    compiled = predictor.condition  # kept on the instance, as what torch.compile makes
    predictor.condition = compiled  # type: ignore[method-assign]
    speed = time_video(predictor, video, PLAN, Clock(), by_verb=True)
    assert speed.verbs["condition"] > 0
    assert vars(predictor)["condition"] is compiled
    assert "decode" not in vars(predictor)


def test_a_picture_is_encoded_in_two_of_the_four_stages(
    predictor: SAM2VideoPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    encode = predictor.encode_image
    monkeypatch.setattr(predictor, "encode_image", lambda x: calls.append(x) or encode(x))
    speed = time_image(SAM2ImagePredictor(predictor), toy_clip(1)[0], PLAN, Clock())
    assert len(calls) == 2 * PLAN.num_frames
    assert list(speed.stages) == ["encode", "one prompt", "all prompts", "picture"]
    assert {timing.count for timing in speed.stages.values()} == {PLAN.repeats}
    assert "pass_seconds" not in speed.to_json()


def test_a_video_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match=r"source must have 9 frames, .* got 8"):
        HeldVideo(open_frames(toy_clip(8)), 9, SIDE, Clock())


@pytest.mark.parametrize("name", ["objects", "warm_up", "repeats", "passes", "warm_up_passes"])
def test_a_plan_that_measures_nothing_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        Plan(**{name: -1})


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_every_object_of_the_scene_lies_under_its_click_and_in_its_box(count: int) -> None:
    frame = clip(1, SIZE, count)[0]
    colours = {tuple(frame[int(y), int(x)].tolist()) for x, y in places(count, SIZE)}
    assert len(colours) == count
    for x0, y0, x1, y1 in boxes(count, SIZE):
        assert 0 <= x0 < x1 <= SIZE[1]
        assert 0 <= y0 < y1 <= SIZE[0]


def test_the_scene_moves_and_is_always_the_same() -> None:
    assert (clip(3, SIZE, 2) == clip(3, SIZE, 2)).all()
    assert (np.diff(clip(3, SIZE, 2).astype(int), axis=0) != 0).any(axis=(1, 2, 3)).all()
