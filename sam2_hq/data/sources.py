"""What `open_frames` hands out: frames of one size behind an index, read when asked for.

One class a kind of source. None keeps more than the frame at hand (the iterator: its window), none
normalises. Video files are in `decoding.py` and `published_decoding.py`.
"""

from __future__ import annotations

import operator
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sam2_hq.data.pictures import (
    Picture,
    channels_last,
    check_pixel_range,
    image_to_rgb,
    picture_size,
    pixels_to_uint8,
    read_picture,
    resize_for_video_model,
)

if TYPE_CHECKING:
    from typing_extensions import Self


class VideoFrames(ABC):
    """A video as a sequence: `frames[i]` is RGB uint8 [H, W, 3], a new array each time.

    Any number of threads may read; one reads at a time.

    Attributes:
        size: height and width of every frame, in video pixels.
        names: one name a frame, for files written beside it: the stems of the files, or numbers
            padded to five digits.
        fps: frames a second, None where the source has no clock.
        goes_forward_only: whether a frame that has passed cannot be read again.
    """

    size: tuple[int, int]
    names: list[str]
    fps: float | None = None
    goes_forward_only = False
    _lock: AbstractContextManager[bool]

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Give every kind its lock, also one that has an `__init__` of its own."""
        self = super().__new__(cls)
        self._lock = threading.RLock()  # held while a decoder moves
        return self

    @property
    def num_frames(self) -> int | None:
        """How many frames there are; None for an iterator that is not exhausted."""
        return len(self.names)

    def __len__(self) -> int:
        if self.num_frames is None:
            raise TypeError("the length of an iterator of frames is unknown until it is exhausted")
        return self.num_frames

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Read one frame.

        Raises:
            IndexError: outside 0 .. num_frames - 1; negative numbers do not count from the end.
            ValueError: if the frame is damaged, or of another size than the first.
        """
        index = self._in_range(index)
        with self._lock:
            frame = self._read(index)
        height, width = frame.shape[:2]
        check_same_size((height, width), self._describe(index), self.size, self._describe(0))
        return frame

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        index = 0
        while self.has_frame(index):
            yield self[index]
            index += 1

    def has_frame(self, index: int) -> bool:
        """Whether a frame of this number exists, readable or not; an iterator is read up to it."""
        return 0 <= index < len(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def square(self, index: int, side: int) -> NDArray[np.uint8]:
        """Read one frame squashed to [side, side, 3] as the published video predictor does.

        Raises:
            IndexError, ValueError: as reading the frame.
        """
        return resize_for_video_model(self[index], side)

    def close(self) -> None:  # noqa: B027 - most kinds hold nothing open
        """Let go of files and decoders. Reading afterwards is an error of the caller."""

    def _in_range(self, index: int) -> int:
        index = operator.index(index)
        if index < 0 or (self.num_frames is not None and index >= self.num_frames):
            raise IndexError(f"frame {index} is outside 0 .. {self.num_frames} (exclusive)")
        return index

    @abstractmethod
    def _read(self, index: int) -> NDArray[np.uint8]:
        """Decode one frame of a valid index."""

    def _describe(self, index: int) -> str:
        """Call a frame something in an error message."""
        return f"frame {index}"


class PictureFrames(VideoFrames):
    """Files, PIL images or arrays, one a frame. Headers are compared at once, pixels are lazy."""

    def __init__(self, pictures: Sequence[Picture], names: list[str]) -> None:
        self._pictures = pictures
        self.names = names
        self.size = picture_size(pictures[0], self._describe(0))
        for index in range(1, len(pictures)):
            name = self._describe(index)
            check_same_size(picture_size(pictures[index], name), name, self.size, self._describe(0))

    def _read(self, index: int) -> NDArray[np.uint8]:
        return read_picture(self._pictures[index], self._describe(index))

    def _describe(self, index: int) -> str:
        return describe_picture(self._pictures[index], index)


class ArrayFrames(VideoFrames):
    """One array or tensor [T, H, W, 3] or [T, 3, H, W], uint8 or floating in [0, 1]."""

    def __init__(self, pixels: NDArray[np.generic] | torch.Tensor) -> None:
        shape = list(pixels.shape)
        if len(shape) != 4 or 0 in shape or 3 not in (shape[1], shape[3]):
            raise ValueError(f"source must be [T, H, W, 3] or [T, 3, H, W], not empty, got {shape}")
        self._pixels = channels_last(pixels)
        check_pixel_range(pixels, "source")
        count, height, width = self._pixels.shape[:3]
        self.size = (int(height), int(width))
        self.names = number_names(count)

    def _read(self, index: int) -> NDArray[np.uint8]:
        return pixels_to_uint8(self._pixels[index], self._describe(index), checked=True)


class AnimationFrames(VideoFrames):
    """An animated GIF, WebP or PNG, or the pages of a TIFF. Going back replays from the start."""

    def __init__(self, file: Path | BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._image = self._open()
        self.size = (self._image.height, self._image.width)
        self.names = number_names(getattr(self._image, "n_frames", 1))
        image_to_rgb(self._image, name)  # Pillow learns the duration by decoding
        duration_ms = self._image.info.get("duration", 0)
        self.fps = 1000 / duration_ms if duration_ms > 0 else None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._image.close()

    def _read(self, index: int) -> NDArray[np.uint8]:
        if index < self._image.tell():  # Pillow cannot rewind every animated PNG
            if isinstance(self._file, Path):
                self._image.close()  # of bytes, it would close the bytes
            self._image = self._open()
        try:
            self._image.seek(index)
        except (EOFError, OSError, SyntaxError) as error:
            raise ValueError(f"{self._describe(index)} cannot be decoded: {error}") from error
        return image_to_rgb(self._image, self._describe(index))

    def _describe(self, index: int) -> str:
        return f"frame {index} of {self._name}"

    def _open(self) -> Image.Image:
        if not isinstance(self._file, Path):
            self._file.seek(0)
        return Image.open(self._file)


class _Failed(NamedTuple):
    """What came instead of a frame; each time it is raised it begins with the same trace."""

    error: Exception
    trace: TracebackType | None


class IteratorFrames(VideoFrames):
    """Frames of an iterator, forward only; the last `window` ones can be read again.

    What the iterator raises, or gives and is no picture, takes a number as a frame does, and is
    raised whenever that frame is read. An interrupt takes none.
    """

    goes_forward_only = True

    def __init__(self, pictures: Iterator[Picture], *, window: int) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1 frame, got {window}")
        self._pictures = pictures
        self._recent: deque[NDArray[np.uint8] | _Failed] = deque(maxlen=window)
        self._is_exhausted = self._was_interrupted = False
        self.names = []
        if not self._advance():
            raise ValueError("source is an iterator that yields no frame")
        height, width = self._read(0).shape[:2]
        self.size = (height, width)

    @property
    def num_frames(self) -> int | None:
        """How many frames there were; None until the iterator is exhausted."""
        return len(self.names) if self._is_exhausted else None

    def has_frame(self, index: int) -> bool:
        """Whether a frame of this number exists; reads on until it has come or the end has."""
        if 0 <= index < len(self.names):  # without waiting for a thread that reads ahead
            return True
        with self._lock:
            return index >= 0 and self._reach(index)

    def _reach(self, index: int) -> bool:
        while index >= len(self.names):
            if not self._advance():
                return False
        return True

    def _read(self, index: int) -> NDArray[np.uint8]:
        if not self._reach(index):
            raise IndexError(f"frame {index} is outside 0 .. {len(self.names)} (exclusive)")
        oldest = len(self.names) - len(self._recent)
        if index < oldest:
            raise ValueError(
                f"frame {index} of an iterator is gone: only the last {len(self._recent)} frames "
                f"are kept, from {oldest} on; raise window, or read from a file"
            )
        frame = self._recent[index - oldest]
        if isinstance(frame, _Failed):
            raise frame.error.with_traceback(frame.trace)
        return frame.copy()

    def _advance(self) -> bool:
        number = len(self.names)
        try:
            picture = next(self._pictures)
            self._recent.append(read_picture(picture, describe_picture(picture, number)))
        except StopIteration:
            if self._was_interrupted:  # a generator gives no more after it
                raise ValueError(f"frame {number}: the iterator was interrupted there") from None
            self._is_exhausted = True
            return False
        except Exception as error:  # of the source or the picture: it belongs to this frame
            self._recent.append(_Failed(error, error.__traceback__))
        except BaseException:
            self._was_interrupted = True
            raise
        self.names.append(f"{number:05d}")
        return True


def check_same_size(
    size: tuple[int, int], name: str, first: tuple[int, int], first_name: str
) -> None:
    """Raise ValueError if a frame differs from the first in height or width."""
    if size != first:
        raise ValueError(
            f"all frames must have one size: {name} is {size[0]}x{size[1]} (height x width), "
            f"{first_name} is {first[0]}x{first[1]}"
        )


def describe_picture(picture: Picture, index: int) -> str:
    """Name a picture: its file, or its number."""
    if isinstance(picture, str | Path):
        return f"'{picture}'"
    return f"frame {index}"


def number_names(count: int) -> list[str]:
    """Name frames that have no files: 00000, 00001, and so on."""
    return [f"{number:05d}" for number in range(count)]
