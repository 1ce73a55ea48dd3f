"""Which memories a frame recalls: the published rule, told a second time as plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_hq.config import MemoryPolicy
from sam2_hq.tracking.memory import closest_frames, look_back, select_memory


def published_rule(t, prompted, tracked, num_frames, backward, policy):
    """The specification's tables, with a branch for each direction."""
    limit, m, r = (
        policy.max_cond_frames_in_attn,
        policy.num_maskmem,
        policy.memory_temporal_stride_for_eval,
    )
    if limit == -1 or len(prompted) <= limit:
        selected = list(prompted)
    else:
        before = [f for f in prompted if f < t]
        after = [f for f in prompted if f >= t]
        selected = ([max(before)] if before else []) + ([min(after)] if after else [])
        for f in sorted(prompted, key=lambda f: abs(f - t)):
            if len(selected) < limit and f not in selected:
                selected.append(f)
    spatial = [(f, m - 1) for f in selected]
    for k in range(m - 1, 0, -1):
        if k == 1:
            f = t + 1 if backward else t - 1
        elif backward:
            f = r * math.ceil((t + 2) / r) + (k - 2) * r
        else:
            f = r * math.floor((t - 2) / r) - (k - 2) * r
        if f in tracked or (f in prompted and f not in selected):
            spatial.append((f, k - 1))
    p = min(num_frames, policy.max_obj_ptrs_in_encoder)
    pointers = []
    for f in selected:
        if policy.only_obj_ptrs_in_the_past_for_eval and (f < t if backward else f > t):
            continue
        delta = t - f
        if policy.use_signed_tpos_enc_to_obj_ptrs:
            delta = -delta if backward else delta
        else:
            delta = abs(delta)
        pointers.append((f, delta))
    for delta in range(1, p):
        f = t + delta if backward else t - delta
        if not 0 <= f < num_frames:
            break
        if f in tracked or (f in prompted and f not in selected):
            pointers.append((f, delta))
    return spatial, [(f, d / max(p - 1, 1)) for f, d in pointers]


@settings(max_examples=400)
@given(data=st.data())
def test_the_selection_is_the_published_one(data: st.DataObject) -> None:
    num_frames = data.draw(st.integers(1, 40))
    frames = st.integers(0, num_frames - 1)
    prompted = data.draw(st.lists(frames, unique=True, min_size=1, max_size=8))
    tracked = data.draw(st.sets(frames)) - set(prompted)
    t, backward = data.draw(frames), data.draw(st.booleans())
    policy = MemoryPolicy(
        num_maskmem=data.draw(st.integers(0, 9)),
        max_cond_frames_in_attn=data.draw(st.sampled_from([-1, 2, 3, 5])),
        memory_temporal_stride_for_eval=data.draw(st.integers(1, 4)),
        max_obj_ptrs_in_encoder=data.draw(st.integers(1, 20)),
        only_obj_ptrs_in_the_past_for_eval=data.draw(st.booleans()),
        use_signed_tpos_enc_to_obj_ptrs=data.draw(st.booleans()),
    )
    recall = select_memory(
        t, prompted, tracked, tracked, num_frames=num_frames, backward=backward, policy=policy
    )
    spatial, pointers = published_rule(t, prompted, tracked, num_frames, backward, policy)
    assert list(recall.spatial) == spatial
    assert [f for f, _ in recall.pointers] == [f for f, _ in pointers]
    assert [o for _, o in recall.pointers] == pytest.approx([o for _, o in pointers])


@settings(max_examples=200)
@given(data=st.data())
def test_what_always_shows_the_object_is_recalled_as_published(data: st.DataObject) -> None:
    t, backward = data.draw(st.integers(0, 40)), data.draw(st.booleans())
    frames = st.integers(0, 40)
    prompted = data.draw(st.lists(frames, unique=True, min_size=1, max_size=8))
    tracked = set(range(-40, 81)) - {*prompted, t}  # no gap in the past
    rules = {
        "num_maskmem": data.draw(st.integers(0, 9)),
        "max_cond_frames_in_attn": data.draw(st.sampled_from([-1, 2, 3, 5])),
        "memory_temporal_stride_for_eval": data.draw(st.integers(1, 4)),
    }
    published, ours = (
        select_memory(
            t,
            prompted,
            tracked,
            tracked,
            num_frames=None,
            backward=backward,
            policy=MemoryPolicy(**rules, min_memory_iou=least),
        )
        for least in (None, 0.0)
    )
    assert ours == published


