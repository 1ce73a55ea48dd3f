"""What moves or stands in the meadow: bicycle, ball, kite, and the trunk in the foreground."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from scene.canvas import Array, Canvas, Sprite, noise, polygon_alpha, rgb, smoothstep
from scene.stage import (
    BALL_RADIUS,
    BALL_Z,
    BICYCLE_X,
    BICYCLE_Z,
    HANDLEBAR,
    KITE_Z,
    TRUNK_HALF_WIDTH,
    TRUNK_Z,
    Camera,
    kite_at,
)

KITE, BICYCLE, BALL = 1, 2, 3
"""Object ids of the clip."""

REAR, FRONT, WHEEL = (-0.52, 0.34), (0.54, 0.34), 0.325
CRANK, SEAT, HEAD, FORK = (-0.07, 0.29), (-0.25, 0.79), (0.33, 0.83), (0.37, 0.68)
Point = tuple[float, float]


class Drawing:
    """A canvas in metres for a sprite: origin on the ground in the middle, Y up."""

    def __init__(self, scale: float, width: float, height: float) -> None:
        self.scale, self.left, self.height = scale, -width / 2, height
        self.canvas = Canvas(int((height + 0.05) * scale), int(width * scale), 1)

    def line(self, points: list[Point], radius: float, colour: str, light: float = 1.0) -> None:
        """A round line through `points`, all in metres."""
        pixels = [((x - self.left) * self.scale, (self.height - y) * self.scale) for x, y in points]
        self.canvas.stroke(pixels, radius * self.scale, rgb(colour) * light, object_id=1)

    def tube(self, points: list[Point], radius: float, colour: str) -> None:
        """A line with a dark underside and a highlight along its top."""
        self.line(points, radius, colour, 0.45)
        self.line([(x - 0.002, y + radius * 0.3) for x, y in points], radius * 0.62, colour)
        self.line([(x - 0.003, y + radius * 0.5) for x, y in points], radius * 0.2, "f3e4df", 0.4)

    def sprite(self) -> Sprite:
        """What was drawn."""
        return Sprite(self.canvas.light, self.canvas.visible[0])


def circle(centre: Point, radius: float, steps: int = 72) -> list[Point]:
    """A closed polygon around `centre`."""
    turns = np.linspace(0, 2 * np.pi, steps + 1)
    x, y = centre
    return [(x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in turns]


def build_bicycle(scale: float) -> Sprite:
    """A parked bicycle, `scale` pixels to a metre."""
    draw = Drawing(scale, 2.0, 1.15)
    draw_stand_and_chain(draw)
    for hub in (REAR, FRONT):
        draw_wheel(draw, hub)
    paint = "b3261e"
    draw.tube([REAR, CRANK], 0.011, paint)
    draw.tube([REAR, (SEAT[0] + 0.02, SEAT[1] - 0.06)], 0.010, paint)
    draw.tube([CRANK, SEAT], 0.016, paint)
    draw.tube([CRANK, FORK], 0.018, paint)
    draw.tube([(SEAT[0] + 0.02, SEAT[1] - 0.05), HEAD], 0.016, paint)
    draw.tube([HEAD, FORK, (0.40, 0.58), (0.47, 0.42), FRONT], 0.014, paint)
    draw.tube([HEAD, (0.315, 0.91), (0.28, 0.93)], 0.011, "9aa0a4")
    bar = HANDLEBAR
    draw.tube([(0.28, 0.93), (bar[0] + 0.06, bar[1] - 0.02), (bar[0], bar[1])], 0.011, "9aa0a4")
    draw.tube([bar, (0.22, 1.0), (0.13, 0.965)], 0.017, "2b2724")
    draw.tube([SEAT, (-0.275, 0.88)], 0.011, "9aa0a4")
    draw.tube([(-0.41, 0.905), (-0.33, 0.895), (-0.20, 0.90), (-0.14, 0.895)], 0.026, "3a2a20")
    draw.line([CRANK, (-0.14, 0.16)], 0.010, "8a8f92")
    draw.line([(-0.19, 0.155), (-0.09, 0.155)], 0.013, "2a2a2a")
    return draw.sprite()


def draw_wheel(draw: Drawing, hub: Point) -> None:
    """Tyre, rim and crossed spokes around `hub`."""
    for k in range(18):
        start = 2 * np.pi * k / 18
        end = start + (0.55 if k % 2 else -0.55)
        near = (hub[0] + 0.02 * float(np.cos(end)), hub[1] + 0.02 * float(np.sin(end)))
        far = (hub[0] + 0.30 * float(np.cos(start)), hub[1] + 0.30 * float(np.sin(start)))
        draw.line([near, far], 0.0033, "c9ced2")
    draw.line(circle(hub, WHEEL - 0.022), 0.008, "b9bfc4")
    draw.line(circle(hub, WHEEL - 0.004), 0.017, "1d1c1b")
    draw.line(circle(hub, WHEEL - 0.001)[6:32], 0.005, "5b5855")
    draw.line(circle(hub, 0.015, 12), 0.012, "8f9498")
    arc = circle(hub, WHEEL + 0.035)
    draw.tube(arc[8:44] if hub == REAR else arc[4:30], 0.010, "22303c")


def draw_stand_and_chain(draw: Drawing) -> None:
    """What lies behind the frame."""
    draw.line([(-0.30, 0.32), (-0.20, 0.02)], 0.011, "6d7276")
    draw.line([(-0.14, 0.02), (-0.23, 0.02)], 0.009, "6d7276")
    draw.line(circle(CRANK, 0.085, 32), 0.012, "55595c")
    for side in (0.045, -0.045):
        ends = [(REAR[0], REAR[1] + side * 0.7), (CRANK[0], CRANK[1] + side * 1.8)]
        draw.line(ends, 0.006, "403c38")
    draw.tube([(-0.75, 0.74), (-0.28, 0.745)], 0.010, "2c2c2c")
    draw.line([(-0.70, 0.73), REAR], 0.008, "3a3a3a")


def paste_bicycle(canvas: Canvas, camera: Camera, sprite: Sprite) -> None:
    """Stand the bicycle on its place."""
    x, y = camera.project(BICYCLE_X - 1.0, 1.15, BICYCLE_Z)
    canvas.paste(sprite, y, x, BICYCLE)


def paste_ball(canvas: Canvas, camera: Camera, x: float, y: float, turn: float) -> None:
    """A beach ball with its centre at (x, y), turned clockwise by `turn` radians."""
    radius = BALL_RADIUS * camera.scale(BALL_Z)
    column, row = camera.project(x, y, BALL_Z)
    left, top = int(column - radius) - 2, int(row - radius) - 2
    size = int(2 * radius) + 5
    ys, xs = np.mgrid[top : top + size, left : left + size].astype(np.float32)
    nx, ny = (xs - column) / radius, (ys - row) / radius
    distance = np.hypot(nx, ny)
    nz = np.sqrt(np.clip(1 - distance**2, 0, 1))
    alpha = np.clip((1 - distance) * radius + 0.5, 0, 1)
    colour = ball_skin(nx, ny, nz, turn) * ball_light(nx, ny, nz)[..., None]
    shine = np.clip(-0.42 * nx - 0.62 * ny + 0.66 * nz, 0, 1) ** 60
    colour = colour + 0.55 * shine[..., None]
    canvas.paste(Sprite((colour * alpha[..., None]).astype(np.float32), alpha), top, left, BALL)


def ball_skin(nx: Array, ny: Array, nz: Array, turn: float) -> Array:
    """Colours of the panels for surface normals: [H, W, 3]."""
    cos, sin = np.cos(turn), np.sin(turn)
    bx, by = cos * nx + sin * ny, -sin * nx + cos * ny
    tilt = 0.95
    py, pole = by * np.cos(tilt) + nz * np.sin(tilt), nz * np.cos(tilt) - by * np.sin(tilt)
    panel = np.floor((np.arctan2(py, bx) / (2 * np.pi) + 0.5) * 6).astype(int) % 6
    white = "f1efe8"
    palette = np.stack([rgb(c) for c in ("e9b320", white, "1f66b5", white, "d23b2e", white)])
    cap = (np.abs(pole) > 0.965)[..., None]
    return np.where(cap, rgb(white), palette[panel]).astype(np.float32)


def ball_light(nx: Array, ny: Array, nz: Array) -> Array:
    """Sun from the upper left, sky from above, grass from below: [H, W]."""
    sun = np.clip(-0.55 * nx - 0.62 * ny + 0.56 * nz, 0, 1)
    return 0.18 + 0.14 * (1 - ny) + 0.72 * sun


def paste_kite(canvas: Canvas, camera: Camera, time: float) -> None:
    """String, tail and sail of the kite at `time`."""
    scale = camera.scale(KITE_Z)
    x, y, lean = kite_at(time)
    centre = np.array(camera.project(x, y, KITE_Z))
    turn = np.array([[np.cos(lean), np.sin(lean)], [-np.sin(lean), np.cos(lean)]])
    shape = np.array([(0, 0.68), (0.56, 0.16), (0, -0.82), (-0.56, 0.16), (0, 0.16)])
    corners = (shape @ turn) * (scale, -scale) + centre
    paste_string(canvas, camera, corners[4], time)
    paste_tail(canvas, corners[2], scale, time)
    paste_sail(canvas, corners, scale)


def paste_string(canvas: Canvas, camera: Camera, bridle: Array, time: float) -> None:
    """The string from the handlebar to the kite; it belongs to no object."""
    hand = np.array(camera.project(BICYCLE_X + HANDLEBAR[0], HANDLEBAR[1], BICYCLE_Z))
    along = np.linspace(0, 1, 24)[:, None]
    sag = (0.05 + 0.008 * np.sin(14 * time)) * camera.height * 4 * along * (1 - along)
    path = hand + (bridle - hand) * along + sag * (0.35, 1.0)
    canvas.stroke(path, 0.32 * camera.width / 960, rgb("efeee8"))


def paste_tail(canvas: Canvas, root: Array, scale: float, time: float) -> None:
    """A ribbon with bows that waves behind the kite."""
    s = np.linspace(0, 1, 56)
    wave = s**0.8 * 0.34 * np.sin(9.5 * s - 21 * time)
    x = -1.15 * s**1.3 + wave * 0.55
    y = -2.3 * s**0.9 + 0.55 * s**2 + wave * 0.4
    path = np.stack([root[0] + x * scale, root[1] - y * scale], axis=1)
    light = rgb("e8542f")
    canvas.stroke(path, scale * 0.036, light, object_id=KITE)
    for k in range(7, 56, 8):
        step = path[k] - path[k - 1]
        side = np.array([-step[1], step[0]]) / max(float(np.hypot(*step)), 1e-6) * scale * 0.17
        tint = rgb("f3c22b" if k % 16 == 7 else "2c6cb8")
        for sign in (1, -1):
            bow = path[k] + np.linspace(0, 1, 4)[:, None] * (side * sign + step * 0.8)
            canvas.stroke(bow, scale * np.array([0.03, 0.05, 0.075, 0.075]), tint, object_id=KITE)


def paste_sail(canvas: Canvas, corners: Array, scale: float) -> None:
    """Four panels of cloth, two spars."""
    low = np.floor(corners.min(0)).astype(int) - 2
    width, height = np.ceil(corners.max(0)).astype(int) + 3 - low
    local = corners - low
    colour = np.zeros((height, width, 3), np.float32) + rgb("d8382b")
    cloths = (("d8382b", 1.0), ("f0b429", 0.9), ("c23227", 0.8), ("f4c23c", 1.12))
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    for k, (code, light) in enumerate(cloths):
        panel = [local[k], local[(k + 1) % 4], local[4]]
        part = polygon_alpha(height, width, panel)[..., None]
        bulge = np.hypot(xs - local[4][0], ys - local[4][1]) / (scale * 0.9)
        cloth = rgb(code) * (light * (1.05 - 0.32 * bulge))[..., None]
        colour = colour * (1 - part) + cloth * part
    alpha = polygon_alpha(height, width, local[:4])
    canvas.paste(
        Sprite((colour * alpha[..., None]).astype(np.float32), alpha), low[1], low[0], KITE
    )
    for a, b in ((0, 2), (3, 1)):
        canvas.stroke([corners[a], corners[b]], scale * 0.014, rgb("5a2a1c"), object_id=KITE)


def build_trunk(rng: np.random.Generator, camera: Camera) -> Sprite:
    """The trunk of an old tree, taller than the picture and a little out of focus."""
    scale = camera.scale(TRUNK_Z)
    half = TRUNK_HALF_WIDTH * scale
    width, height = int(3.2 * half), int(camera.height * 1.15)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    bend = gaussian_filter(noise(rng, height, 4, 1.8)[:, 0], scale * 0.12) * half * 0.09
    flare = smoothstep(0.72, 1.1, ys / height) * 0.22 + 0.05 * (ys / height)
    edge = gaussian_filter(noise(rng, height, width, 0.8), scale * 0.006) * 0.03
    u = (xs - width / 2 - bend[:, None]) / (half * (0.92 + flare)) + edge
    alpha = smoothstep(1.0 + 1.2 / half, 1.0 - 1.2 / half, np.abs(u))
    colour = bark(rng, u, ys / scale) * trunk_light(u)[..., None]
    soft = 0.0012 * camera.width
    premultiplied = gaussian_filter(colour * alpha[..., None], (soft, soft, 0))
    return Sprite(premultiplied.astype(np.float32), gaussian_filter(alpha, soft))


def bark(rng: np.random.Generator, u: Array, y: Array) -> Array:
    """Colour of bark at `u` (-1 to 1 across) and `y` metres: [H, W, 3]."""
    around = np.arcsin(np.clip(u, -1, 1))
    field = noise(rng, 512, 512, 1.05)
    fine = map_coordinates(field, [y * 60, around * 120 + 60], order=1, mode="wrap")
    wander = map_coordinates(field, [y * 22 + 99, around * 26], order=1, mode="wrap")
    ridges = np.abs(np.sin(around * 13 + 1.9 * wander + 0.5 * fine))
    crack = smoothstep(0.42, 0.05, ridges + 0.16 * fine)
    moss = smoothstep(0.3, 1.6, wander)[..., None] * 0.35
    base = rgb("8a7661") * (1 + 0.22 * fine)[..., None]
    base = base * (1 - moss) + rgb("76803f") * moss
    return np.clip(base * (1 - 0.72 * crack)[..., None], 0.004, 1)


def trunk_light(u: Array) -> Array:
    """A round column lit from the left: [H, W]."""
    facing = np.sqrt(np.clip(1 - u * u, 0, 1))
    return 0.16 + 0.95 * np.clip(0.62 * facing - 0.66 * u, 0, 1) + 0.12 * facing
