from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import pytest
from numpy.typing import NDArray


def moving_square(number: int, height: int, width: int) -> NDArray[np.uint8]:
    """A frame that no other number gives, smooth enough to survive a lossy codec."""
    y, x = np.mgrid[:height, :width]
    channels = (x * 2 + number * 7, y * 2 + number * 5, np.full_like(x, number * 9))
    return np.stack([channel % 256 for channel in channels], axis=-1).astype(np.uint8)


class MakeVideo(Protocol):
    def __call__(
        self,
        name: str,
        *,
        count: int = ...,
        size: tuple[int, int] = ...,
        codec: str = ...,
        pixels: str = ...,
        times_ms: list[int] | None = ...,
        options: dict[str, str] | None = ...,
    ) -> Path: ...


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    def make(
        name,
        *,
        count=12,
        size=(48, 64),
        codec="libx264",
        pixels="yuv420p",
        times_ms=None,
        options=None,
    ):
        if codec not in av.codecs_available:
            pytest.skip(f"this PyAV has no encoder {codec}")
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width = size
            stream.pix_fmt = pixels
            stream.options = options or {}
            if times_ms is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(moving_square(number, *size), format="rgb24")
                if times_ms is not None:
                    frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make
