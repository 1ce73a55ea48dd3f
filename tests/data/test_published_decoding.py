"""The published way to read a video file, with decord itself as the oracle."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from sam2_hq.data.frames import open_frames, resize_for_video_model
from tests.toy import toy_predictor

decord = pytest.importorskip("decord")

OPEN_GROUPS = {"bf": "3", "g": "6", "x264-params": "open-gop=1:scenecut=0"}
SIDE = 64


def in_order(path, **size):
    return [frame.asnumpy() for frame in decord.VideoReader(str(path), **size)]


@pytest.fixture
def video(make_video):
    return make_video("a.mkv", count=20, options=OPEN_GROUPS)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_any_order_gives_what_decord_gives_in_order(video, as_bytes):
    native, square = in_order(video), in_order(video, width=SIDE, height=SIDE)
    order = list(range(20)) * 2
    random.Random(0).shuffle(order)
    with open_frames(video.read_bytes() if as_bytes else video, decoder="decord") as frames:
        assert (len(frames), frames.size, frames.fps) == (20, (48, 64), 25)
        for number in order:
            np.testing.assert_array_equal(frames[number], native[number])
            np.testing.assert_array_equal(frames.square(number, SIDE), square[number])


def test_the_square_is_the_decoders_and_by_default_pillows(video):
    with open_frames(video) as exact, open_frames(video, decoder="decord") as published:
        np.testing.assert_array_equal(exact[3], published[3])
        ours, theirs = exact.square(3, SIDE), published.square(3, SIDE)
        np.testing.assert_array_equal(ours, resize_for_video_model(exact[3], SIDE))
    assert ours.shape == theirs.shape == (SIDE, SIDE, 3)
    difference = np.abs(ours.astype(int) - theirs)
    assert 0 < difference.mean() < 4  # two bicubic scalers


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs a list of open files")
def test_a_closed_video_is_let_go_of(video):
    frames = open_frames(video, decoder="decord")
    frames.square(0, SIDE)
    frames.close()
    held = [os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.exists()]
    assert str(video) not in held
    with pytest.raises(RuntimeError, match="is closed"):
        frames.square(0, SIDE)


@pytest.mark.parametrize("index", [-1, 20])
def test_frames_outside_are_an_index_error(video, index):
    with open_frames(video, decoder="decord") as frames:
        with pytest.raises(IndexError, match=f"frame {index} is outside"):
            frames.square(index, SIDE)
        with pytest.raises(IndexError, match=f"frame {index} is outside"):
            frames[index]


def test_a_side_that_decord_cannot_make_is_refused(video):
    with open_frames(video, decoder="decord") as frames:
        with pytest.raises(ValueError, match=r"frame 2 of .*a\.mkv' \(no square of side 96\)"):
            frames.square(2, 96)
        assert frames.square(2, SIDE).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize(
    "content",
    [b"", b"#EXTM3U\nhttp://localhost/a.ts\n", b"\x00" * 4096],
    ids=["empty", "list", "0"],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.mp4' is no video"):
        open_frames(path, decoder="decord")


@pytest.mark.parametrize("name", ["a.h264", "a.ts"])
def test_a_file_that_decord_alone_cannot_read_is_refused_by_name(make_video, name):
    path = make_video(name, count=20)
    with open_frames(path) as frames:
        assert frames.square(19, SIDE).shape == (SIDE, SIDE, 3)
    with pytest.raises(ValueError, match=rf"decord cannot read .*{name}.*; the decoder 'pyav' may"):
        toy_predictor().init_state(open_frames(path, decoder="decord"))


def test_an_unknown_decoder_is_refused(video):
    with pytest.raises(ValueError, match="decoder must be one of pyav, decord, got 'opencv'"):
        open_frames(video, decoder="opencv")


def test_a_session_sees_the_squares_of_its_reader(video):
    predictor = toy_predictor()
    with open_frames(video, decoder="decord") as frames:
        state = predictor.init_state(frames, async_loading_frames=True)
        side = predictor.image_size
        expected = in_order(video, width=side, height=side)
        for number in (0, 5, 2):
            np.testing.assert_array_equal(state.images.get(number), expected[number])
        assert state.video_size == (48, 64)
        state.close()
