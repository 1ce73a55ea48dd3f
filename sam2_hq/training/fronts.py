"""A piece of the ground in front of actors: a crest to sink behind, a post to pass.

Its edge moves with the camera; it does not bend where the ground bends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_hq.training.geometry import Pose


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


def cover(
    fronts: Sequence[Front],
    matrices: Sequence[NDArray[np.float64]],
    *,
    side: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """How much of each pixel belongs to the front.

    Args:
        fronts: N of them.
        matrices: for each [T, 3, 3] from the output to the picture of the ground.
        side: S.
        device: where the answer is wanted.

    Returns:
        [N, T, 1, S, S] in 0..1.
    """
    centres = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) * 2 / side - 1
    covers = []
    for front, own in zip(fronts, matrices, strict=True):
        cos, sin = math.cos(front.heading), math.sin(front.heading)
        axes = np.array([[cos, sin, 0.0], [-sin, cos, 0.0]])
        # Where the first frame had what a pixel of another one shows, along the front and across.
        rows = axes @ np.linalg.inv(own[0]) @ own
        x, y, shift = (
            torch.from_numpy(rows.astype(np.float32)).to(device)[..., None, None].unbind(2)
        )
        along, across = (x * centres + y * centres[:, None] + shift).unbind(1)
        depth = along - front.height * torch.sin(front.rate * across + front.phase)
        inner = torch.minimum(depth - front.near, front.far - depth)
        covers.append((inner / front.blur + 0.5).clamp(0, 1)[:, None])
    return torch.stack(covers)


def _along(pose: Pose, heading: float) -> float:
    return pose.x * math.cos(heading) + pose.y * math.sin(heading)