@pytest.mark.parametrize(
    ("frame", "prompted", "limit", "want"),
    [
        (10, [0, 3, 8, 12, 20, 11], 4, [8, 11, 12, 3]),
        (10, [10, 2, 5], 2, [5, 10]),
        (1, [5, 9, 7], 2, [5, 7]),
        (30, [5, 9, 7], 2, [9, 7]),
        (4, [9, 1], -1, [9, 1]),
    ],
)
def test_the_limit_prefers_neighbours(
    frame: int, prompted: list[int], limit: int, want: list[int]
) -> None:
    assert closest_frames(frame, prompted, limit) == want


def test_a_limit_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_cond_frames_in_attn must be -1 or at least 2, got 1"):
        MemoryPolicy(max_cond_frames_in_attn=1)


def test_looking_back_takes_every_stride_th_frame_and_the_last() -> None:
    policy = MemoryPolicy(num_maskmem=4, memory_temporal_stride_for_eval=5)
    assert look_back(23, policy) == [22, 20, 15]


def sights(
    frame: int, memories: range, shown: set[int], prompted: tuple[int, ...] = (0,), **policy: Any
) -> list[tuple[int, int]]:
    """(frame, slot) recalled beside the prompted ones, where `shown` alone show the object."""
    recall = select_memory(
        frame,
        prompted,
        memories,
        memories,
        num_frames=None,
        backward=frame < min(memories, default=0),
        policy=MemoryPolicy(min_memory_iou=0.0, **policy),
        hidden=set(memories) - shown,
    )
    assert [f for f, _ in recall.spatial[: len(prompted)]] == list(prompted)
    return list(recall.spatial[len(prompted) :])


def test_after_a_long_absence_the_last_sights_are_recalled() -> None:
    shown = {1, 2, 4, 5, 6, 7}  # 3 was a bad mask, and since 8 the object is out of sight
    found = sights(90, range(1, 90), shown)
    assert found == [(2, 5), (4, 4), (5, 3), (6, 2), (7, 1), (89, 0)]
    far = range(100_000, 1_000_000)
    assert sights(1_000_000, far, {100_003})[:1] == [(100_003, 1)]


def test_with_a_stride_sights_are_as_far_apart() -> None:
    policy = {"num_maskmem": 5, "memory_temporal_stride_for_eval": 3}
    found = sights(30, range(1, 30), {3, 7, 9, 21, 28}, **policy)
    assert found == [(3, 3), (9, 2), (21, 1), (29, 0)]


def test_backward_the_last_sights_are_those_to_come() -> None:
    found = sights(10, range(11, 60), {40, 41, 50}, (70,), num_maskmem=4)
    assert found == [(41, 2), (40, 1), (11, 0)]


def test_a_prompted_frame_takes_its_place_among_the_sights() -> None:
    memories = [*range(1, 20), *range(21, 40)]
    policy = MemoryPolicy(min_memory_iou=0.0)
    hidden = set(range(10, 20))
    recall = select_memory(
        21,
        [0, 20],
        memories,
        memories,
        num_frames=None,
        backward=False,
        policy=policy,
        hidden=hidden,
    )
    assert recall.spatial == ((0, 6), (20, 6), (5, 5), (6, 4), (7, 3), (8, 2), (9, 1))


def test_a_bound_counts_sights() -> None:
    assert sights(90, range(1, 90), {1, 2, 5}, max_memory_frames=2) == [(5, 1), (89, 0)]
    assert sights(90, range(1, 90), {1, 2, 5}, max_memory_frames=0) == []
    assert sights(90, range(0), set()) == []


def test_an_unknown_length_counts_as_a_long_video() -> None:
    policy = MemoryPolicy()
    known = select_memory(
        50, [0], range(1, 50), range(1, 50), num_frames=900, backward=False, policy=policy
    )
    unknown = select_memory(
        50, [0], range(1, 50), range(1, 50), num_frames=None, backward=False, policy=policy
    )
    assert known == unknown
    assert len(known.pointers) == 16
