"""What a tracker must beat: the first mask repeated, and the first mask carried by optical flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from sam2_hq.data.frames import VideoFrames
from sam2_hq.evaluation.semi_supervised import FrameResult, Prompts

Carry = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any], Mapping[int, Any]], dict[int, Any]]
"""Last frame and this one, gray, and the masks of the last one; gives those of this one."""


def repeat(
    last: np.ndarray[Any, Any], now: np.ndarray[Any, Any], masks: Mapping[int, Any]
) -> dict[int, Any]:
    """Nothing moves."""
    return dict(masks)


def warp(
    last: np.ndarray[Any, Any], now: np.ndarray[Any, Any], masks: Mapping[int, Any]
) -> dict[int, Any]:
    """Look up each pixel where the dense flow (DIS) says that it was on the last frame."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = now.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    came_from = dis.calc(now, last, None)
    return {
        i: cv2.remap(mask, x + came_from[..., 0], y + came_from[..., 1], cv2.INTER_LINEAR)
        for i, mask in masks.items()
    }


BASELINES: dict[str, Carry] = {"first mask repeated": repeat, "first mask warped by flow": warp}


def carry_masks(carry: Carry, frames: VideoFrames, prompts: Prompts) -> Iterator[FrameResult]:
    """Soft masks from frame to frame; an object joins where it is given."""
    masks: dict[int, Any] = {}
    last = None
    for index in range(min(prompts), len(frames)):
        now = cv2.cvtColor(frames[index], cv2.COLOR_RGB2GRAY)
        if last is not None:
            masks = carry(last, now, masks)
        masks |= {i: mask.astype(np.float32) for i, mask in prompts.get(index, {}).items()}
        yield FrameResult(index, {i: mask > 0.5 for i, mask in masks.items()})
        last = now
