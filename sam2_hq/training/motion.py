"""How actors move: wander, stand still, leave and return, cross in front; and how they bend."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sam2_hq.training.geometry import BEND_POINTS, Pose, wander

FAR = 2.6
"""A way that leads out of sight from anywhere; the output is 2 wide."""

LARGEST = 0.75
"""Actors are drawn at most so large, but for twins; 1 fills the output."""

MIN_FRAMES_TO_LEAVE = 3

WANDERING = np.array([1, 1, 0.4, 0.8])
"""Shares of the speed in x, y, growth and turn."""


def draw_pose(rng: np.random.Generator, *, smallest: float) -> Pose:
    """Somewhere in the output, mostly upright, of any size from `smallest` to most of it."""
    size = math.exp(rng.uniform(math.log(smallest), math.log(LARGEST)))
    reach = max(0.2, 1.05 - 0.6 * size)
    is_upright = rng.random() < 0.7
    return Pose(
        x=rng.uniform(-reach, reach),
        y=rng.uniform(-reach, reach),
        size=size,
        angle=rng.normal(0, 0.4) if is_upright else rng.uniform(-math.pi, math.pi),
        shear=rng.normal(0, 0.12),
        mirrored=bool(rng.random() < 0.5),
    )


def draw_twin(pose: Pose, rng: np.random.Generator) -> Pose:
    """Elsewhere, else nearly the same: a look-alike to tell apart."""
    reach = max(0.3, 1.05 - 0.6 * pose.size)
    return replace(
        pose,
        x=rng.uniform(-reach, reach),
        y=rng.uniform(-reach, reach),
        size=pose.size * rng.uniform(0.85, 1.15),
        angle=pose.angle + rng.normal(0, 0.15),
        mirrored=bool(rng.random() < 0.5),
    )


def draw_speed(rng: np.random.Generator) -> float:
    """Typical move from frame to frame; the output is 2 wide."""
    return math.exp(rng.uniform(math.log(0.01), math.log(0.15)))


def move(
    pose: Pose,
    num_frames: int,
    rng: np.random.Generator,
    *,
    still: float,
    way: NDArray[np.float64] | None = None,
) -> list[Pose]:
    """Carry a pose through time.

    Args:
        pose: where the actor is in the first frame, unless it enters later.
        num_frames: T.
        rng: random numbers.
        still: chance that it does not move where no way is given.
        way: [T, 2] where it goes, beside its wandering; a journey of its own by default.
    """
    if way is None:
        if num_frames == 1 or rng.random() < still:
            return [pose] * num_frames
        way = _journey(num_frames, rng)
    path = wander(rng, num_frames, speed=draw_speed(rng) * WANDERING)
    path[:, :2] += way
    return [
        replace(
            pose,
            x=pose.x + dx,
            y=pose.y + dy,
            size=pose.size * math.exp(growth),
            angle=pose.angle + turned,
        )
        for dx, dy, growth, turned in path
    ]


def draw_bends(num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Shifts of the control points of a thin-plate bend: a lasting one, and one that swings.

    Returns:
        [T, 2, P] in the square of the picture; often all 0.
    """
    count = BEND_POINTS**2
    lasting = rng.normal(0, 0.05, (2, count)) * (rng.random() < 0.5)
    swing = rng.normal(0, 0.06, (2, count)) * (rng.random() < 0.5)
    rate, phase = rng.uniform(0.3, 1.2), rng.uniform(0, 2 * math.pi)
    return lasting + swing * np.sin(rate * np.arange(num_frames) + phase)[:, None, None]


def _journey(num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Mostly none; else out of sight and back, out for good, in late, or across: [T, 2]."""
    kinds = ("none", "return", "leave", "enter", "cross")
    kind = rng.choice(kinds, p=(0.6, 0.12, 0.06, 0.06, 0.16))
    if kind == "none" or num_frames < MIN_FRAMES_TO_LEAVE:
        return np.zeros((num_frames, 2))
    time = np.linspace(0, 1, num_frames)
    far = {
        "return": np.sin(math.pi * time) ** 2,
        "leave": time**2,
        "enter": (1 - time) ** 2,
        "cross": time - rng.uniform(0.3, 0.7),
    }[str(kind)]
    heading = rng.uniform(0, 2 * math.pi)
    length = 2 * FAR if kind == "cross" else FAR
    return length * far[:, None] * np.array([math.cos(heading), math.sin(heading)])
