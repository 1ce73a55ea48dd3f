"""What stands still: sky, hills, trees on the horizon, and a meadow of many rows of grass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

from scene.canvas import Array, Sprite, noise, rgb, smoothstep, to_linear
from scene.stage import (
    EYE_HEIGHT,
    FARTHEST,
    NEAREST,
    SUN,
    TRAVEL,
    TRUNK_HALF_WIDTH,
    TRUNK_X,
    TRUNK_Z,
    Camera,
)


def paint_sky(rng: np.random.Generator, height: int, width: int) -> Array:
    """A summer sky, [height, width, 3]: clouds that shrink towards the horizon at the last row."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    depth = 1 / (1.12 - ys / height)
    plane = noise(rng, 1024, 1024, 1.75)
    u = (xs / width - 0.5) * depth * 330 + 500
    v = depth * 210
    density, ahead = (
        map_coordinates(plane, [v + d * 0.6, u - d], order=1, mode="wrap") for d in (0.0, 14.0)
    )
    cloud = smoothstep(0.05, 1.15, density)
    lit = np.clip(0.86 + 0.22 * (density - ahead), 0.55, 1.12)[..., None]
    low = (ys / height)[..., None]
    blue = rgb("3f7cc4") * (1 - low) + rgb("b9d6ea") * low
    white = rgb("fbfaf6") * lit + rgb("6f819c") * (1.05 - lit) * 0.6
    cover = (cloud * (1 - 0.35 * low[..., 0]))[..., None]
    return (blue * (1 - cover) + white * cover).astype(np.float32)


def paint_ridge(
    rng: np.random.Generator,
    size: tuple[int, int],
    colour: str,
    *,
    rise: float,
    rough: float,
    relief: float,
) -> Sprite:
    """A row of hills or trees of `size` (height, width), lit from the left.

    rise: its height as a part of the sprite's; rough: of the outline, as in `noise`; relief: how
    much light and shade differ on it.
    """
    height, width = size
    profile = gaussian_filter(noise(rng, 4, width, rough)[0], 0.7)
    crown = height * (1 - rise * (0.72 + 0.16 * profile))
    rows = np.arange(height, dtype=np.float32)[:, None]
    alpha = np.clip(rows - crown[None, :] + 0.5, 0, 1).astype(np.float32)
    leaves = noise(rng, height, width, 0.75)
    light = leaves - np.roll(leaves, (2, 2), (0, 1))
    shade = np.clip(1 + relief * (0.12 * leaves + 0.18 * light), 0.45, 1.7)
    shade = shade * (1.1 - 0.45 * (rows - crown[None, :]) / height)
    tint = rgb(colour) * shade[..., None]
    return Sprite((tint * alpha[..., None]).astype(np.float32), alpha)


@dataclass(frozen=True)
class GrassRow:
    """Blades at one depth; the sprite begins at `left` metres, its ground is pixel row `feet`."""

    z: float
    left: float
    feet: float
    sprite: Sprite


def grow_meadow(rng: np.random.Generator, camera: Camera) -> list[GrassRow]:
    """Rows of grass from far to near, evenly spaced on the screen."""
    first, last = (EYE_HEIGHT * camera.scale(z) for z in (FARTHEST, NEAREST))
    count = max(8, round((last - first) / (camera.height / 270 * 1.9)))
    ground = noise(rng, 512, 512, 1.3)
    drops = np.linspace(first, last, count)
    gap = float(drops[1] - drops[0])
    return [grow_row(rng, camera, EYE_HEIGHT * camera.focal / drop, gap, ground) for drop in drops]


def grow_row(
    rng: np.random.Generator, camera: Camera, z: float, gap: float, ground: Array
) -> GrassRow:
    """One row of grass at depth `z`; its soil reaches `gap` pixels down to the next row."""
    scale = camera.scale(z)
    half = camera.width / 2 / scale + TRAVEL + 0.1
    width = int(2 * half * scale)
    tall = max(2.0, 0.17 * scale)
    height = int(tall + 2 * gap) + 2
    feet = tall + 1
    xs = np.linspace(-half, half, width, dtype=np.float32)
    patch = map_coordinates(ground, [np.full(width, z * 14.0), xs * 22.0], order=1, mode="wrap")
    colour, alpha = draw_blades(rng, height, width, feet, tall, patch)
    rows = np.arange(height, dtype=np.float32)[:, None]
    up = np.clip((feet - rows) / tall, 0, 1)
    haze = float(smoothstep(6, 55, z)) * 0.55
    light = (0.5 + 0.75 * up) * (1 - haze) + haze
    colour = colour * light[..., None] * shadow_of_trunk(xs, z)[None, :, None]
    colour = colour * (1 - haze) + rgb("9db38f") * haze
    return GrassRow(z, -half, feet, Sprite((colour * alpha[..., None]).astype(np.float32), alpha))


def draw_blades(
    rng: np.random.Generator, height: int, width: int, feet: float, tall: float, patch: Array
) -> tuple[Array, Array]:
    """Colour [H, W, 3] and coverage [H, W] of soil and blades, dry where `patch` [W] is high."""
    soil = np.array([58, 82, 34]) + patch[:, None] * [9, 5, 3]
    canvas = np.zeros((height, width, 4), np.uint8)
    canvas[..., :3] = np.clip(soil, 0, 255)[None]
    canvas[int(feet - 0.35 * tall) :, :, 3] = 255
    image = Image.fromarray(canvas, "RGBA")
    pen = ImageDraw.Draw(image)
    thick = max(1, round(tall / 26))
    for x in rng.permutation(np.linspace(0, width - 1, int(width * 0.85 / thick))):
        dry = 0.5 + 0.28 * patch[int(x)] + 0.22 * rng.standard_normal()
        green = np.array([92, 128, 46]) * (1 - dry) + np.array([150, 152, 78]) * dry
        green = green * rng.uniform(0.72, 1.16)
        top = tall * rng.beta(3, 2.2) * (1 + 0.12 * patch[int(x)])
        lean = top * rng.normal(0.1, 0.3)
        base = feet - rng.uniform(0, 0.25) * tall
        tip = (x + lean, base - top * 0.95)
        middle = (x + lean * 0.35, base - top * 0.55)
        ink = (*(int(c) for c in np.clip(green, 0, 255)), 255)
        pen.line([(x, base + 1), middle], ink, thick)
        pen.line([middle, tip], ink, max(1, thick - 1))
        if rng.random() < 0.006 and tall > 4:
            size = tall * 0.045
            petal = (236, 232, 214, 255) if rng.random() < 0.6 else (226, 186, 60, 255)
            pen.ellipse([tip[0] - size, tip[1] - size, tip[0] + size, tip[1] + size], petal)
    pixels = (np.asarray(image) / 255).astype(np.float32)
    return to_linear(pixels[..., :3]), pixels[..., 3]


def shadow_of_trunk(xs: Array, z: float) -> Array:
    """Light left by the trunk in the foreground at columns `xs` [W] of depth `z`."""
    reach = (z - TRUNK_Z) / SUN[1]
    if reach < 0:
        return np.ones_like(xs)
    soft = 0.05 + 0.04 * reach
    edge = np.abs(xs - TRUNK_X - SUN[0] * reach) - TRUNK_HALF_WIDTH
    return 1 - 0.55 * smoothstep(soft, -soft, edge)
