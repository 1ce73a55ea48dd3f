"""One frame of the clip: all from far to near, while the shutter is open, then developed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scene.canvas import Array, Canvas, Sprite, smoothstep, to_srgb
from scene.landscape import GrassRow, grow_meadow, paint_ridge, paint_sky
from scene.stage import (
    BALL_RADIUS,
    BALL_Z,
    BICYCLE_X,
    BICYCLE_Z,
    SUN,
    TRUNK_X,
    TRUNK_Z,
    Camera,
    ball_at,
    camera_at,
)
from scene.things import build_bicycle, build_trunk, paste_ball, paste_bicycle, paste_kite

OBJECTS = {1: "kite", 2: "bicycle", 3: "ball"}
SUPERSAMPLING = 2
SHUTTER_STEPS = 4
SHUTTER = 0.45
"""Part of a frame's time during which the shutter is open."""


@dataclass(frozen=True)
class Scenery:
    """What is painted once and only pasted for each frame."""

    sky: Sprite
    ridges: list[tuple[float, Sprite]]
    meadow: list[GrassRow]
    bicycle: Sprite
    trunk: Sprite


def build_scenery(seed: int, height: int, width: int) -> Scenery:
    """Paint the scenery for frames of `height` x `width` pixels."""
    camera = Camera(height * SUPERSAMPLING, width * SUPERSAMPLING)
    rng = np.random.default_rng(seed)
    top = int(camera.horizon * 1.08)
    wide = int(camera.width * 1.25)
    sky = paint_sky(rng, top, wide)
    near, middle, far = ((int(camera.height * part), wide) for part in (0.17, 0.18, 0.20))
    ridges = [
        (0.035, paint_ridge(rng, far, "8fa9b4", rise=0.50, rough=1.5, relief=0.15)),
        (0.07, paint_ridge(rng, middle, "6f8f86", rise=0.42, rough=1.3, relief=0.35)),
        (0.20, paint_ridge(rng, near, "4a6438", rise=0.60, rough=0.8, relief=1.0)),
    ]
    bicycle = build_bicycle(camera.scale(BICYCLE_Z))
    meadow = [shade_by_bicycle(row, bicycle, camera) for row in grow_meadow(rng, camera)]
    trunk = build_trunk(rng, camera)
    return Scenery(Sprite(sky, np.ones(sky.shape[:2], np.float32)), ridges, meadow, bicycle, trunk)


def shade_by_bicycle(row: GrassRow, bicycle: Sprite, camera: Camera) -> GrassRow:
    """The row with the bicycle's shadow on it."""
    height = (row.z - BICYCLE_Z) / SUN[1]
    scale = camera.scale(BICYCLE_Z)
    line = int(bicycle.alpha.shape[0] - (height + 0.05) * scale)
    if height < 0 or line < 0:
        return row
    soft = gaussian_filter(bicycle.alpha, (0.03 * scale, 0.012 * scale))[line]
    left = BICYCLE_X - bicycle.alpha.shape[1] / scale / 2 + SUN[0] * height
    columns = row.left + np.arange(row.sprite.alpha.shape[1]) / camera.scale(row.z)
    dark = np.interp(columns, left + np.arange(len(soft)) / scale, soft, 0, 0)
    return darken(row, 1 - 0.6 * dark)


def shade_by_ball(row: GrassRow, camera: Camera, x: float, y: float) -> GrassRow:
    """The row with the shadow of the ball at (x, y) on it."""
    height = (row.z - BALL_Z) / SUN[1]
    if not -0.6 < height < 2.0:
        return row
    columns = row.left + np.arange(row.sprite.alpha.shape[1]) / camera.scale(row.z)
    away = np.hypot(columns - x - SUN[0] * height, height - y)
    cast = 0.55 * smoothstep(1.25, 0.75, away / BALL_RADIUS)
    contact = 0.5 * np.exp(-(((columns - x) / 0.2) ** 2) - ((row.z - BALL_Z) / 0.14) ** 2)
    return darken(row, (1 - cast) * (1 - contact * np.exp(-8 * (y - BALL_RADIUS))))


def darken(row: GrassRow, light: NDArray[np.floating]) -> GrassRow:
    """The row with `light` [W] left of its light."""
    colour = row.sprite.colour * light.astype(np.float32)[None, :, None]
    return replace(row, sprite=Sprite(colour, row.sprite.alpha))


