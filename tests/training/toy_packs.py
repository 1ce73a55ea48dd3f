"""Zip packs of drawn pictures: every pixel's truth is known from its colour."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_hq.data.masks import davis_palette

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SIDE = 48


def png(pixels: NDArray[np.uint8], *, palette: bool = False) -> bytes:
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(davis_palette().tobytes())
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def write_pack(path: Path, entries: Sequence[dict[str, Any]], files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("index.jsonl", "".join(json.dumps(one) + "\n" for one in entries))
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def disc(height: int, width: int, x: float, y: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:height, :width] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def painted(mask: NDArray[np.bool_], colour: tuple[int, int, int] = RED) -> NDArray[np.uint8]:
    """`colour` where the mask is, blue elsewhere: [H, W, 3]."""
    return np.where(mask[..., None], np.uint8(colour), np.uint8(BLUE)).astype(np.uint8)


def photos(path: Path, count: int = 4, **changes: Any) -> Path:
    """A red disc (1) and a green one (2) on blue, and their union."""
    entries, files = [], {}
    for number in range(count):
        height, width = 40, 48 + 8 * (number % 2)
        red, green = disc(height, width, 14, 20, 9), disc(height, width, 34, 18, 7)
        labels = (red + 2 * green).astype(np.uint8)
        picture = painted(red)
        picture[green] = GREEN
        files[f"img/{number}.png"] = png(picture)
        files[f"mask/{number}.png"] = png(labels, palette=True)
        entries.append(
            {
                "id": f"photo{number}",
                "img": f"img/{number}.png",
                "mask": f"mask/{number}.png",
                "license_class": "permissive" if number % 2 else "noncommercial",
                "objects": [{"id": 1, "label": "red"}, {"id": 2, "label": "green"}],
                "groups": [{"label": "both", "ids": [1, 2]}],
                **changes,
            }
        )
    return write_pack(path, entries, files)


def cutouts(path: Path, count: int = 3) -> Path:
    """Red rings with a soft edge; the last ones are the thinnest."""
    entries, files = [], {}
    for number in range(count):
        rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2
        radius = np.hypot(rows, columns)
        alpha = np.clip(np.minimum(20 - radius, radius - 4 * number), 0, 1)
        pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
        pixels[..., 0] = 255
        pixels[..., 3] = np.round(alpha * 255)
        files[f"rgba/{number}.png"] = png(pixels)
        entries.append(
            {
                "id": f"ring{number}",
                "rgba": f"rgba/{number}.png",
                "thin": 1.0 + number,
                "license_class": "permissive",
            }
        )
    return write_pack(path, entries, files)


def backgrounds(path: Path, count: int = 2) -> Path:
    """All blue."""
    files = {f"bg/{i}.png": png(painted(np.zeros((32, 40), np.bool_))) for i in range(count)}
    entries = [{"id": name, "bg": name, "license_class": "copyleft"} for name in files]
    return write_pack(path, entries, files)


def clips(path: Path, count: int = 2, length: int = 6) -> Path:
    """A red disc that moves to the right on blue; on the last frame it is gone."""
    entries, files = [], {}
    for number in range(count):
        for frame in range(length):
            mask = disc(40, 56, 12 + 6 * frame, 20, 8)
            if frame == length - 1:
                mask[:] = False
            files[f"vid/{number}/{frame:05d}.png"] = png(painted(mask))
            files[f"ann/{number}/{frame:05d}.png"] = png(mask.astype(np.uint8), palette=True)
        entries.append(
            {
                "id": f"clip{number}",
                "frames": length,
                "img": f"vid/{number}/%05d.png",
                "mask": f"ann/{number}/%05d.png",
                "objects": [{"id": 1, "label": "disc"}],
                "license_class": "mixed",
            }
        )
    return write_pack(path, entries, files)
