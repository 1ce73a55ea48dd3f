"""Draw thin things as a pack of cut-outs: wheels, bicycles, fences, twigs, ropes, nets, furniture.

    python tools/draw_wires.py --out PACK.zip [--count 160] [--seed 0] [--with CUTOUTS.zip]

Photos with masks of wires are rare, and outlines drawn by people fill the gaps between spokes. What
is drawn has an exact mask. `--with` puts the items of another pack of cut-outs before ours, since a
recipe names one: `train.data.packs.cutouts=PACK.zip`.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from sam2_hq.checks import check_counts
from sam2_hq.cli.main import USER_MISTAKES, explain
from sam2_hq.training.packs import read_items, write_items

FINE = 4
"""Things are drawn so many times larger than they are kept, which makes their edges soft."""
SIDE = 360 * FINE
LONG_SIDES = (160, 360)
"""Longest side of a cut-out in pixels, least and most."""

Colour = tuple[int, int, int]
Points = NDArray[np.float64]  # [N, 2], x and y in 0..1


@dataclass
class Sheet:
    """What is drawn, with colours and coverage apart: no background is mixed into the edges."""

    rng: np.random.Generator
    colours: Image.Image = field(default_factory=lambda: Image.new("RGB", (SIDE, SIDE)))
    alpha: Image.Image = field(default_factory=lambda: Image.new("L", (SIDE, SIDE)))

    def bar(
        self, points: Points | Sequence[Sequence[float] | Points], width: float, colour: Colour
    ) -> None:
        """A round bar along a line of points, lit from above; `width` in 0..1."""
        places = np.asarray(points, dtype=np.float64)
        thick = max(width * SIDE, FINE)
        self._line(places, thick, _shade(colour, 0.7))
        self._line(places - [0, 0.15 * width], 0.6 * thick, colour)
        self._line(places - [0, 0.25 * width], 0.25 * thick, _shade(colour, 1.3))

    def ring(self, centre: Sequence[float], radius: float, width: float, colour: Colour) -> None:
        """A bar along a circle."""
        self.bar(_circle(centre, radius), width, colour)

    def plate(self, points: Points, colour: Colour) -> None:
        """A filled shape."""
        corners = [(x, y) for x, y in np.asarray(points) * SIDE]
        ImageDraw.Draw(self.colours).polygon(corners, fill=colour)
        ImageDraw.Draw(self.alpha).polygon(corners, fill=255)

    def colour(self) -> Colour:
        """A colour of paint, metal or wood."""
        if self.rng.random() < 0.4:
            grey = self.rng.integers(15, 220)
            red, green, blue = (int(np.clip(grey + self.rng.normal(0, 8), 0, 255)) for _ in "rgb")
            return red, green, blue
        red, green, blue = (int(one) for one in self.rng.integers(10, 240, 3))
        return red, green, blue

    def _line(self, points: Points, thick: float, colour: Colour) -> None:
        corners = [(x, y) for x, y in points * SIDE]
        width = max(round(thick), 1)
        for picture, value in ((self.colours, colour), (self.alpha, 255)):
            draw = ImageDraw.Draw(picture)
            draw.line(corners, fill=value, width=width, joint="curve")
            for x, y in (corners[0], corners[-1]):
                half = width / 2
                draw.ellipse((x - half, y - half, x + half, y + half), fill=value)


def wheel(sheet: Sheet, centre: Sequence[float] = (0.5, 0.5), radius: float = 0.45) -> None:
    """Rim, hub and spokes, which run straight or cross each other."""
    rng = sheet.rng
    rim, spokes = radius * rng.uniform(0.03, 0.16), radius * rng.uniform(0.012, 0.05)
    colour = sheet.colour()
    count, lean = rng.integers(5, 33), rng.choice([0.0, 0.5, 1.0])
    start = rng.uniform(0, 2 * np.pi)
    for number in range(count):
        angle = start + 2 * np.pi * number / count
        hub = _at(centre, 0.08 * radius, angle + lean * (-1) ** number)
        sheet.bar([hub, _at(centre, radius, angle)], spokes, colour)
    sheet.ring(centre, radius, rim, sheet.colour())
    if rng.random() < 0.5:
        sheet.ring(centre, radius - 0.8 * rim, 0.4 * rim, colour)
    sheet.ring(centre, 0.07 * radius, 0.06 * radius, colour)


def bicycle(sheet: Sheet) -> None:
    """Two wheels, a frame of bars, saddle and handlebar."""
    rng = sheet.rng
    radius = rng.uniform(0.17, 0.23)
    ground = 0.75
    back, front = (0.26, ground), (0.74 + rng.uniform(-0.03, 0.03), ground)
    pedals = (0.46 + rng.uniform(-0.03, 0.03), ground + rng.uniform(-0.02, 0.04))
    seat = (0.38 + rng.uniform(-0.03, 0.03), ground - 1.5 * radius)
    head = (0.65 + rng.uniform(-0.03, 0.03), ground - rng.uniform(1.4, 1.7) * radius)
    wheels = np.random.default_rng(rng.integers(2**32))
    state = wheels.bit_generator.state
    for centre in (back, front):
        wheels.bit_generator.state = state  # both alike
        wheel(Sheet(wheels, sheet.colours, sheet.alpha), centre, radius)
    colour, thick = sheet.colour(), rng.uniform(0.008, 0.025)
    for bar in ([back, pedals], [back, seat], [pedals, seat], [pedals, head], [seat, head]):
        sheet.bar(bar, thick, colour)
    sheet.bar([head, front], thick, colour)
    grip = (head[0] + rng.uniform(-0.03, 0.02), head[1] - rng.uniform(0.04, 0.12))
    reach = rng.uniform(0.04, 0.09) * rng.choice([-1, 1])
    sheet.bar([head, grip, (grip[0] + reach, grip[1] + rng.uniform(-0.02, 0.04))], thick, colour)
    saddle = (seat[0], seat[1] - rng.uniform(0.02, 0.07))
    dark = sheet.colour()
    sheet.bar([seat, saddle], thick, colour)
    sheet.bar([(saddle[0] - 0.06, saddle[1]), (saddle[0] + 0.05, saddle[1])], 1.8 * thick, dark)
    sheet.ring(pedals, 0.035, 0.7 * thick, dark)
    if rng.random() < 0.5:
        rack = ground - radius * rng.uniform(1.1, 1.3)
        sheet.bar([(0.12, rack), (0.36, rack)], 0.5 * thick, dark)
        sheet.bar([(0.16, rack), back], 0.5 * thick, dark)


def grid(sheet: Sheet) -> None:
    """A ladder, a fence, a window or a net: bars along and across in a frame, or without one."""
    rng = sheet.rng
    width, height = rng.uniform(0.15, 0.9, 2)
    x0, y0 = 0.5 - width / 2, 0.5 - height / 2
    thick, thin = rng.uniform(0.006, 0.04), rng.uniform(0.004, 0.02)
    across, along = rng.integers(1, 15), rng.integers(0, 14)
    frame, inner = sheet.colour(), sheet.colour()
    for y in np.linspace(y0, y0 + height, across + 2)[1:-1]:
        sheet.bar([(x0, y), (x0 + width, y)], thin, inner)
    for x in np.linspace(x0, x0 + width, along + 2)[1:-1]:
        top = y0 - rng.uniform(0, 0.05) * (rng.random() < 0.3)
        sheet.bar([(x, top), (x, y0 + height)], thin, inner)
    corners = [(x0, y0), (x0 + width, y0), (x0 + width, y0 + height), (x0, y0 + height)]
    sides = [(0, 3), (1, 2), (0, 1), (2, 3)]
    for first, second in sides if rng.random() < 0.7 else sides[:2]:
        sheet.bar([corners[first], corners[second]], thick, frame)


def racket(sheet: Sheet) -> None:
    """A hoop with strings and a handle."""
    rng = sheet.rng
    centre, wide, tall = (0.5, 0.32), rng.uniform(0.15, 0.28), rng.uniform(0.22, 0.3)
    strings, colour = rng.uniform(0.003, 0.009), sheet.colour()
    count = rng.integers(6, 18)
    for one in np.linspace(-1, 1, count + 2)[1:-1]:
        half = np.sqrt(1 - one * one)
        x, y = centre[0] + one * wide, centre[1] + one * tall
        sheet.bar([(x, centre[1] - half * tall), (x, centre[1] + half * tall)], strings, colour)
        sheet.bar([(centre[0] - half * wide, y), (centre[0] + half * wide, y)], strings, colour)
    hoop = _circle((0, 0), 1.0) * [wide, tall] + centre
    thick, paint = rng.uniform(0.012, 0.04), sheet.colour()
    sheet.bar(hoop, thick, paint)
    sheet.bar([(0.5, centre[1] + tall), (0.5, 0.97)], thick * rng.uniform(1, 2), sheet.colour())


def twig(sheet: Sheet) -> None:
    """Branches that fork and taper, some with leaves."""
    rng = sheet.rng
    wood, leaf = sheet.colour(), sheet.colour()
    has_leaves = rng.random() < 0.4
    spread, shrink = rng.uniform(0.25, 0.7), rng.uniform(0.62, 0.82)

    def grow(foot: Points, angle: float, length: float, thick: float, forks: int) -> None:
        bend = rng.normal(0, 0.15)
        knee = _at(foot, length / 2, angle)
        tip = _at(knee, length / 2, angle + bend)
        sheet.bar([foot, knee, tip], thick, wood)
        if not forks:
            if has_leaves:
                blade = _circle((0, 0), 1.0, 12) * [rng.uniform(0.01, 0.03), 0.008]
                sheet.plate(_turn(blade, angle) + tip, leaf)
            return
        for side in rng.choice([-1, 1]) * np.array([1, -1, 0.2])[: rng.integers(2, 4)]:
            turned = angle + side * spread * rng.uniform(0.6, 1.4)
            shorter = length * shrink * rng.uniform(0.8, 1.2)
            grow(tip, turned, shorter, 0.65 * thick, forks - 1)

    root = np.array([0.5, 0.97])
    grow(root, -np.pi / 2, 0.25, rng.uniform(0.015, 0.05), int(rng.integers(3, 6)))


def rope(sheet: Sheet) -> None:
    """One or more smooth lines, with bows or beads on some of them."""
    rng = sheet.rng
    for _ in range(rng.integers(1, 4)):
        line = _curve(rng, int(rng.integers(3, 8)))
        sheet.bar(line, rng.uniform(0.005, 0.03), sheet.colour())
        if rng.random() < 0.4:
            size = rng.uniform(0.015, 0.05)
            paints = [sheet.colour() for _ in range(rng.integers(1, 4))]
            for number, place in enumerate(line[:: int(rng.integers(12, 30))]):
                _bow(sheet, place, size, paints[number % len(paints)])


def kite(sheet: Sheet) -> None:
    """A flat body, and a tail with bows."""
    rng = sheet.rng
    top, middle, low = 0.04, rng.uniform(0.12, 0.2), rng.uniform(0.32, 0.42)
    half = rng.uniform(0.1, 0.2)
    left, right = (0.5 - half, middle), (0.5 + half, middle)
    for side in (left, right):
        sheet.plate(np.array([(0.5, top), side, (0.5, middle)]), sheet.colour())
        sheet.plate(np.array([(0.5, low), side, (0.5, middle)]), sheet.colour())
    steps = np.linspace(0, 1, 80)
    sway = rng.uniform(0.02, 0.1) * np.sin(steps * rng.uniform(4, 12)) * steps
    tail = np.stack([0.5 + sway + rng.uniform(-0.3, 0.3) * steps, low + (0.97 - low) * steps], 1)
    sheet.bar(tail, rng.uniform(0.004, 0.012), sheet.colour())
    size = rng.uniform(0.015, 0.04)
    for place in tail[8 :: int(rng.integers(6, 16))]:
        _bow(sheet, place, size, sheet.colour())


def furniture(sheet: Sheet) -> None:
    """Bars of a box seen in perspective: a chair, a table, a rack, a scaffold."""
    rng = sheet.rng
    wide, deep, tall = rng.uniform(0.3, 1.0, 3)
    levels = np.sort(rng.uniform(0, 1, rng.integers(1, 4)))
    thick, colour = rng.uniform(0.008, 0.04), sheet.colour()
    angle, tilt = rng.uniform(-0.8, 0.8), rng.uniform(0.1, 0.5)

    def see(x: float, y: float, z: float) -> Points:
        x, z = (x - 0.5) * wide, (z - 0.5) * deep
        side, far = x * np.cos(angle) - z * np.sin(angle), x * np.sin(angle) + z * np.cos(angle)
        scale = 0.7 / (1.6 + far)
        return np.array([0.5 + side * scale, 0.5 + ((0.5 - y) * tall - far * tilt) * scale])

    feet = [(0, 0), (1, 0), (1, 1), (0, 1)]
    for x, z in feet:
        sheet.bar([see(x, 0, z), see(x, 1, z)], thick, colour)
    for y in levels:
        for (x, z), (x2, z2) in zip(feet, feet[1:] + feet[:1], strict=True):
            sheet.bar([see(x, y, z), see(x2, y, z2)], thick, colour)
    if rng.random() < 0.6:
        sheet.plate(np.array([see(x, levels[0], z) for x, z in feet]), sheet.colour())
    if rng.random() < 0.4:
        sheet.bar([see(0, levels[0], 0), see(1, 1, 0)], 0.6 * thick, colour)


def web(sheet: Sheet) -> None:
    """Rays, and rings or a spiral across them: a web, an umbrella's ribs, an antenna."""
    rng = sheet.rng
    count, thin = int(rng.integers(5, 14)), rng.uniform(0.003, 0.012)
    colour = sheet.colour()
    reach = rng.uniform(0.3, 0.48, count) if rng.random() < 0.5 else np.full(count, 0.45)
    is_round = rng.random() < 0.5
    angles = np.linspace(0, 2 * np.pi if is_round else np.pi, count, endpoint=not is_round)
    for angle, length in zip(angles, reach, strict=True):
        sheet.bar([(0.5, 0.5), _at((0.5, 0.5), length, angle)], thin, colour)
    for share in np.linspace(0.15, 1, rng.integers(2, 9)):
        ends = [_at((0.5, 0.5), share * r, a) for a, r in zip(angles, reach, strict=True)]
        sheet.bar([*ends, ends[0]] if is_round else ends, thin, colour)


