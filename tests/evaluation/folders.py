"""Tiny benchmarks on disk: squares that move, appear late, vanish, and predictions that err."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sam2_hq.data.masks import write_id_map

SIZE = (40, 56)
Ids = np.ndarray[Any, Any]


def square(object_id: int, y: int, x: int, *, side: int = 12, on: Ids | None = None) -> Ids:
    """An id map with one more square."""
    ids = np.zeros(SIZE, dtype=np.uint8) if on is None else on.copy()
    ids[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = object_id
    return ids


def write_packed(folder: Path, maps: list[Ids], *, start: int = 0, step: int = 1) -> Path:
    """`00000.png`, `00001.png`, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, ids in enumerate(maps):
        write_id_map(folder / f"{start + step * index:05d}.png", ids)
    return folder


def write_per_object(folder: Path, maps: list[Ids], object_ids: list[int]) -> Path:
    """`000/00000.png`, ...: every object on every frame."""
    for object_id in object_ids:
        own = folder / f"{object_id:03d}"
        own.mkdir(parents=True, exist_ok=True)
        for index, ids in enumerate(maps):
            write_id_map(own / f"{index:05d}.png", (ids == object_id).astype(np.uint8))
    return folder


def random_maps(seed: int, *, num_frames: int, num_objects: int) -> list[Ids]:
    """Objects that come and go and cover each other; the first frame has all but the last one."""
    rng = np.random.default_rng(seed)
    maps = []
    for frame in range(num_frames):
        ids = np.zeros(SIZE, dtype=np.uint8)
        for i in range(1, num_objects + 1):
            is_late = i == num_objects and num_objects > 1 and frame < 2
            if not is_late and (frame == 0 or rng.random() < 0.8):
                y, x = rng.integers(-4, 30), rng.integers(-4, 46)
                ids = square(i, int(y), int(x), side=int(rng.integers(3, 16)), on=ids)
        maps.append(ids)
    return maps
