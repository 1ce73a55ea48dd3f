"""Where everything stands and moves. World: X right, Y up, Z away from the camera, in metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EYE_HEIGHT = 1.3
TRAVEL = 1.0
"""The camera goes from X = -TRAVEL to X = TRAVEL."""
SUN = (0.8, 0.55)
"""Where shadows fall: metres right and metres away for each metre of height."""
NEAREST, FARTHEST = 2.9, 42.0
"""First and last row of grass."""

TRUNK_X, TRUNK_Z, TRUNK_HALF_WIDTH = 0.66, 3.2, 0.29
BICYCLE_X, BICYCLE_Z = -0.62, 5.0
BALL_Z, BALL_RADIUS = 6.4, 0.26
KITE_Z = 11.0
HANDLEBAR = (0.30, 1.0)
"""X and Y from the point on the ground between the wheels; the kite is tied there."""


@dataclass(frozen=True)
class Camera:
    """Size of the picture and shake in pixels, `x` in metres. A pinhole that rolls sideways."""

    height: int
    width: int
    x: float = 0.0
    shake: tuple[float, float] = (0.0, 0.0)

    @property
    def focal(self) -> float:
        """Focal length in pixels: about 60 degrees from left to right."""
        return self.width * 0.875

    @property
    def horizon(self) -> float:
        """Row of the horizon without shake, in pixels."""
        return self.height * 0.45

    def scale(self, z: float) -> float:
        """Pixels to a metre at depth `z`."""
        return self.focal / z

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Pixel (x, y) of a point of the world."""
        scale = self.scale(z)
        column = self.width / 2 + (x - self.x) * scale + self.shake[0]
        return column, self.horizon + (EYE_HEIGHT - y) * scale + self.shake[1]


def camera_at(time: float, height: int, width: int) -> Camera:
    """The camera at `time` (0 to 1 over the clip): an even pan, held by hand."""
    pixel = width / 480
    shake_x = 1.1 * np.sin(9.1 * time + 0.3) + 0.5 * np.sin(23.0 * time)
    shake_y = 0.9 * np.sin(11.7 * time + 1.0) + 0.4 * np.sin(27.0 * time)
    pan = time + 0.03 * np.sin(2 * np.pi * time)
    return Camera(
        height, width, TRAVEL * (2 * pan - 1), (float(shake_x) * pixel, float(shake_y) * pixel)
    )


def ball_at(time: float) -> tuple[float, float, float]:
    """X and Y of the ball's centre, and its turn in radians: it hops, then rolls."""
    x = -3.25 + 5.3 * time - 0.35 * time * time
    hop = 0.55 * np.exp(-2.6 * time) * abs(np.sin(np.pi * (3.4 * time + 0.35)))
    return float(x), BALL_RADIUS + 0.02 + float(hop), (x + 3.25) / BALL_RADIUS


def kite_at(time: float) -> tuple[float, float, float]:
    """X and Y of the kite's centre and its lean in radians: it swings on its string."""
    swing = np.sin(5.2 * time + 0.4)
    x = 1.55 - 2.2 * time + 0.45 * swing
    y = 3.25 + 0.42 * np.sin(8.3 * time + 1.2)
    return float(x), float(y), float(0.28 * np.cos(5.2 * time + 0.4) - 0.12)