THINGS: dict[str, Callable[[Sheet], None]] = {
    one.__name__: one  # type: ignore[attr-defined]
    for one in (wheel, bicycle, grid, racket, twig, rope, kite, furniture, web)
}


def draw_thing(name: str, rng: np.random.Generator) -> Image.Image:
    """An RGBA cut-out of a kind of thing."""
    sheet = Sheet(rng)
    THINGS[name](sheet)
    return cut_out(sheet)


def cut_out(sheet: Sheet) -> Image.Image:
    """What is on a sheet, in RGBA and cropped, under uneven light and with grain."""
    rng, box = sheet.rng, sheet.alpha.getbbox()
    assert box is not None
    long_side = int(rng.integers(LONG_SIDES[0], LONG_SIDES[1] + 1))
    scale = long_side / max(box[2] - box[0], box[3] - box[1])
    size = tuple(max(round(side * scale), 8) for side in (box[2] - box[0], box[3] - box[1]))
    alpha = np.asarray(sheet.alpha.resize(size, Image.Resampling.BOX, box), dtype=np.float32)
    covered = Image.composite(sheet.colours, Image.new("RGB", (SIDE, SIDE)), sheet.alpha)
    colours = np.asarray(covered.resize(size, Image.Resampling.BOX, box), dtype=np.float32)
    colours /= np.maximum(alpha, 1)[..., None] / 255
    light = gaussian_filter(rng.normal(0, 1, size[::-1]), long_side / 12)
    light = 1 + 0.2 * light / max(np.abs(light).max(), 1e-6)
    grain = rng.normal(0, rng.uniform(0, 8), (*size[::-1], 1))
    colours = np.clip(colours * light[..., None] + grain, 0, 255)
    pixels = np.concatenate([colours, alpha[..., None]], axis=2)
    return Image.fromarray(pixels.round().astype(np.uint8))


