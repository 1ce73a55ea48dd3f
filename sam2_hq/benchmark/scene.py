"""What is looked at when nothing else is given: discs that drift over noise, and clicks on them."""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray


def places(count: int, size: tuple[int, int]) -> list[tuple[float, float]]:
    """x, y of `count` objects: middles of the cells of a grid on a picture of (height, width)."""
    height, width = size
    columns = ceil(sqrt(count))
    rows = ceil(count / columns)
    cells = [((i % columns + 0.5) / columns, (i // columns + 0.5) / rows) for i in range(count)]
    return [(width * x, height * y) for x, y in cells]


def boxes(count: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """[count, 4] x0, y0, x1, y1: boxes around these places, as large as the discs."""
    reach = _radius(count, size)
    return np.array(
        [(x - reach, y - reach, x + reach, y + reach) for x, y in places(count, size)], np.float32
    )


def clip(num_frames: int, size: tuple[int, int], num_objects: int) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] in which a disc starts at each place and drifts; always the same."""
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 120, (1, *size, 3), dtype=np.uint8), num_frames, axis=0)
    colours = rng.integers(130, 256, (num_objects, 3), dtype=np.uint8)
    y, x = np.ogrid[: size[0], : size[1]]
    radius = _radius(num_objects, size)
    for t, frame in enumerate(frames):
        shift = radius / 2 * np.sin(t / 10)
        for colour, (cx, cy) in zip(colours, places(num_objects, size), strict=True):
            frame[(x - cx - shift) ** 2 + (y - cy) ** 2 < radius**2] = colour
    return frames


def _radius(count: int, size: tuple[int, int]) -> float:
    return min(size) / (4 * ceil(sqrt(count)))
