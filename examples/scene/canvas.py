"""Layers of light: an anti-aliased canvas that knows how much of each object is left visible.

Colours are linear light, [H, W, 3]; alpha is coverage, 0 to 1. New paint covers the old.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]


def rgb(code: str) -> Array:
    """Linear light of a colour written as `rrggbb` in sRGB: [3]."""
    srgb = np.array([int(code[k : k + 2], 16) for k in (0, 2, 4)], np.float32) / 255
    return to_linear(srgb)


def to_linear(srgb: NDArray[np.floating]) -> Array:
    """From sRGB values in [0, 1] to linear light, any shape."""
    curve = ((srgb + 0.055) / 1.055) ** 2.4
    return np.where(srgb <= 0.04045, srgb / 12.92, curve).astype(np.float32)


def to_srgb(linear: Array) -> Array:
    """From linear light to sRGB values in [0, 1], any shape; bright light is cut."""
    x = np.clip(linear, 0, 1)
    return np.where(x <= 0.0031308, x * 12.92, 1.055 * x ** (1 / 2.4) - 0.055).astype(np.float32)


def smoothstep(low: float, high: float, x: ArrayLike) -> Array:
    """0 below `low`, 1 above `high`, a smooth ramp between; falls if `high < low`."""
    t = np.clip((np.asarray(x, np.float32) - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def noise(rng: np.random.Generator, height: int, width: int, roughness: float) -> Array:
    """Periodic fractal noise, [height, width], mean 0 and deviation 1.

    roughness: exponent of the amplitude spectrum; 1 is grainy, 2 is soft.
    """
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency**roughness
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (height, width))
    return (field / (field.std() + 1e-9)).astype(np.float32)


@dataclass(frozen=True)
class Sprite:
    """A picture with holes. colour: [H, W, 3] linear light, times alpha; alpha: [H, W]."""

    colour: Array
    alpha: Array

    def shifted(self, dy: float, dx: float) -> Sprite:
        """The sprite moved by a fraction of a pixel (0 to 1) down and right, one pixel larger."""
        rgba = np.concatenate([self.colour, self.alpha[..., None]], axis=-1)
        rgba = np.pad(rgba, ((1, 1), (1, 1), (0, 0)))
        rows = rgba[1:] * (1 - dy) + rgba[:-1] * dy
        both = (rows[:, 1:] * (1 - dx) + rows[:, :-1] * dx).astype(np.float32)
        return Sprite(both[..., :3], both[..., 3])


class Canvas:
    """Owns the light and, for each object id from 1, the coverage that is still visible."""

    def __init__(self, height: int, width: int, objects: int) -> None:
        self.light = np.zeros((height, width, 3), np.float32)
        self.visible = np.zeros((objects, height, width), np.float32)

    def paste(self, sprite: Sprite, top: float, left: float, object_id: int = 0) -> None:
        """Cover with a sprite whose corner is at (top, left), in pixels, fractions allowed."""
        y, x = int(np.floor(top)), int(np.floor(left))
        sprite = sprite.shifted(top - y, left - x)
        height, width = self.light.shape[:2]
        y0, y1 = max(y, 0), min(y + sprite.alpha.shape[0], height)
        x0, x1 = max(x, 0), min(x + sprite.alpha.shape[1], width)
        if y0 >= y1 or x0 >= x1:
            return
        window = (slice(y0, y1), slice(x0, x1))
        part = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
        alpha = sprite.alpha[part]
        self.light[window] = self.light[window] * (1 - alpha[..., None]) + sprite.colour[part]
        self.visible[(slice(None), *window)] *= 1 - alpha
        if object_id:
            self.visible[(object_id - 1, *window)] += alpha

    def stroke(
        self, points: ArrayLike, radius: ArrayLike, colour: Array, *, object_id: int = 0
    ) -> None:
        """Draw a round line of `radius` pixels (one or [P]) through `points` [P, 2], x and y."""
        path = np.asarray(points, np.float32)
        radii = np.broadcast_to(np.asarray(radius, np.float32), (len(path),))
        margin = float(radii.max()) + 1
        x0, y0 = np.floor(path.min(0) - margin).astype(int)
        x1, y1 = np.ceil(path.max(0) + margin).astype(int) + 1
        alpha = np.zeros((y1 - y0, x1 - x0), np.float32)
        for k in range(len(path) - 1):
            stroke_segment(alpha, path[k] - (x0, y0), path[k + 1] - (x0, y0), radii[k])
        self.paste(Sprite(alpha[..., None] * colour, alpha), float(y0), float(x0), object_id)


def stroke_segment(alpha: Array, start: Array, end: Array, radius: float) -> None:
    """Raise `alpha` [H, W], in place, to the coverage of a round line between two (x, y)."""
    low = np.floor(np.minimum(start, end) - radius - 1).astype(int).clip(0)
    high = np.ceil(np.maximum(start, end) + radius + 1).astype(int) + 1
    window = alpha[low[1] : high[1], low[0] : high[0]]
    ys, xs = np.mgrid[low[1] : low[1] + window.shape[0], low[0] : low[0] + window.shape[1]]
    dx, dy = end - start
    along = ((xs - start[0]) * dx + (ys - start[1]) * dy) / max(dx * dx + dy * dy, 1e-6)
    along = np.clip(along, 0, 1)
    distance = np.hypot(xs - start[0] - along * dx, ys - start[1] - along * dy)
    # A line thinner than a pixel keeps its width and loses coverage.
    strength = min(1.0, 2 * radius)
    np.maximum(window, np.clip(max(radius, 0.5) + 0.5 - distance, 0, 1) * strength, out=window)


def polygon_alpha(height: int, width: int, corners: ArrayLike) -> Array:
    """Coverage [height, width] of a convex polygon; `corners` [P, 2] are clockwise on screen."""
    points = np.asarray(corners, np.float32)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    inside = np.full((height, width), np.inf, np.float32)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, axis=0), strict=True):
        length = max(float(np.hypot(bx - ax, by - ay)), 1e-6)
        inside = np.minimum(inside, ((bx - ax) * (ys - ay) - (by - ay) * (xs - ax)) / length)
    return np.clip(inside + 0.5, 0, 1)