def write_pack(path: Path, count: int, seed: int, first: Path | None = None) -> None:
    """Write `count` drawn things, after the items of the pack `first`.

    Raises:
        ValueError: if `count` is not positive, `seed` is negative, or `first` is no pack.
    """
    check_counts({"count": count}, "count", least=1)
    check_counts({"seed": seed}, "seed")
    entries, files = read_items(first) if first else ([], {})
    names = sorted(THINGS)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        picture = draw_thing(name, rng)
        entry = _entry(f"wire_{seed}_{number:04d}", name, picture)
        stream = io.BytesIO()
        picture.save(stream, "WEBP", quality=90, exact=False)
        files[entry["rgba"]] = stream.getvalue()
        entries.append(entry)
    write_items(path, entries, files)


def _entry(name: str, label: str, picture: Image.Image) -> dict[str, Any]:
    alpha = np.asarray(picture)[..., 3] > 127
    area = int(alpha.sum())
    padded = np.pad(alpha, 1)
    edges = int(np.diff(padded, axis=0).sum() + np.diff(padded, axis=1).sum())
    # Steps along pixels are 4 / pi as long as the outline they follow, on the average.
    thin = (edges * np.pi / 4) ** 2 / (4 * np.pi * max(area, 1))
    return {
        "id": name,
        "rgba": f"rgba/{name}.webp",
        "w": picture.width,
        "h": picture.height,
        "source": "drawn",
        "license": "Apache-2.0",
        "license_class": "permissive",
        "label": label,
        "coverage": round(area / alpha.size, 3),
        "thin": round(max(thin, 0.1), 1),
    }


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(int(one * factor), 255) for one in colour)
    return red, green, blue


