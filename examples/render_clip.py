"""Render the example clip: frames, exact masks, prompts, and which object is hidden when.

    python examples/render_clip.py

A kite, a bicycle and a beach ball on a meadow; the ball rolls behind the bicycle and behind a tree.
A mask is where more than half of a pixel shows the object, averaged over the time the shutter is
open. The same seed gives the same clip.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scene.frame import OBJECTS, build_scenery, render_frame
from scipy.ndimage import distance_transform_edt

NAME = "meadow"
FRAMES_PER_SECOND = 24
JPEG_QUALITY = 90
PALETTE = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
"""The first colours of the DAVIS palette: background and objects 1, 2, 3."""

IdMap = NDArray[np.uint8]


def render_clip(folder: Path, *, frames: int, height: int, width: int, seed: int) -> None:
    """Write the whole clip into `folder`, in the layout of DAVIS, with `prompts.json` beside it.

    Args:
        folder: receives `JPEGImages/meadow`, `Annotations/meadow` and `clip.json`.
        frames: length; the same motion is spread over any number of frames.
        height: of a frame, in pixels; width: likewise, 16:9 looks best.
        seed: of grass, clouds and grain.
    """
    scenery = build_scenery(seed, height, width)
    hidden: dict[int, list[int]] = {number: [] for number in OBJECTS}
    for index in range(frames):
        picture, ids = render_frame(scenery, seed, index, frames, height, width)
        save_image(folder / f"JPEGImages/{NAME}/{index:05d}.jpg", Image.fromarray(picture))
        save_image(folder / f"Annotations/{NAME}/{index:05d}.png", palette_image(ids))
        for number in set(OBJECTS) - set(np.unique(ids).tolist()):
            hidden[number].append(index)
        if index == 0:
            save_json(folder.parent / "prompts.json", first_frame_prompts(ids))
    facts = {
        "name": NAME,
        "frames": frames,
        "height": height,
        "width": width,
        "frames_per_second": FRAMES_PER_SECOND,
        "seed": seed,
        "objects": OBJECTS,
        "hidden": hidden,
    }
    save_json(folder / "clip.json", facts)


def first_frame_prompts(ids: IdMap) -> dict[str, object]:
    """One box and one click an object, from the id map [H, W] of frame 0."""
    prompts: list[dict[str, object]] = []
    for number in OBJECTS:
        rows, columns = np.nonzero(ids == number)
        if not len(rows):
            continue
        inside = distance_transform_edt(np.pad(ids == number, 1))[1:-1, 1:-1]
        y, x = (int(n) for n in np.unravel_index(inside.argmax(), ids.shape))
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        prompt = {"box": [int(edge) for edge in box], "points": [[x, y]], "labels": [1]}
        prompts.append({"object": number, "frame": 0, **prompt})
    return {"version": 1, "prompts": prompts}


def palette_image(ids: IdMap) -> Image.Image:
    """An id map [H, W] as a palette image."""
    image = Image.fromarray(ids, "P")
    image.putpalette([channel for colour in PALETTE for channel in colour])
    return image


def save_image(path: Path, image: Image.Image) -> None:
    """Write an image whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    kind = {".jpg": "JPEG", ".png": "PNG"}[path.suffix]
    options = {"quality": JPEG_QUALITY} if kind == "JPEG" else {}
    image.save(part, kind, optimize=True, **options)
    os.replace(part, path)


def save_json(path: Path, data: dict[str, object]) -> None:
    """Write JSON whole or not at all, each list of numbers in one line."""
    numbers = re.compile(r"\[[\d\s,\[\]]*\]")
    text = numbers.sub(lambda found: json.dumps(json.loads(found[0])), json.dumps(data, indent=2))
    part = path.with_name(f".{path.name}.part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)


def main() -> None:
    """Read the command line and render."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    here = Path(__file__).resolve().parent
    parser.add_argument("--output", type=Path, default=here / "clip", help="folder of the clip")
    parser.add_argument("--frames", type=int, default=48, help="default: 48, two seconds")
    parser.add_argument("--height", type=int, default=270, help="pixels, default: 270")
    parser.add_argument("--width", type=int, default=480, help="pixels, default: 480")
    parser.add_argument("--seed", type=int, default=7, help="default: 7")
    options = parser.parse_args()
    render_clip(
        options.output,
        frames=options.frames,
        height=options.height,
        width=options.width,
        seed=options.seed,
    )


if __name__ == "__main__":
    main()
