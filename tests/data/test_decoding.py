from __future__ import annotations

import random
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from sam2_hq.data.frames import open_frames
from sam2_hq.data.video import VideoWriter

from .conftest import moving_square

OPEN_GROUPS = {"bf": "3", "g": "6", "x264-params": "open-gop=1:scenecut=0"}
IRREGULAR = [0, 10, 50, 51, 250, 260, 300, 700, 701, 702, 900, 950]
VIDEOS = {
    "h264": {"name": "a.mp4"},
    "b_frames": {"name": "a.mp4", "count": 40, "options": {"bf": "3", "g": "12"}},
    "open_groups": {"name": "a.mkv", "count": 40, "options": OPEN_GROUPS},
    "one_frame": {"name": "a.mp4", "count": 1},
    "irregular_mp4": {"name": "a.mp4", "times_ms": IRREGULAR},
    "irregular_mkv": {"name": "a.mkv", "times_ms": IRREGULAR},
    "odd_size": {"name": "a.mkv", "size": (47, 63), "pixels": "yuv444p"},
    "odd_vp9": {"name": "a.webm", "size": (47, 63), "codec": "libvpx-vp9"},
    "ten_bit": {"name": "a.mp4", "pixels": "yuv420p10le"},
    "sixteen_bit": {"name": "a.mkv", "codec": "ffv1", "pixels": "yuv444p16le"},
    "gray": {"name": "a.mkv", "pixels": "gray"},
    "full_range": {"name": "a.mp4", "pixels": "yuvj420p"},
    "mpeg4_b_frames": {"name": "a.avi", "count": 40, "codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg2": {"name": "a.mpg", "count": 40, "codec": "mpeg2video", "options": {"bf": "2"}},
    "transport_stream": {"name": "a.ts", "count": 40},
}


def decode_in_order(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("kind", VIDEOS)
def test_any_order_of_reading_gives_the_frames_of_reading_in_order(make_video, kind, as_bytes):
    path = make_video(**VIDEOS[kind])
    expected = decode_in_order(path)
    count = VIDEOS[kind].get("count", 12)
    with open_frames(path.read_bytes() if as_bytes else path) as frames:
        assert len(frames) == count == len(expected)
        assert frames.size == VIDEOS[kind].get("size", (48, 64))
        order = list(range(count)) * 2
        random.Random(0).shuffle(order)
        for number in order:
            np.testing.assert_array_equal(frames[number], expected[number])


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_threads_that_read_at_once_get_their_own_frames(make_video, decoder):
    pytest.importorskip("decord" if decoder == "decord" else "av")
    side = 64
    with open_frames(make_video(**VIDEOS["b_frames"]), decoder=decoder) as frames:
        expected = [(frames[number], frames.square(number, side)) for number in range(40)]

        def read(seed):
            for number in random.Random(seed).choices(range(40), k=40):
                native, square = expected[number]
                np.testing.assert_array_equal(frames.square(number, side), square)
                np.testing.assert_array_equal(frames[number], native)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, range(4)))


def test_a_closed_video_says_so(make_video):
    with open_frames(make_video(**VIDEOS["h264"])) as frames:
        frames.close()
    with pytest.raises(RuntimeError, match=r"a\.mp4' is closed"):
        frames[0]


@pytest.mark.parametrize("kind", ["h264", "ten_bit", "sixteen_bit", "odd_vp9", "full_range"])
def test_decoded_colours_are_those_encoded(make_video, kind):
    path = make_video(**VIDEOS[kind])
    with open_frames(path) as frames:
        error = np.abs(frames[0].astype(int) - moving_square(0, *frames.size))
    assert error.mean() < 4  # lossy codecs with half the chroma


def test_pixels_are_those_of_decord(make_video):
    decord = pytest.importorskip("decord")
    path = make_video(**VIDEOS["b_frames"])
    reader = decord.VideoReader(str(path), num_threads=1)
    with open_frames(path) as frames:
        assert len(frames) == len(reader)
        for number in range(len(frames)):
            np.testing.assert_array_equal(frames[number], reader[number].asnumpy())


def turn_clockwise(mp4: Path) -> None:
    content = bytearray(mp4.read_bytes())
    matrix = content.index(b"tkhd") + 44  # after the box name, versions, times, ids, volume
    struct.pack_into(">9i", content, matrix, 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    mp4.write_bytes(content)


def test_display_rotation_is_applied(make_video):
    path = make_video("phone.mp4")
    upright = decode_in_order(path)
    turn_clockwise(path)
    with open_frames(path) as frames:
        assert frames.size == (64, 48)
        for number in (3, 0, 11):
            np.testing.assert_array_equal(frames[number], np.rot90(upright[number], -1))


def test_frame_rate_and_names_are_known(make_video):
    with open_frames(make_video("a.mp4", count=3)) as frames:
        assert frames.fps == 25
        assert frames.names == ["00000", "00001", "00002"]


def test_content_decides_and_not_the_suffix(make_video, tmp_path):
    shutil.move(make_video("a.mp4"), tmp_path / "a.jpg")
    with open_frames(tmp_path / "a.jpg") as frames:
        assert len(frames) == 12


def test_a_binary_file_is_a_video(make_video):
    with make_video("a.mp4").open("rb") as file, open_frames(file) as frames:
        assert len(frames) == 12
        assert not file.closed


@pytest.mark.parametrize(
    "content", [b"", b"not a video, but a text\n" * 50, b"\x00" * 4096], ids=["empty", "text", "0"]
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.mp4' is no video"):
        open_frames(path)


def test_a_video_without_its_end_table_is_refused_by_name(make_video):
    path = make_video("cut.mp4")
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(ValueError, match=r"cut\.mp4"):
        open_frames(path)


def test_a_video_whose_frames_are_all_damaged_is_refused(make_video):
    path = make_video("a.mkv", codec="ffv1", pixels="yuv444p")
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for position, size in places:
        content[position + 20 : position + size] = bytes(size - 20)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mkv"):
        open_frames(path)


def test_a_cut_video_has_the_frames_that_are_there_and_says_so(tmp_path, caplog):
    path = tmp_path / "cut.mp4"
    with VideoWriter(path, 25, (48, 64)) as writer:
        for number in range(30):
            writer.write(moving_square(number, 48, 64))
    whole = decode_in_order(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with open_frames(path) as frames:
        assert 0 < len(frames) < 30
        assert "claims 30 frames" in caplog.text
        for number in (len(frames) - 1, 0):
            np.testing.assert_array_equal(frames[number], whole[number])


def test_a_playlist_is_not_followed(tmp_path):
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n")
    with pytest.raises(ValueError, match=r"list\.m3u8"):
        open_frames(path)
