"""Frames that arrive one by one: the masks of the whole video, in constant memory."""

from __future__ import annotations

import gc
import resource
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sam2_hq.config import MemoryPolicy
from tests.toy import SIZE, disc_centre, disc_mask, toy_clip, toy_predictor


@pytest.fixture(scope="module")
def predictor() -> Any:
    return toy_predictor()


def click(stream: Any, obj_id: Any = 1, frame: int = 0) -> Any:
    return stream.add_new_points_or_box(obj_id, points=[disc_centre(frame)], labels=[1])


def test_a_stream_gives_the_masks_of_the_whole_video(predictor: Any) -> None:
    clip = toy_clip(24)
    state = predictor.init_state(clip)
    predictor.add_new_points_or_box(state, 0, 1, points=[disc_centre()], labels=[1])
    whole = [r.masks for r in predictor.propagate_in_video(state, num_frames=5)]
    predictor.add_new_mask(state, 5, "late", disc_mask(5))
    whole += [r.masks for r in predictor.propagate_in_video(state, start_frame_idx=5)]

    stream = predictor.open_stream()
    for t, frame in enumerate(clip):
        result = stream.step(frame)
        assert result.frame_idx == t
        if t == 0:
            assert result.obj_ids == []
            result = click(stream)
        if t == 5:
            result = stream.add_new_mask("late", disc_mask(5))
        assert torch.equal(result.masks, whole[t])


def test_a_short_stream_equals_a_short_video_when_its_length_is_known(predictor: Any) -> None:
    clip = toy_clip(6)
    state = predictor.init_state(clip)
    predictor.add_new_points_or_box(state, 0, 1, points=[disc_centre()], labels=[1])
    whole = [r.masks for r in predictor.propagate_in_video(state)]
    stream = predictor.open_stream(num_frames=6)
    got = []
    for t, frame in enumerate(clip):
        result = stream.step(frame)
        got.append((click(stream) if t == 0 else result).masks)
    assert all(torch.equal(a, b) for a, b in zip(got, whole, strict=True))
    with pytest.raises(ValueError, match="num_frames promised 6 frames"):
        stream.step(clip[0])


@pytest.mark.parametrize("newest", [7, 10, 17])
def test_a_correction_in_a_stream_is_the_one_of_the_session(predictor: Any, newest: int) -> None:
    clip = toy_clip(20)
    state = predictor.init_state(clip)
    predictor.add_new_points_or_box(state, 0, 1, points=[disc_centre()], labels=[1])
    for _ in predictor.propagate_in_video(state, num_frames=newest + 1):
        pass
    stream = predictor.open_stream()
    for t in range(newest + 1):
        stream.step(clip[t])
        if t == 0:
            click(stream)
    wrong = {"points": [[70, 50]], "labels": [0]}
    want = predictor.add_new_points_or_box(state, newest, 1, **wrong)
    assert torch.equal(stream.add_new_points_or_box(1, **wrong).masks, want.masks)


def test_memory_stays_constant_over_a_thousand_frames(predictor: Any) -> None:
    clip = toy_clip(8)
    stream = predictor.open_stream()
    stream.step(clip[0])
    click(stream), stream.add_new_mask(2, disc_mask())
    kept, peaks = [], []
    for t in range(1, 1001):
        stream.step(clip[t % 8])
        if t in (100, 1000):
            gc.collect()
            kept.append(count_state(stream.state))
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert kept[0] == kept[1]
    assert peaks[1] - peaks[0] < 8 * 1024  # KiB; the state of this model is 0.2 MiB


def count_state(state: Any) -> list[tuple[int, ...]]:
    return [
        (
            len(track.prompts),
            len(track.anchors),
            len(track.tracked),
            sum(r.memory is not None for r in track.tracked.values()),
            sum(r.mask_logits is not None for r in track.tracked.values()),
            len(track.directions),
        )
        for track in state.tracks.values()
    ] + [(len(state.features._features),)]


def test_a_stream_refuses_frames_of_another_size_and_goes_on(predictor: Any) -> None:
    clip = toy_clip(3)
    stream = predictor.open_stream()
    with pytest.raises(ValueError, match="the stream has no frame yet"):
        click(stream)
    stream.step(clip[0])
    click(stream)
    with pytest.raises(ValueError, match=r"frame must be \(72, 96\)"):
        stream.step(np.zeros((10, 10, 3), np.uint8))
    assert stream.frame_idx == 0
    assert stream.step(clip[1]).masks.shape == (1, 1, *SIZE)


