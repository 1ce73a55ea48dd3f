"""Crests to sink behind and posts to pass: which pixels they take, and where actors go."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2_hq.training.fronts import Front, cover, draw_front, pass_behind
from sam2_hq.training.geometry import Pose, scaling, translation

POSE = Pose(x=0.2, y=-0.1, size=0.3)
DOWN, RIGHT = math.pi / 2, 0.0
CREST = Front(DOWN, near=0.25, far=math.inf)
POST = Front(RIGHT, near=0.25, far=0.75)
HERE = np.eye(3)


def shown(front: Front, *matrices: np.ndarray, side: int = 16) -> np.ndarray:
    """[T, S, S] whether a pixel belongs to the front."""
    return (cover([front], [np.stack(matrices)], side=side)[0, :, 0] > 0.5).numpy()


def depths(*, front: Front, num_frames: int = 9, num_clips: int = 100) -> np.ndarray:
    """How far along the front's heading an actor's centre is, [num_clips, T]."""
    rng = np.random.default_rng(0)
    ways = np.stack([pass_behind(POSE, front, num_frames, rng) for _ in range(num_clips)])
    heading = np.array([math.cos(front.heading), math.sin(front.heading)])
    assert np.allclose(ways[:, 0], 0), "it starts where it stands"
    return (np.array([POSE.x, POSE.y]) + ways) @ heading


def test_a_crest_takes_all_below_it_and_a_post_a_stripe() -> None:
    rows = shown(CREST, HERE)[0]
    assert not rows[:10].any()
    assert rows[10:].all()
    columns = shown(POST, HERE)[0]
    assert columns[:, 10:14].all()
    assert columns.sum() == 16 * 4


def test_the_edge_waves_and_is_soft() -> None:
    wavy = shown(replace(CREST, height=0.3, rate=6.0), HERE, side=64)[0]
    tops = wavy.argmax(0)
    assert 12 < np.ptp(tops) < 22
    soft = cover([replace(CREST, blur=0.2)], [HERE[None]], side=64)
    assert ((soft > 0.1) & (soft < 0.9)).any()


def test_a_front_moves_with_the_picture_of_the_ground() -> None:
    window = translation(0.1, 0.2) @ scaling(0.5, 0.5)
    still, down, closer = shown(
        CREST, window, window @ translation(0.0, 0.5), window @ scaling(0.5, 0.5)
    )
    # The camera moves down by four pixels: what it shows goes up. Twice as close, twice as far.
    assert np.array_equal(down[:12], still[4:])
    assert still.sum() == 6 * 16
    assert closer.sum() == 4 * 16


def test_most_actors_come_back_from_behind_a_crest_and_some_stay() -> None:
    deep = depths(front=CREST)
    assert (deep.max(1) >= CREST.near - 1e-9).all(), "its centre goes behind the edge"
    returned = deep[:, -1] < POSE.y + 1e-9
    assert 0.6 < returned.mean() < 0.9
    assert (deep.max(1) > CREST.near + POSE.size).any(), "some go out of sight"


def test_an_actor_comes_out_on_the_other_side_of_a_post() -> None:
    last = depths(front=POST)[:, -1]
    assert (last > POST.far).all()


def test_fronts_are_drawn_close_to_an_actor_and_mostly_below() -> None:
    rng = np.random.default_rng(0)
    fronts = [draw_front(POSE, rng) for _ in range(300)]
    below = [math.sin(one.heading) > 0.7 for one in fronts]
    assert 0.5 < np.mean(below) < 0.8
    away = [
        one.near - POSE.x * math.cos(one.heading) - POSE.y * math.sin(one.heading) for one in fronts
    ]
    assert -0.2 * POSE.size <= min(away)
    assert max(away) <= 1.2 * POSE.size
    assert 0.2 < np.mean([math.isfinite(one.far) for one in fronts]) < 0.4


@pytest.mark.parametrize("front", [CREST, POST])
def test_masks_stay_within_what_a_front_leaves(front: Front) -> None:
    alpha = cover([front, front], [np.stack([HERE] * 3)] * 2, side=8)
    assert alpha.shape == (2, 3, 1, 8, 8)
    assert alpha.dtype == torch.float32
    assert alpha.min() >= 0
    assert alpha.max() <= 1
