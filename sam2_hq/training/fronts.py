"""A piece of the ground in front of actors: a crest to sink behind, a post to pass.

Its edge lies still in the picture of the ground and moves with the camera.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_hq.training.geometry import Matrix, Pose


@dataclass(frozen=True)
class Front:
    """What lies between two wavy lines across one direction, in the output of the first frame.

    heading: the direction, radians; pi / 2 is down.
    near, far: how far along it the lines are; `far` is infinite for a crest.
    height, rate, phase: of the waves of both lines.
    blur: width of the lines; the output is 2 wide.
    """

    heading: float
    near: float
    far: float
    height: float = 0.0
    rate: float = 1.0
    phase: float = 0.0
    blur: float = 0.01


def draw_front(pose: Pose, rng: np.random.Generator) -> Front:
    """Close to an actor, which it hides at most in part; mostly below."""
    is_below = rng.random() < 0.6
    heading = math.pi / 2 + rng.normal(0, 0.35) if is_below else rng.uniform(0, 2 * math.pi)
    near = _along(pose, heading) + pose.size * rng.uniform(-0.2, 1.2)
    is_post = rng.random() < 0.3
    return Front(
        heading,
        near,
        near + pose.size * rng.uniform(0.6, 2.0) if is_post else math.inf,
        height=rng.uniform(0, 0.3) * pose.size,
        rate=rng.uniform(1, 8),
        phase=rng.uniform(0, 2 * math.pi),
        blur=rng.uniform(0.005, 0.03),
    )


def pass_behind(
    pose: Pose, front: Front, num_frames: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Where an actor goes that sinks and comes back, stays below, or passes a post.

    Args:
        pose: of the actor on the first frame.
        front: what it goes behind.
        num_frames: T.
        rng: random numbers.

    Returns:
        [T, 2] from where it starts.
    """
    time = np.linspace(0, 1, num_frames)
    way = front.near - _along(pose, front.heading)
    if math.isfinite(front.far):
        far = (way + front.far - front.near + pose.size * rng.uniform(0.5, 1.5)) * time
    else:
        profile = np.sin(math.pi * time) ** 2 if rng.random() < 0.75 else time
        far = (way + pose.size * rng.uniform(0.0, 1.6)) * profile
    return far[:, None] * np.array([math.cos(front.heading), math.sin(front.heading)])


def cover(fronts: Sequence[Front], matrices: Sequence[NDArray[np.float64]], *, side: int) -> Tensor:
    """How much of each pixel belongs to the front.

    Args:
        fronts: N of them.
        matrices: for each [T, 3, 3] from the output to the picture of the ground.
        side: S.

    Returns:
        [N, T, 1, S, S] in 0..1.
    """
    return torch.stack([_cover(*one, side) for one in zip(fronts, matrices, strict=True)])


def _cover(front: Front, matrices: Matrix, side: int) -> Tensor:
    # A pixel of any frame shows what the first one had there.
    to_first = np.linalg.inv(matrices[0]) @ matrices
    centres = (np.arange(side) + 0.5) * 2 / side - 1
    pixels = np.stack([*np.meshgrid(centres, centres), np.ones((side, side))])
    x, y = np.moveaxis(np.einsum("tij,jhw->tihw", to_first[:, :2], pixels), 1, 0)
    cos, sin = math.cos(front.heading), math.sin(front.heading)
    wave = front.height * np.sin(front.rate * (y * cos - x * sin) + front.phase)
    depth = x * cos + y * sin - wave
    inner = np.minimum(depth - front.near, front.far - depth)
    shown = np.clip(inner / front.blur + 0.5, 0, 1)
    return torch.from_numpy(shown.astype(np.float32))[:, None]


def _along(pose: Pose, heading: float) -> float:
    return pose.x * math.cos(heading) + pose.y * math.sin(heading)
