from __future__ import annotations

import av
import numpy as np
import pytest

from sam2_hq.data.frames import open_frames
from sam2_hq.data.video import VideoWriter

from .conftest import moving_square


@pytest.mark.parametrize(
    ("size", "written"), [((48, 64), (48, 64)), ((47, 63), (48, 64)), ((1, 1), (2, 2))]
)
def test_what_is_written_can_be_read_back(tmp_path, size, written):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 29.97, size) as writer:
        for number in range(10):
            writer.write(moving_square(number, *size))
        assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    with open_frames(path) as frames:
        assert len(frames) == 10
        assert frames.size == written
        assert frames.fps == pytest.approx(29.97, abs=0.001)
        error = frames[9][: size[0], : size[1]] - moving_square(9, *size).astype(int)
    assert np.abs(error).mean() < 10  # lossy, and half the chroma


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 200, 0), (20, 30, 240), (128, 128, 128)])
def test_colours_come_back(tmp_path, color):
    with VideoWriter(tmp_path / "out.mp4", 25, (32, 32)) as writer:
        writer.write(np.full((32, 32, 3), color, np.uint8))
    with open_frames(tmp_path / "out.mp4") as frames:
        assert np.abs(frames[0].astype(int) - color).max() <= 6


def test_browsers_can_play_it(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 25, (32, 32)) as writer:
        writer.write(moving_square(0, 32, 32))
    content = (tmp_path / "out.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_an_error_leaves_nothing_and_the_old_file_whole(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ValueError), VideoWriter(path, 25, (32, 32)) as writer:  # noqa: PT011, PT012
        writer.write(moving_square(0, 32, 32))
        raise ValueError
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    assert path.read_bytes() == b"old"


def test_a_video_without_frames_is_not_written(tmp_path):
    with (
        pytest.raises(ValueError, match="no frame was written"),
        VideoWriter(tmp_path / "out.mp4", 25, (32, 32)),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_wrong_frame_is_refused_and_the_file_goes_on(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 25, (32, 32)) as writer:
        writer.write(moving_square(0, 32, 32))
        with pytest.raises(ValueError, match=r"frame must be uint8 \[32, 32, 3\]"):
            writer.write(moving_square(1, 32, 34))
        with pytest.raises(ValueError, match="frame must be uint8"):
            writer.write(np.zeros((32, 32, 3)))
    with open_frames(tmp_path / "out.mp4") as frames:
        assert len(frames) == 1
    with pytest.raises(ValueError, match="closed"):
        writer.write(moving_square(0, 32, 32))


@pytest.mark.parametrize(
    ("name", "fps", "size", "message"),
    [
        ("out.avi", 25, (32, 32), "mp4"),
        ("out.mp4", 0, (32, 32), "fps"),
        ("out.mp4", float("nan"), (32, 32), "fps"),
        ("out.mp4", 25, (0, 32), "size"),
        ("missing/out.mp4", 25, (32, 32), "no folder"),
    ],
)
def test_bad_arguments_are_refused_by_name(tmp_path, name, fps, size, message):
    with pytest.raises(ValueError, match=message):
        VideoWriter(tmp_path / name, fps, size)
    assert not list(tmp_path.iterdir())
