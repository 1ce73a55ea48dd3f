"""How a clip looks at its ground: which window of the picture, and how the camera moves."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sam2_hq.training.geometry import Box, scaling, translation, turn, view, wander


def draw_window(
    box: Box,
    size: tuple[float, float],
    rng: np.random.Generator,
    *,
    whole: float,
    zoom: tuple[float, float],
) -> Box:
    """A crop that shows at least part of `box`, of any aspect.

    Args:
        box: x0, y0, x1, y1 in picture pixels.
        size: height and width of the picture.
        rng: random numbers.
        whole: chance of the whole picture.
        zoom: smallest and largest side of the window over that of the picture; beyond 1 there is
            a margin.
    """
    height, width = size
    if rng.random() < whole:
        return (0.0, 0.0, width, height)
    shown = math.exp(rng.uniform(math.log(zoom[0]), math.log(zoom[1])))
    stretch = math.exp(rng.uniform(-0.35, 0.35))
    shown_w, shown_h = width * shown * stretch, height * shown / stretch
    x = rng.uniform(box[0], box[2]) + rng.uniform(-0.3, 0.3) * shown_w
    y = rng.uniform(box[1], box[3]) + rng.uniform(-0.3, 0.3) * shown_h
    x, y = _inward(x, shown_w, width), _inward(y, shown_h, height)
    return (x - shown_w / 2, y - shown_h / 2, x + shown_w / 2, y + shown_h / 2)


def draw_camera(
    window: Box,
    size: tuple[float, float],
    num_frames: int,
    rng: np.random.Generator,
    *,
    still: float,
    speed: float | NDArray[np.float64],
) -> NDArray[np.float64]:
    """Where each frame looks: mirrored or not, a little turned, moving smoothly.

    Args:
        window: what the first frame shows, in picture pixels.
        size: height and width of the picture.
        num_frames: T.
        rng: random numbers.
        still: chance that it does not move.
        speed: typical move from frame to frame, one number or those of x, y, growth and turn; the
            output is 2 wide.

    Returns:
        [T, 3, 3] from the output to the square of the picture.
    """
    angle = rng.normal(0, 0.12) if rng.random() < 0.5 else 0.0
    first = view(window, size, angle=angle, mirrored=bool(rng.random() < 0.5))
    if num_frames == 1 or rng.random() < still:
        return np.repeat(first[None], num_frames, 0)
    path = wander(rng, num_frames, speed=speed)
    moves = [
        translation(x, y)
        @ turn(angle, 0.0, mirrored=False)
        @ scaling(math.exp(growth), math.exp(growth))
        for x, y, growth, angle in path
    ]
    return np.stack([first @ move for move in moves])


def aspect_of(window: Box) -> float:
    """Width over height."""
    return (window[2] - window[0]) / (window[3] - window[1])


def _inward(middle: float, shown: float, side: float) -> float:
    """Move a window inside where it fits, else over the whole side."""
    low, high = sorted((shown / 2, side - shown / 2))
    return float(np.clip(middle, low, high))
