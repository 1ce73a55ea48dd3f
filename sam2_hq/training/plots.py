"""A picture of how the numbers of a run went: one panel a number, from the journal."""

from __future__ import annotations

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw

from sam2_hq.data.atomic import whole_file

PANEL = (320, 160)  # width and height in pixels
MARGIN = 24
SHOWN = ("loss", "mask", "dice", "iou", "presence", "gradient", "rate")
VALIDATION = ("iou_", "boundary_iou_", "j_and_f")  # what their names begin with
INK, LINE, PAPER = (60, 60, 60), (30, 90, 200), (255, 255, 255)


def draw_curves(journal: Path, path: Path) -> None:
    """Write a PNG of the curves in a JSONL journal; validation numbers get panels of their own.

    Nothing is written while the journal has no numbers.
    """
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    known = {name for line in lines for name in line}
    names = [*SHOWN, *sorted(name for name in known if name.startswith(VALIDATION))]
    curves = {name: _points(lines, name) for name in names}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return
    width, height = PANEL
    picture = Image.new("RGB", (width, height * len(curves)), PAPER)
    draw = ImageDraw.Draw(picture)
    for row, (name, points) in enumerate(curves.items()):
        _draw_panel(draw, name, points, top=row * height)
    with whole_file(path) as partial:
        picture.save(partial, format="PNG")


def _points(lines: list[dict[str, float | None]], name: str) -> list[tuple[float, float]]:
    pairs = [(line["step"], line.get(name)) for line in lines]
    return [(x, y) for x, y in pairs if x is not None and y is not None and math.isfinite(y)]


def _draw_panel(
    draw: ImageDraw.ImageDraw, name: str, points: list[tuple[float, float]], *, top: int
) -> None:
    width, height = PANEL
    steps, values = [x for x, _ in points], [y for _, y in points]
    first, span = steps[0], max(steps[-1] - steps[0], 1)
    low, high = min(values), max(values)
    scale = (height - 2 * MARGIN) / max(high - low, 1e-12)
    line = [
        (MARGIN + (x - first) / span * (width - 2 * MARGIN), top + MARGIN + (high - y) * scale)
        for x, y in points
    ]
    draw.text((4, top + 4), f"{name}: {values[-1]:.4g} ({low:.4g} to {high:.4g})", fill=INK)
    draw.line(line, fill=LINE, width=1)
