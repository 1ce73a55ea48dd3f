"""Tiny packs of drawn pictures."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def write_packs(folder: Path, *, photo_class: str = "permissive") -> Path:
    """Write photos, cut-outs and backgrounds into `folder`, and a photo to validate on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    _write(folder / "photos_train.zip", [_photo(rng, i, photo_class) for i in range(3)])
    _write(folder / "photos_val.zip", [_photo(rng, 3)])
    _write(folder / "cutouts_train.zip", [_cutout(rng, i) for i in range(3)])
    _write(folder / "backgrounds_train.zip", [_background(rng, i) for i in range(2)])
    return folder


Item = tuple[dict[str, object], dict[str, bytes]]


def _entry(number: int, **more: object) -> dict[str, object]:
    size = {"w": 96, "h": 80}
    return {"id": f"item{number}", **size, "license_class": "permissive"} | more


def _photo(rng: np.random.Generator, number: int, license_class: str = "permissive") -> Item:
    picture = np.full((80, 96, 3), rng.integers(60, 200, 3), dtype=np.uint8)
    labels = np.zeros((80, 96), np.uint8)
    labels[20:60, 15:50] = 1
    labels[30:70, 60:90] = 2
    picture[labels == 1] = (250, 30, 30)
    picture[labels == 2] = (30, 30, 250)
    objects = [{"id": i, "label": "box", "area": int((labels == i).sum())} for i in (1, 2)]
    names = (f"{number}.png", f"{number}_mask.png")
    files = {names[0]: _png(picture), names[1]: _png(labels)}
    kinds = {"objects": objects, "license_class": license_class}
    return _entry(number, img=names[0], mask=names[1], **kinds), files


def _cutout(rng: np.random.Generator, number: int) -> Item:
    yy, xx = np.mgrid[:80, :96]
    alpha = (((xx - 48) / 40) ** 2 + ((yy - 40) / 30) ** 2 < 1) * 255
    colour = np.broadcast_to(rng.integers(0, 255, 3), (80, 96, 3))
    pixels = np.dstack([colour, alpha]).astype(np.uint8)
    entry = _entry(number, rgba=f"{number}.png", label="disc", coverage=0.5, thin=1.2)
    return entry, {f"{number}.png": _png(pixels)}


def _background(rng: np.random.Generator, number: int) -> Item:
    pixels = rng.integers(0, 255, (80, 96, 3), dtype=np.uint8)
    return _entry(number, bg=f"{number}.png"), {f"{number}.png": _png(pixels)}


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def _write(path: Path, items: list[Item]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("index.jsonl", "\n".join(json.dumps(entry) for entry, _ in items))
        for _, files in items:
            for name, content in files.items():
                archive.writestr(name, content)
