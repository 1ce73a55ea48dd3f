"""Where things are: affine maps between the output square and pictures, and how they move.

Every map is a 3x3 matrix on normalised coordinates, x and y in -1..1 from edge to edge. The output
is a square that shows a window of any aspect, squashed, as the predictor sees pictures; turns and
shears happen before the squash.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]
Box = tuple[float, float, float, float]

MAX_GROWTH = 0.7
"""Things and cameras grow and shrink at most so much, as a logarithm."""

BEND_POINTS = 3
"""Control points of a thin-plate bend per side."""
BEND_CELLS = 16
"""Cells per side of the field that a bend is evaluated on."""


@dataclass(frozen=True)
class Pose:
    """How a thing lies in the plane before the squash.

    x, y: centre in the output square, -1..1. size: half the geometric mean of its sides, 1 fills
    the square. angle and shear: radians and ratio. mirrored: left and right swapped.
    """

    x: float = 0.0
    y: float = 0.0
    size: float = 1.0
    angle: float = 0.0
    shear: float = 0.0
    mirrored: bool = False


def translation(x: float, y: float) -> Matrix:
    """Move by x and y."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def scaling(x: float, y: float) -> Matrix:
    """Scale by x and y around the origin."""
    return np.diag([x, y, 1.0])


def turn(angle: float, shear: float, *, mirrored: bool) -> Matrix:
    """Mirror, then shear, then turn by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    slant = np.array([[1.0, shear, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return rotation @ slant @ scaling(-1.0 if mirrored else 1.0, 1.0)


def place(pose: Pose, *, aspect: float, window_aspect: float) -> Matrix:
    """Map a thing's own square to the output.

    Args:
        pose: where it lies.
        aspect: width / height of the thing.
        window_aspect: width / height of the window that the output shows squashed.
    """
    stretch = math.sqrt(aspect)
    squash = math.sqrt(window_aspect)
    return (
        translation(pose.x, pose.y)
        @ scaling(1 / squash, squash)
        @ turn(pose.angle, pose.shear, mirrored=pose.mirrored)
        @ scaling(pose.size * stretch, pose.size / stretch)
    )


def view(window: Box, size: tuple[float, float], *, angle: float, mirrored: bool) -> Matrix:
    """Map the output to a picture, so that it shows `window` of it.

    Args:
        window: x0, y0, x1, y1 in picture pixels; may reach outside.
        size: height and width of the picture.
        angle: turn of the picture around the middle of the window, radians.
        mirrored: left and right swapped.
    """
    height, width = size
    x0, y0, x1, y1 = window
    middle = translation((x0 + x1) / width - 1, (y0 + y1) / height - 1)
    return (
        middle
        @ scaling(2 / width, 2 / height)
        @ turn(angle, 0.0, mirrored=mirrored)
        @ scaling((x1 - x0) / 2, (y1 - y0) / 2)
    )


def box_in_picture(box: Box, size: tuple[float, float]) -> Matrix:
    """Map the square of a box (pixels) to the square of the picture around it."""
    height, width = size
    x0, y0, x1, y1 = box
    return translation((x0 + x1) / width - 1, (y0 + y1) / height - 1) @ scaling(
        (x1 - x0) / width, (y1 - y0) / height
    )


def smooth_path(
    rng: np.random.Generator, num_frames: int, dims: int, *, speed: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """A smooth random walk that starts at 0: a drift and a slow swing.

    Args:
        rng: random numbers.
        num_frames: T.
        dims: numbers that move together.
        speed: typical change from frame to frame, one for all or for each.

    Returns:
        [T, dims].
    """
    times = np.arange(num_frames)[:, None]
    drift = rng.normal(0, speed, dims) * times
    rate = rng.uniform(0.3, 1.2, dims)
    phase = rng.uniform(0, 2 * math.pi, dims)
    swing = rng.normal(0, speed, dims) / rate * np.sin(rate * times + phase)
    path = drift + swing
    return path - path[0]


def wander(
    rng: np.random.Generator, num_frames: int, *, speed: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """How x, y, growth (a logarithm, within `MAX_GROWTH`) and turn change along a smooth path.

    Args:
        rng: random numbers.
        num_frames: T.
        speed: as of `smooth_path`.

    Returns:
        [T, 4].
    """
    path = smooth_path(rng, num_frames, 4, speed=speed)
    path[:, 2] = path[:, 2].clip(-MAX_GROWTH, MAX_GROWTH)
    return path


@lru_cache(maxsize=1)
def bend_basis() -> Tensor:
    """Thin-plate splines through a grid of control points, one surface for each.

    Returns:
        [BEND_POINTS**2, BEND_CELLS, BEND_CELLS] float32: the height of the surface that is 1 at one
        control point and 0 at the others. Shared; never write into it.

    Source: Bookstein, Principal warps (1989).
    """
    ticks = np.linspace(-1, 1, BEND_POINTS)
    points = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    count = len(points)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _thin_plate(points, points)
    system[:count, count:] = np.column_stack([np.ones(count), points])
    system[count:, :count] = system[:count, count:].T
    weights = np.linalg.solve(system, np.eye(count + 3)[:, :count])
    centres = (np.arange(BEND_CELLS) + 0.5) * 2 / BEND_CELLS - 1
    cells = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    terms = np.column_stack([_thin_plate(cells, points), np.ones(len(cells)), cells])
    surfaces = (terms @ weights).T.reshape(count, BEND_CELLS, BEND_CELLS)
    return torch.from_numpy(surfaces.astype(np.float32))


def _thin_plate(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squared = ((a[:, None] - b[None]) ** 2).sum(-1)
    return np.where(squared > 0, squared * np.log(np.maximum(squared, 1e-12)), 0.0)
