"""What a person says about the objects of a video: clicks, a box or a painted mask on a frame.

Everything is in pixels of the picture or video. Reading them from text is `prompt_text.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sam2_hq.prompts import boxes, painted_mask, points_and_labels

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Clicks:
    """Points and at most one box for one object on one frame.

    points: x, y in video pixels. labels: 1 on the object, 0 beside it, one a point.
    box: x0, y0, x1, y1 in video pixels. origin: where the user said it, for messages.
    """

    object_id: int
    frame: int
    points: tuple[tuple[float, float], ...]
    labels: tuple[int, ...]
    box: Box | None
    origin: str


@dataclass(frozen=True, eq=False)
class PaintedMask:
    """A mask for one object on one frame: [height, width] bool in video pixels."""

    object_id: int
    frame: int
    mask: np.ndarray
    origin: str


ObjectPrompt = Clicks | PaintedMask


def one_per_object_and_frame(prompts: Sequence[ObjectPrompt]) -> list[ObjectPrompt]:
    """Join what is said about the same object and frame; in order of frame, then of mention.

    Raises:
        ValueError: if two prompts contradict each other: two boxes, or a mask and anything else.
    """
    joined: dict[tuple[int, int], ObjectPrompt] = {}
    for prompt in prompts:
        key = (prompt.object_id, prompt.frame)
        joined[key] = _join(joined[key], prompt) if key in joined else prompt
    return sorted(joined.values(), key=lambda prompt: prompt.frame)


def check_prompts(
    prompts: Sequence[ObjectPrompt], num_frames: int, video_size: tuple[int, int]
) -> None:
    """Refuse prompts that do not fit the video, before a model is opened for them.

    Args:
        prompts: what the user said.
        num_frames: length of the video.
        video_size: (height, width).

    Raises:
        ValueError: naming the prompt, what it said and what was wanted.
    """
    for prompt in prompts:
        if prompt.frame >= num_frames:
            raise ValueError(
                f"{prompt.origin}: frame must be 0 to {num_frames - 1}, got {prompt.frame}"
            )
        try:
            _check_geometry(prompt, video_size)
        except ValueError as error:
            raise ValueError(f"{prompt.origin}: {error}") from error


def describe_prompt(prompt: ObjectPrompt) -> dict[str, Any]:
    """A prompt as JSON values, equal exactly when the prompts are; a mask by its SHA-256."""
    description: dict[str, Any] = {"object": prompt.object_id, "frame": prompt.frame}
    if isinstance(prompt, PaintedMask):
        packed = np.packbits(prompt.mask).tobytes()
        return description | {"mask": hashlib.sha256(packed).hexdigest()}
    return description | {
        "points": [list(point) for point in prompt.points],
        "labels": list(prompt.labels),
        "box": None if prompt.box is None else list(prompt.box),
    }


def _check_geometry(prompt: ObjectPrompt, video_size: tuple[int, int]) -> None:
    if isinstance(prompt, PaintedMask):
        painted_mask(prompt.mask, video_size)
        return
    if prompt.points:
        points_and_labels(prompt.points, prompt.labels, video_size)
    if prompt.box is not None:
        boxes(prompt.box, video_size)


def _join(first: ObjectPrompt, second: ObjectPrompt) -> ObjectPrompt:
    where = f"object {second.object_id} on frame {second.frame}"
    if isinstance(first, PaintedMask) or isinstance(second, PaintedMask):
        raise ValueError(
            f"{second.origin}: {where} already has {first.origin}; a mask stands alone"
        )
    if first.box is not None and second.box is not None:
        raise ValueError(
            f"{second.origin}: {where} already has the box of {first.origin}; one box is enough"
        )
    return replace(
        first,
        points=first.points + second.points,
        labels=first.labels + second.labels,
        box=first.box or second.box,
    )
