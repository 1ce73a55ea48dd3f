"""Writing a video that plays everywhere. Reading is in `decoding.py`."""

from __future__ import annotations

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from sam2_hq.data.atomic import partial_path

if TYPE_CHECKING:
    from typing_extensions import Self

ENCODER_THREADS = 2
MIN_FPS, MAX_FPS = 0.001, 1000
BT709 = 1  # number of the colour space in H.273


class VideoWriter:
    """An mp4, H.264 where that encoder is there, which browsers start before it is loaded.

    The file appears at `close`; after an error inside the `with` nothing is left. 4:2:0 video has
    even sides: an odd width or height grows by one repeated column or row.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float, size: tuple[int, int]) -> None:
        """Begin a hidden file beside `path`.

        Args:
            path: ends in .mp4; the folder exists.
            fps: frames a second.
            size: height and width of the frames to come.

        Raises:
            ValueError: if one of these does not hold.
        """
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"path must end in .mp4, got '{path}'")
        if not MIN_FPS <= fps <= MAX_FPS:
            raise ValueError(f"fps must be {MIN_FPS} to {MAX_FPS} frames a second, got {fps}")
        if min(size) < 1:
            raise ValueError(f"size must be a positive (height, width), got {size}")
        self.size = size
        self.num_frames = 0
        self._is_closed = False
        self._partial = partial_path(self.path)
        # Absolute: FFmpeg takes what stands before the colon of `10:30/out.mp4` for a protocol.
        self._container = av.open(
            str(self._partial.absolute()),
            mode="w",
            format="mp4",
            options={"movflags": "+faststart"},
        )
        self._rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream(
            "libx264" if "libx264" in av.codecs_available else "mpeg4", rate=self._rate
        )
        self._set_up_stream()

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame.

        Args:
            frame: RGB uint8 [H, W, 3] of the size given at the start.

        Raises:
            ValueError: for another shape or dtype, or after `close`. The file goes on.
            OSError: if it cannot be written, such as on a full disk. Nothing is left then.
        """
        if self._is_closed:
            raise ValueError(f"'{self.path}' is closed")
        if frame.dtype != np.uint8 or frame.shape != (*self.size, 3):
            wanted = [*self.size, 3]
            raise ValueError(f"frame must be uint8 {wanted}, got {frame.dtype} {list(frame.shape)}")
        self._encode(self._to_yuv(frame))
        self.num_frames += 1

    def close(self) -> None:
        """Finish the file and give it its name. A second call does nothing.

        Raises:
            ValueError: if no frame was written; nothing is left then.
            OSError: if it cannot be written; nothing is left then.
        """
        if self._is_closed:
            return
        if not self.num_frames:
            self.discard()
            raise ValueError(f"no frame was written to '{self.path}'")
        self._encode(None)
        self._is_closed = True
        try:
            self._container.close()
            os.replace(self._partial, self.path)
        except OSError:
            self.discard()
            raise

    def discard(self) -> None:
        """Give up and remove what was written."""
        self._is_closed = True
        with suppress(av.error.FFmpegError, OSError):
            self._container.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def _set_up_stream(self) -> None:
        height, width = self.size
        stream = self._stream
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.thread_count = ENCODER_THREADS
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        if codec.name == "libx264":
            stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            codec.bit_rate = 4 * height * width

    def _to_yuv(self, frame: NDArray[np.uint8]) -> av.VideoFrame:
        height, width = self.size
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        yuv = image.reformat(format="yuv420p", dst_colorspace="ITU709")
        yuv.pts = self.num_frames
        yuv.time_base = 1 / self._rate
        return yuv

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError):
            self.discard()
            raise
