"""How things move in pseudo-clips: stories of one actor."""

from __future__ import annotations

import numpy as np

from sam2_hq.training.geometry import Pose
from sam2_hq.training.motion import draw_bends, draw_twin, move

NUM_FRAMES, NUM_CLIPS = 8, 300
POSE = Pose(x=0.2, y=-0.1, size=0.3)


def ways(*, still: float, num_frames: int = NUM_FRAMES) -> np.ndarray:
    """Distance from the first frame's place, [NUM_CLIPS, T]."""
    rng = np.random.default_rng(0)
    clips = [move(POSE, num_frames, rng, still=still) for _ in range(NUM_CLIPS)]
    return np.array([[np.hypot(p.x - POSE.x, p.y - POSE.y) for p in clip] for clip in clips])


def test_a_thing_that_stands_still_stays_and_others_move() -> None:
    assert (ways(still=1.0) == 0).all()
    assert (ways(still=0.0)[:, -1] > 0.01).mean() > 0.9


def test_some_leave_for_good_some_return_and_some_come_late() -> None:
    far = ways(still=0.0) > 2.0  # the output is 2 wide, so this is out of sight
    first, middle, last = far[:, 0], far[:, NUM_FRAMES // 2], far[:, -1]
    assert 0.01 < (~first & last & (far[:, -1] >= far[:, -2])).mean() < 0.3
    assert 0.05 < (~first & middle & ~last).mean() < 0.3
    assert 0.01 < (first & ~last).mean() < 0.3


def test_a_clip_of_two_frames_is_too_short_to_leave() -> None:
    assert ways(still=0.0, num_frames=2).max() < 2.0


def test_a_twin_is_elsewhere_and_nearly_the_same() -> None:
    rng = np.random.default_rng(0)
    twins = [draw_twin(POSE, rng) for _ in range(100)]
    assert np.std([twin.x for twin in twins]) > 0.2
    sizes = np.array([twin.size for twin in twins]) / POSE.size
    assert 0.84 < sizes.min() < 0.95
    assert 1.05 < sizes.max() < 1.16
    assert {twin.shear for twin in twins} == {POSE.shear}


def test_some_things_bend_for_good_and_some_swing() -> None:
    rng = np.random.default_rng(0)
    bends = np.array([draw_bends(NUM_FRAMES, rng) for _ in range(NUM_CLIPS)])
    bent = bends.any((1, 2, 3))
    swinging = np.ptp(bends, axis=1).any((1, 2))
    assert 0.6 < bent.mean() < 0.9
    assert 0.4 < swinging.mean() < 0.6
    assert (bent & ~swinging).any()
    assert np.abs(bends).max() < 0.5
