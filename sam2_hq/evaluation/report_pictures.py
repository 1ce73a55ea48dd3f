"""Pictures of a report: which frames to show, and the masks on them beside the truth."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from sam2_hq.data.frames import open_frames
from sam2_hq.data.masks import BoolMask
from sam2_hq.evaluation.clicks import box_around
from sam2_hq.evaluation.mask_folders import MaskFolder
from sam2_hq.evaluation.report_page import SERIES
from sam2_hq.evaluation.scoring import ObjectCurves
from sam2_hq.visualization import overlay

PER_SEQUENCE = 3
"""Pictures of one sequence at most, so that a single failure does not fill the page."""

MAX_SIDE = 440
"""Of a panel, in pixels. A picture of three panels takes some 100 kB of the page."""

JPEG_QUALITY = 80
CONTEXT = 1.6
"""Side of what is shown, in sides of the object's box."""

LARGEST_ZOOM = 4.0
GROUND = 40
"""Gray value behind the masks where frames are not at hand."""

Frame = NDArray[np.uint8]
Crop = tuple[int, int, int, int]


class Sight(NamedTuple):
    """One object on one frame, and a value to rank it by."""

    value: float
    sequence: str
    object_id: int
    frame: str


def worst_frames(scores: Mapping[str, Mapping[int, ObjectCurves]], count: int) -> list[Sight]:
    """Where the mean of J and F is lowest, at most `PER_SEQUENCE` a sequence; perfect ones never.

    Pictures of a sequence lie at least a tenth of its frames apart.
    """
    return choose(
        [
            Sight(value, name, object_id, frame)
            for name, objects in scores.items()
            for object_id, values in objects.items()
            for frame, value in zip(values.frames, values.j_and_f, strict=True)
            if value < 1
        ],
        scores,
        count,
    )


def choose(
    sights: Sequence[Sight], scores: Mapping[str, Mapping[int, ObjectCurves]], count: int
) -> list[Sight]:
    """The `count` lowest by value that are not too much alike, as of `worst_frames`."""
    chosen: list[Sight] = []
    places = {
        (name, i): {frame: place for place, frame in enumerate(values.frames)}
        for name, objects in scores.items()
        for i, values in objects.items()
    }
    for sight in sorted(sights):
        if len(chosen) == count:
            break
        at = places[sight.sequence, sight.object_id]
        same = [other for other in chosen if other.sequence == sight.sequence]
        is_near = any(
            abs(at[other.frame] - at[sight.frame]) < len(at) / 10
            for other in same
            if other.frame in at
        )
        if len(same) < PER_SEQUENCE and not is_near:
            chosen.append(sight)
    return chosen


def panels(sight: Sight, frames: Path | None, masks: Mapping[str, MaskFolder]) -> Iterator[str]:
    """The picture, and the object's surroundings in each of `masks`, as html.

    Args:
        sight: what to show.
        frames: folder of the sequence's pictures; without it masks are shown on gray.
        masks: masks of the sequence, by what stands below the panel.

    Raises:
        ValueError: if the picture is not there, or a file is damaged.
    """
    found = {title: _read(folder, sight.frame) for title, folder in masks.items()}
    size = next(size for size, _ in found.values() if size is not None)
    frame = _picture(frames, sight, size)
    seen = [objects[sight.object_id] for _, objects in found.values() if sight.object_id in objects]
    crop = crop_around(np.logical_or.reduce(seen) if seen else np.zeros(size, dtype=bool))
    # Scaled before they are painted, so that outlines stay thin and do not hide thin objects.
    frame = _scaled(frame, crop, Image.Resampling.BICUBIC)
    if frames is not None:
        yield _panel("frame", frame)
    for title, (_, objects) in found.items():
        ids = _scaled(_color_ids(objects, size), crop, Image.Resampling.NEAREST)
        yield _panel(title, overlay(frame, ids, palette=_palette()))


def crop_around(mask: BoolMask) -> Crop:
    """x0, y0, x1, y1 (exclusive) around a mask, in the proportions of the picture.

    All of it where the mask is empty or large.
    """
    height, width = mask.shape
    if not mask.any():
        return 0, 0, width, height
    x0, y0, x1, y1 = box_around(mask)
    share = max((x1 + 1 - x0) / width, (y1 + 1 - y0) / height) * CONTEXT
    share = min(1.0, max(share, 1 / LARGEST_ZOOM))
    wide, high = round(share * width), round(share * height)
    left = min(max(0, (x0 + x1 - wide) // 2), width - wide)
    top = min(max(0, (y0 + y1 - high) // 2), height - high)
    return left, top, left + wide, top + high


def _read(folder: MaskFolder, frame: str) -> tuple[tuple[int, int] | None, dict[int, BoolMask]]:
    if not folder.has_any(frame):
        return None, {}
    found = folder.read(frame)
    return found.size, found.masks


def _picture(frames: Path | None, sight: Sight, size: tuple[int, int]) -> Frame:
    if frames is None:
        return np.full((*size, 3), GROUND, dtype=np.uint8)
    if not frames.is_dir():
        raise ValueError(f"frames: there is no folder '{frames}'")
    with open_frames(frames) as video:
        if sight.frame not in video.names:
            raise ValueError(f"'{frames}' has no picture of frame '{sight.frame}'")
        picture = video[video.names.index(sight.frame)]
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0])), dtype=np.uint8)


def _scaled(picture: NDArray[np.uint8], crop: Crop, how: Image.Resampling) -> NDArray[np.uint8]:
    image = Image.fromarray(picture).crop(crop)
    scale = MAX_SIDE / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    return np.asarray(image.resize((width, height), how), dtype=np.uint8)


def _panel(title: str, picture: Frame) -> str:
    stored = io.BytesIO()
    Image.fromarray(picture).save(stored, "JPEG", quality=JPEG_QUALITY)
    code = base64.b64encode(stored.getvalue()).decode()
    height, width = picture.shape[:2]
    return (
        f'<div><img src="data:image/jpeg;base64,{code}" width="{width}" height="{height}" '
        f'alt="{escape(title)}">{escape(title)}</div>'
    )


def _color_ids(objects: Mapping[int, BoolMask], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Which of the colours of the curves a pixel has, from 1."""
    ids = np.zeros(size, dtype=np.uint8)
    for i, mask in objects.items():
        ids[mask] = (i - 1) % len(SERIES) + 1
    return ids


def _palette() -> NDArray[np.uint8]:
    return np.array([(0, 0, 0), *map(ImageColor.getrgb, SERIES)], dtype=np.uint8)