def _at(centre: Sequence[float] | Points, radius: float, angle: float) -> Points:
    return np.asarray(centre) + radius * np.array([np.cos(angle), np.sin(angle)])


def _circle(centre: Sequence[float], radius: float, count: int = 96) -> Points:
    angles = np.linspace(0, 2 * np.pi, count + 1)
    return np.asarray(centre) + radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _turn(points: Points, angle: float) -> Points:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _curve(rng: np.random.Generator, count: int) -> Points:
    """A smooth line through random places."""
    places = rng.uniform(0.05, 0.95, (count, 2))
    steps = np.linspace(0, count - 1, 40 * count)
    line = np.stack([np.interp(steps, range(count), places[:, axis]) for axis in (0, 1)], 1)
    return gaussian_filter(line, (16, 0), mode="nearest")


def _bow(sheet: Sheet, place: Points, size: float, colour: Colour) -> None:
    angle = sheet.rng.uniform(0, np.pi)
    for turn in (angle, angle + np.pi):
        wing = np.array([(0, 0), (1, 0.5), (1, -0.5)]) * size
        sheet.plate(_turn(wing, turn) + place, colour)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the zip file to write")
    parser.add_argument("--count", type=int, default=160, help="drawn things")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--with", dest="first", type=Path, help="pack whose items come first")
    options = parser.parse_args()
    try:
        write_pack(options.out, options.count, options.seed, options.first)
    except USER_MISTAKES as error:
        raise SystemExit(f"draw_wires: {explain(error)}") from error


if __name__ == "__main__":
    main()