@pytest.mark.parametrize("frame_idx", [0, 9])
def test_a_prompt_on_a_frame_that_a_stream_does_not_have_is_refused(
    predictor: Any, frame_idx: int
) -> None:
    stream = predictor.open_stream()
    for picture in toy_clip(5):
        stream.step(picture)
    where = {"frame_idx": frame_idx, "obj_id": 1}
    with pytest.raises(ValueError, match=rf"the stream has frames 3..4, not {frame_idx}"):
        predictor.add_new_points_or_box(stream.state, **where, points=[[5, 5]], labels=[1])
    assert stream.state.obj_ids == []
    assert click(stream, frame=4).obj_ids == [1]


def turned(picture: np.ndarray) -> Image.Image:
    """As a phone stores it: on its side, with a note that says so."""
    image = Image.fromarray(np.rot90(picture).copy())
    image.getexif()[0x0112] = 6
    return image


PICTURES = {
    "array": lambda picture: picture,
    "channels first": lambda picture: np.moveaxis(picture, 2, 0),
    "tensor": lambda picture: torch.from_numpy(picture).permute(2, 0, 1) / 255,
    "gray": lambda picture: picture[:, :, 0],
    "gray with an axis": lambda picture: torch.from_numpy(picture[:, :, :1]),
    "alpha": lambda picture: np.dstack([picture, picture[:, :, :1]]),
    "16 bits": lambda picture: Image.fromarray(picture[:, :, 0].astype(np.uint16) * 257),
    "turned": turned,
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_stream_takes_and_turns_pictures_as_a_session_does(predictor: Any, kind: str) -> None:
    pictures = [PICTURES[kind](frame) for frame in toy_clip(2)]
    state = predictor.init_state(pictures)
    predictor.add_new_points_or_box(state, 0, 1, points=[disc_centre()], labels=[1])
    whole = [r.masks for r in predictor.propagate_in_video(state)]
    assert whole[0].shape[-2:] == SIZE
    stream = predictor.open_stream(num_frames=2)
    stream.step(pictures[0])
    click(stream)
    assert torch.equal(stream.step(pictures[1]).masks, whole[1])


@pytest.mark.parametrize("shape", [(9,), (9, 9, 2), (0, 9), (9, 0, 3), (2, 9, 9, 3)])
def test_what_is_no_picture_is_refused_by_streams_and_sessions(predictor: Any, shape: Any) -> None:
    nothing = np.zeros(shape, np.uint8)
    for take in (predictor.open_stream().step, lambda p: predictor.init_state([p])):
        with pytest.raises(ValueError, match=r"frame.* must be \[H, W\], .*, not empty, got \["):
            take(nothing)


def test_objects_leave_and_streams_start_anew(predictor: Any) -> None:
    clip = toy_clip(3)
    stream = predictor.open_stream()
    stream.step(clip[0])
    click(stream), click(stream, obj_id="other")
    stream.remove_object(1)
    assert stream.step(clip[1]).obj_ids == ["other"]
    stream.close()
    assert stream.frame_idx == -1
    assert stream.step(clip[0]).obj_ids == []


def test_a_stream_that_recalls_good_frames_alone_gives_the_masks_of_a_session() -> None:
    predictor, clip = toy_predictor(), toy_clip(24)

    def tracked() -> list[Any]:
        state = predictor.init_state(clip)
        predictor.add_new_points_or_box(state, 0, 1, points=[disc_centre()], labels=[1])
        return list(predictor.propagate_in_video(state))

    usual = tracked()
    median = float(np.median([frame.scores[1].iou for frame in usual]))
    predictor.memory_policy = replace(predictor.memory_policy, min_memory_iou=median)
    wary = tracked()
    assert not all(torch.equal(a.masks, b.masks) for a, b in zip(usual, wary, strict=True))
    stream = predictor.open_stream()
    for t, frame in enumerate(clip):
        result = stream.step(frame)
        got = click(stream) if t == 0 else result
        assert torch.equal(got.masks, wary[t].masks)


def test_the_bound_of_a_stream_is_the_users_if_there_is_one() -> None:
    predictor = toy_predictor()
    predictor.memory_policy = MemoryPolicy(max_memory_frames=2)
    stream = predictor.open_stream()
    for t, frame in enumerate(toy_clip(12)):
        stream.step(frame)
        if t == 0:
            click(stream)
    (track,) = stream.state.tracks.values()
    # The two that the newest frame recalled, for its correction, and its own.
    assert sum(r.memory is not None for r in track.tracked.values()) == 3