def render_instant(scenery: Scenery, time: float, height: int, width: int) -> Canvas:
    """Light and coverage at one moment, at the supersampled size."""
    camera = camera_at(time, height * SUPERSAMPLING, width * SUPERSAMPLING)
    canvas = Canvas(camera.height, camera.width, len(OBJECTS))
    paste_background(canvas, camera, scenery, time)
    x, y, turn = ball_at(time)
    actors = [
        (BALL_Z, lambda: paste_ball(canvas, camera, x, y, turn)),
        (BICYCLE_Z + 0.01, lambda: paste_kite(canvas, camera, time)),
        (BICYCLE_Z, lambda: paste_bicycle(canvas, camera, scenery.bicycle)),
        (TRUNK_Z, lambda: paste_trunk(canvas, camera, scenery.trunk)),
    ]
    for row in scenery.meadow:
        while actors and row.z < actors[0][0]:
            actors.pop(0)[1]()
        paste_row(canvas, camera, shade_by_ball(row, camera, x, y))
    return canvas


def paste_background(canvas: Canvas, camera: Camera, scenery: Scenery, time: float) -> None:
    """Sky and ridges; the farther, the less they move."""
    spare = scenery.sky.alpha.shape[1] - camera.width
    drift = (0.35 + 0.02 * camera.x - 0.25 * time) * spare
    shake_x, shake_y = camera.shake
    canvas.paste(scenery.sky, shake_y - 0.02 * camera.height, -drift + shake_x)
    base = camera.horizon + 0.06 * camera.height + shake_y
    for motion, ridge in scenery.ridges:
        left = (camera.width - ridge.alpha.shape[1]) / 2 - camera.x * motion * camera.width * 0.25
        canvas.paste(ridge, base - ridge.alpha.shape[0], left + shake_x)


def paste_row(canvas: Canvas, camera: Camera, row: GrassRow) -> None:
    """Put a row of grass on the ground."""
    left, ground = camera.project(row.left, 0.0, row.z)
    canvas.paste(row.sprite, ground - row.feet, left)


def paste_trunk(canvas: Canvas, camera: Camera, trunk: Sprite) -> None:
    """Stand the trunk in front, from above the picture to its foot in the grass."""
    middle, _ = camera.project(TRUNK_X, 0.0, TRUNK_Z)
    top = -0.05 * camera.height + camera.shake[1]
    canvas.paste(trunk, top, middle - trunk.alpha.shape[1] / 2)


def render_frame(
    scenery: Scenery, seed: int, index: int, frames: int, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frame `index` of `frames`: picture [height, width, 3] and id map [height, width]."""
    light = np.zeros((height, width, 3), np.float32)
    visible = np.zeros((len(OBJECTS), height, width), np.float32)
    for step in range(SHUTTER_STEPS):
        time = (index + SHUTTER * step / SHUTTER_STEPS) / max(frames - 1, 1)
        canvas = render_instant(scenery, time, height, width)
        light += shrink(canvas.light) / SHUTTER_STEPS
        visible += np.stack([shrink(cover) for cover in canvas.visible]) / SHUTTER_STEPS
    ids = np.where(visible.max(0) > 0.5, visible.argmax(0) + 1, 0).astype(np.uint8)
    return develop(light, np.random.default_rng([seed, index])), ids


def shrink(pixels: Array) -> Array:
    """Mean over squares of `SUPERSAMPLING` pixels."""
    height, width = (n // SUPERSAMPLING for n in pixels.shape[:2])
    shape = (height, SUPERSAMPLING, width, SUPERSAMPLING, *pixels.shape[2:])
    return pixels.reshape(shape).mean((1, 3))


def develop(light: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
    """From linear light to a picture: vignette, a little glow, contrast, grain."""
    height, width = light.shape[:2]
    ys, xs = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = light * (1 - 0.13 * (xs**2 + 0.8 * ys**2))[..., None].astype(np.float32)
    glow = gaussian_filter(np.clip(light - 0.7, 0, None), (width / 120, width / 120, 0))
    picture = to_srgb(light * 1.08 + 0.5 * glow)
    picture = picture + 0.10 * (smoothstep(0, 1, picture) - picture)
    grain = gaussian_filter(rng.standard_normal((height, width)), 0.55)[..., None]
    picture = picture + grain * 0.016 * (1.15 - picture)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
