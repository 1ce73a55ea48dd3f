"""One door for every kind of video: `open_frames`.

Frames are read when asked for and stay uint8; see `sources.py` for the kinds and `prefetch.py` for
reading ahead.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, TypeGuard, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sam2_hq.data.decoding import VideoFileFrames
from sam2_hq.data.pictures import Picture, is_image_file, naming_damage, resize_for_video_model
from sam2_hq.data.prefetch import PrefetchedFrames
from sam2_hq.data.published_decoding import DecordFrames
from sam2_hq.data.sources import (
    AnimationFrames,
    ArrayFrames,
    IteratorFrames,
    PictureFrames,
    VideoFrames,
    number_names,
)

__all__ = [
    "VIDEO_DECODERS",
    "FrameSource",
    "PrefetchedFrames",
    "VideoDecoder",
    "VideoFrames",
    "natural_key",
    "open_frames",
    "resize_for_video_model",
]

FrameSource = (
    str
    | os.PathLike[str]
    | bytes
    | BinaryIO
    | NDArray[np.generic]
    | torch.Tensor
    | Sequence[Picture]
    | Iterable[Picture]
    | VideoFrames
)

VideoDecoder = Literal["pyav", "decord"]
VIDEO_DECODERS = get_args(VideoDecoder)
JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
IMAGE_SUFFIXES = JPEG_SUFFIXES | {".png", ".webp", ".bmp", ".tif", ".tiff"}
ANIMATED_FORMATS = frozenset({"AVIF", "GIF", "WEBP", "PNG", "TIFF"})  # an MPO is one picture

_log = logging.getLogger(__name__)


def open_frames(
    source: FrameSource, *, window: int = 8, decoder: VideoDecoder = "pyav"
) -> VideoFrames:
    """Open any kind of video for reading frame by frame.

    A folder is read in natural order (frame2 before frame10), sub-folders are not entered; hidden
    files are skipped, other non-images with a logged warning. The content of a file decides what it
    is. Alpha is dropped, EXIF and display rotation are applied, 16 bits become 8.

    Args:
        source: a folder of jpg, png, webp, bmp or tiff files; a video, animation or picture as a
            path, bytes or a binary file; an array or tensor [T, H, W, 3] or [T, 3, H, W], uint8 or
            floating in [0, 1]; a list (any sequence) or an iterator of pictures, each as
            `read_picture` takes it. An open `VideoFrames` comes back as it is.
        window: how many past frames of an iterator can be read again; other kinds have no limit.
        decoder: of video files: "pyav", exact in any order, or "decord", which also scales frames
            for the model, as the published predictor does it.

    Returns:
        The open reader; close it, or use it in a `with`.

    Raises:
        ValueError: if nothing is there, a file is damaged or no image, sizes differ, or the decoder
            is unknown or cannot read the file. The message names the file.
        TypeError: for a source of another type.
    """
    if decoder not in VIDEO_DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(VIDEO_DECODERS)}, got {decoder!r}")
    if isinstance(source, VideoFrames):
        return source
    if isinstance(source, np.ndarray | torch.Tensor):
        return ArrayFrames(source)
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source), decoder)
    if isinstance(source, bytes | bytearray | memoryview):
        return _open_file(io.BytesIO(source), "the given bytes", decoder)
    if _is_binary_file(source):
        name = f"'{getattr(source, 'name', 'the given file')}'"
        return _open_file(_seekable(source), name, decoder)
    if isinstance(source, Sequence):
        return _open_list(list(cast("Sequence[Picture]", source)))
    if isinstance(source, Iterable):
        return IteratorFrames(iter(cast("Iterable[Picture]", source)), window=window)
    raise TypeError(
        "source must be a path, bytes, a binary file, an array, a list or an iterator of frames, "
        f"got {type(source).__name__}"
    )


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which frame2 comes before frame10, and -1 before 0."""
    if re.fullmatch(r"-?[0-9]+", name):
        return ((0, int(name), name),)
    parts = re.split(r"([0-9]+)", name)
    return tuple(
        (0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part.casefold())
        for part in parts
        if part
    )


def _open_path(path: Path, decoder: VideoDecoder) -> VideoFrames:
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise ValueError(f"source: there is no file or folder '{path}'")
    return _open_file(path, f"'{path}'", decoder)


def _open_folder(folder: Path) -> VideoFrames:
    visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    files = [entry for entry in visible if _is_named_as_image(entry)]
    others = sorted(entry.name for entry in visible if not _is_named_as_image(entry))
    if not files:
        wanted = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"folder '{folder}' has no image ({wanted}), {len(others)} other entries")
    if others:
        _log.warning(
            "'%s': %d entries that are no images are left out, such as '%s'",
            folder,
            len(others),
            others[0],
        )
    files.sort(key=lambda file: (natural_key(file.stem), file.name))
    stems = [file.stem for file in files]
    twice = _first_repeated(stems)
    if twice is not None:
        pair = " and ".join(file.name for file in files if file.stem == twice)
        raise ValueError(f"folder '{folder}' has several images of one name: {pair}")
    return PictureFrames(files, stems)


def _is_named_as_image(entry: Path) -> bool:
    return entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()


def _open_list(pictures: list[Picture]) -> VideoFrames:
    if not pictures:
        raise ValueError("source is an empty list")
    paths = [Path(item) for item in pictures if isinstance(item, str | os.PathLike)]
    stems = [path.stem for path in paths]
    have_own_names = len(paths) == len(pictures) and _first_repeated(stems) is None
    return PictureFrames(pictures, stems if have_own_names else number_names(len(pictures)))


def _open_file(file: Path | BinaryIO, name: str, decoder: VideoDecoder) -> VideoFrames:
    is_image = is_image_file(file)
    if not isinstance(file, Path):
        file.seek(0)
    if not is_image:
        return VideoFileFrames(file, name) if decoder == "pyav" else DecordFrames(file, name)
    if _is_animated(file, name):
        return AnimationFrames(file, name)
    if isinstance(file, Path):
        return PictureFrames([file], [file.stem])
    return PictureFrames([Image.open(file)], number_names(1))


def _is_animated(file: Path | BinaryIO, name: str) -> bool:
    with naming_damage(name), Image.open(file) as image:
        return image.format in ANIMATED_FORMATS and getattr(image, "n_frames", 1) > 1


def _is_binary_file(source: object) -> TypeGuard[BinaryIO]:
    return hasattr(source, "read")


def _seekable(file: BinaryIO) -> BinaryIO:
    content = file.read()
    if not isinstance(content, bytes):
        raise TypeError("source must be a file opened in binary mode, this one gives text")
    return io.BytesIO(content)


def _first_repeated(names: list[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
