"""Video files as the published predictor reads them: decord decodes and scales to the square.

For comparing masks with published ones. decord jumps and skips wrongly in open groups of pictures;
here it decodes one frame after another, and going back starts again at the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sam2_hq.data.decoding import VideoFileFrames
from sam2_hq.wording import first_line


class DecordFrames(VideoFileFrames):
    """A video file whose squares come from decord. The frames themselves are PyAV's."""

    def __init__(self, file: Path | BinaryIO, name: str) -> None:
        """Open the file with PyAV, and with decord to see whether it can.

        Raises:
            ValueError: if one of the two cannot, or they count different numbers of frames.
        """
        super().__init__(file, name)
        self._file = file
        self._squares: _SquareDecoder | None = _SquareDecoder(file, name, side=None)
        count = self._squares.num_frames
        if count != self.num_frames:
            raise ValueError(_refusal(name, f"it counts {count} frames, not {self.num_frames}"))

    def square(self, index: int, side: int) -> NDArray[np.uint8]:
        """Decode one frame squashed to [side, side, 3] by the decoder, not by Pillow.

        Raises:
            IndexError: outside 0 .. num_frames - 1.
            ValueError: if decord cannot decode the frame, or not scale to this side.
        """
        index = self._in_range(index)
        with self._lock:
            if self._squares is None:
                raise RuntimeError(f"{self._name} is closed")
            if self._squares.side != side:
                self._squares = _SquareDecoder(self._file, self._name, side)
            return self._squares.read(index)

    def close(self) -> None:
        """Close the file, in both decoders."""
        super().close()
        with self._lock:
            self._squares = None  # decord closes with its reader


class _SquareDecoder:
    """A decord reader that only goes forward, or back to the start."""

    def __init__(self, file: Path | BinaryIO, name: str, side: int | None) -> None:
        # Not above: it loads a second FFmpeg, for the few who ask for it.
        import decord

        self.side = side
        self._name = name
        self._failures = (decord.DECORDError, RuntimeError, StopIteration)
        if not isinstance(file, Path):
            file.seek(0)
        source = str(file) if isinstance(file, Path) else file
        square = {} if side is None else {"width": side, "height": side}
        try:
            self._reader: Any = decord.VideoReader(source, **square)  # it has no types
        except self._failures as error:
            raise ValueError(_refusal(name, error)) from error
        self.num_frames = len(self._reader)
        self._next = 0

    def read(self, index: int) -> NDArray[np.uint8]:
        """Decode frame `index`, and all before it that were not decoded yet."""
        name = f"frame {index} of {self._name}"
        try:
            if index < self._next:
                self._reader.seek(0)
                self._next = 0
            while self._next <= index:
                frame = self._reader.next()
                self._next += 1
        except self._failures as error:
            raise ValueError(_refusal(name, error)) from error
        pixels = np.asarray(frame.asnumpy(), dtype=np.uint8)
        if pixels.shape != (self.side, self.side, 3):  # it pads short rows, and miscounts then
            raise ValueError(_refusal(name, f"no square of side {self.side}"))
        return pixels


def _refusal(name: str, reason: object) -> str:
    return f"decord cannot read {name} ({first_line(reason)}); the decoder 'pyav' may"
