"""Frames and masks of a video on disk: what every reader of videos needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2_hq.data.frames import IMAGE_SUFFIXES, natural_key
from sam2_hq.data.masks import without_void
from sam2_hq.data.pictures import read_picture
from sam2_hq.training.still_readers import check_same_size


class Clip(NamedTuple):
    """Some frames of a video.

    frames: uint8 [T, H, W, 3]. masks: uint8 [T, O, H, W], 0 or 255; 0 where an object is absent.
    """

    name: str
    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def picture_files(folder: Path) -> list[Path]:
    """The pictures in a folder in natural order; none if there is no folder."""
    if not folder.is_dir():
        return []
    found = [one for one in folder.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found, key=lambda one: natural_key(one.name))


def choose_videos(known: Collection[str], names: Sequence[str] | None, folder: Path) -> list[str]:
    """The videos to take; ValueError for names that are not there."""
    if names is None:
        return list(known)
    known = set(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        shown = ", ".join(unknown[:3]) + ", ..." * (len(unknown) > 3)
        raise ValueError(
            f"names of videos must be in '{folder}', got {len(unknown)} that are not: {shown}"
        )
    return list(names)


def read_frames(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """Decode pictures to [T, H, W, 3].

    Raises:
        ValueError: if one is damaged, or their sizes differ.
    """
    frames = [read_picture(path, f"frame '{path}'") for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if frame.shape != frames[0].shape:
            raise ValueError(
                f"frame '{path}' is {list(frame.shape[:2])} (height, width), "
                f"the first one is {list(frames[0].shape[:2])}"
            )
    return np.stack(frames)


def assemble(
    name: str, frames: NDArray[np.uint8], by_id: Sequence[dict[int, NDArray[np.bool_]]]
) -> Clip:
    """Make a clip of frames [T, H, W, 3] and the masks [H, W] of each frame by id.

    Raises:
        ValueError: if a mask is of another size than the frames, or no mask has a pixel.
    """
    for own in by_id:
        for mask in own.values():
            check_same_size(mask[None].astype(np.uint8), frames[0], f"a mask of video {name}")
    ids = without_void(number for own in by_id for number, mask in own.items() if mask.any())
    if not ids:
        raise ValueError(f"video {name} shows no object on the frames asked for")
    masks = np.zeros((len(frames), len(ids), *frames.shape[1:3]), np.uint8)
    for step, own in enumerate(by_id):
        for slot, number in enumerate(ids):
            if number in own:
                masks[step, slot][own[number]] = 255
    return Clip(name, frames, masks)
