"""Video files, frame by frame: exact random access, every frame once, in the order of display.

The packets are listed once at the start (no decoding), so that the presentation time of each frame
and the key frame before it are known. PyAV decodes from that key frame on. Not decord: measured, it
gives the same pixels of H.264 no faster, but wrong frames after a jump into an open group of
pictures (H.264, MPEG-2 and MPEG-4 alike), and it fails on a transport stream.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from sam2_hq.data.sources import VideoFrames, number_names

DECODER_THREADS = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameIndex:
    """Where the frames of a video are.

    times: presentation times in stream ticks, ascending, one a frame; None where the stream has no
        usable times, and frames can only be counted from the start.
    num_frames: frames that can be shown.
    keys: numbers of the frames at which decoding can start, ascending.
    """

    times: list[int] | None
    num_frames: int
    keys: list[int]


class VideoFileFrames(VideoFrames):
    """A video file. Holds the decoder's few frames and the index, whatever the length."""

    def __init__(self, file: Path | BinaryIO, name: str) -> None:
        """List the packets, then decode the last and the first frame, to believe the list.

        Raises:
            ValueError: if this is no video, or not one frame of it can be decoded.
        """
        self._name = name
        decoder = PyAVDecoder(file, name)
        height, width = decoder.read(0).shape[:2]
        self.size = (height, width)
        self.names = number_names(decoder.index.num_frames)
        self.fps = decoder.fps
        self._decoder: PyAVDecoder | None = decoder

    def close(self) -> None:
        """Close the file and end the decoder's threads."""
        with self._lock:
            if self._decoder is not None:
                self._decoder.close()
            self._decoder = None

    def _read(self, index: int) -> NDArray[np.uint8]:
        if self._decoder is None:
            raise RuntimeError(f"{self._name} is closed")
        return self._decoder.read(index)

    def _describe(self, index: int) -> str:
        return f"frame {index} of {self._name}"


class PyAVDecoder:
    """Reads through PyAV. Going on is cheap; a jump decodes from the key frame before its goal."""

    _frames: Iterator[av.VideoFrame]

    def __init__(self, file: Path | BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        if _is_text(file):
            raise ValueError(f"{name} is no video, animation or picture, but a text")
        self._open()
        rate = self._stream.average_rate
        self.fps = float(rate) if rate else None
        self.index = self._list_packets()
        if not (self._can_decode(self.index.num_frames - 1) and self._can_decode(0)):
            self.index = self._list_by_decoding()
        if not self.index.num_frames:
            self.close()
            raise ValueError(f"{name} is a video without a frame that can be decoded")
        claimed = self._stream.frames
        if claimed > self.index.num_frames:
            _log.warning(
                "%s claims %d frames, %d can be decoded: the file may be cut short",
                name,
                claimed,
                self.index.num_frames,
            )

    def read(self, index: int) -> NDArray[np.uint8]:
        """Decode one frame to RGB uint8 [H, W, 3], turned as it is to be shown.

        Raises:
            ValueError: if the frame cannot be decoded.
        """
        if not self._is_ahead(index):
            self._jump(index)
        frame = self._forward_to(index)
        if frame is None:  # the container jumped too far: its key frames are not what it says
            self._restart()
            frame = self._forward_to(index)
        if frame is None:
            raise ValueError(
                f"frame {index} of {self._name} cannot be decoded: the file is damaged"
            )
        return _to_rgb(frame)

    def close(self) -> None:
        """Close the container. The decoder's threads end when nobody holds this object."""
        self._container.close()
        self._frames = iter(())  # the generator held it

    def _open(self) -> None:
        if not isinstance(self._file, Path):
            self._file.seek(0)
        try:
            source = str(self._file.absolute()) if isinstance(self._file, Path) else self._file
            # What is inside a file shall not reach into the network.
            self._container = av.open(
                source, mode="r", options={"protocol_whitelist": "file,crypto,data"}
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise ValueError(f"{self._name} is no video, animation or picture: {error}") from None
        videos = self._container.streams.video
        # No codec: the table at the end of the file that would name it is cut off.
        if not videos or videos[0].codec_context is None:
            self._container.close()
            raise ValueError(f"{self._name} is no video, animation or picture")
        self._stream = videos[0]
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = DECODER_THREADS
        self._frames = self._decode()
        self._next = 0  # number of the frame that comes next, where counting is what we have

    def _restart(self) -> None:
        self._container.close()
        self._open()

    def _packets(self) -> Iterator[Any]:
        # Any: PyAV's own packet type changed its module between releases.
        try:
            for packet in self._container.demux(self._stream):
                if not packet.is_discard and not packet.is_corrupt:
                    yield packet
        except av.error.FFmpegError as error:
            _log.warning("%s ends early: %s", self._name, error)

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            try:
                yield from packet.decode()
            except av.error.FFmpegError as error:
                _log.warning("%s: a damaged packet is skipped: %s", self._name, error)

    def _list_packets(self) -> FrameIndex:
        packets = [(p.pts, p.is_keyframe) for p in self._packets() if p.size]
        self._restart()
        return _index_frames(packets)

    def _list_by_decoding(self) -> FrameIndex:
        self._restart()
        frames = [(frame.pts, bool(frame.key_frame)) for frame in self._decode()]
        self._restart()
        return _index_frames(frames)

    def _can_decode(self, index: int) -> bool:
        if index < 0:
            return False
        try:
            self.read(index)
        except ValueError:
            return False
        return True

    def _is_ahead(self, index: int) -> bool:
        return self._key_before(index) <= self._next <= index

    def _key_before(self, index: int) -> int:
        return self.index.keys[bisect_right(self.index.keys, index) - 1]

    def _jump(self, index: int) -> None:
        if self.index.times is None:
            self._restart()
            return
        key = self._key_before(index)
        try:
            self._container.seek(self.index.times[key], stream=self._stream)
        except av.error.FFmpegError:
            self._restart()
            return
        self._frames = self._decode()
        self._next = key

    def _forward_to(self, index: int) -> av.VideoFrame | None:
        for frame in self._frames:
            number = self._number(frame)
            if number is None:
                continue
            self._next = number + 1
            if number >= index:
                return frame if number == index else None
        self._next = self.index.num_frames
        return None

    def _number(self, frame: av.VideoFrame) -> int | None:
        times = self.index.times
        if times is None:
            return self._next
        if frame.pts is None:
            return None
        number = bisect_right(times, frame.pts) - 1
        return number if number >= 0 and times[number] == frame.pts else None


def _index_frames(frames: list[tuple[int | None, bool]]) -> FrameIndex:
    """Index (presentation time, is key frame) pairs, in any order."""
    times = sorted(time for time, _ in frames if time is not None)
    if len(times) < len(frames) or len(set(times)) < len(times):
        return FrameIndex(None, len(frames), [0])
    key_times = {time for time, is_key in frames if is_key}
    keys = {0} | {number for number, time in enumerate(times) if time in key_times}
    return FrameIndex(times, len(times), sorted(keys))


def _is_text(file: Path | BinaryIO) -> bool:
    # FFmpeg draws any text as a picture of a terminal, and follows a playlist wherever it leads.
    if isinstance(file, Path):
        with file.open("rb") as opened:
            start = opened.read(1024)
    else:
        file.seek(0)
        start = file.read(1024)
    controls = set(range(32)) - set(b"\t\n\f\r")
    return bool(start) and controls.isdisjoint(start)


def _to_rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    quarter_turns = round(frame.rotation / 90) % 4  # degrees, counter-clockwise
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels
