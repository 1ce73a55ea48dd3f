"""Which memories a frame attends to: a pure function of frame numbers."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass

from sam2_hq.config import MemoryPolicy


@dataclass(frozen=True)
class Recall:
    """What one frame recalls of one object.

    spatial: (frame, slot) of each memory map, prompted frames first, then oldest to newest; the
        slot is its row in the temporal embedding.
    pointers: (frame, offset) of each object pointer; the offset is its scaled distance in time.
    """

    spatial: tuple[tuple[int, int], ...]
    pointers: tuple[tuple[int, float], ...]

    @property
    def layout(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Objects whose recalls have equal layout may share one pass."""
        return tuple(s for _, s in self.spatial), tuple(o for _, o in self.pointers)


def select_memory(
    frame: int,
    prompted: Iterable[int],
    memories: Collection[int],
    pointers: Container[int],
    *,
    num_frames: int | None,
    backward: bool,
    policy: MemoryPolicy,
    hidden: Container[int] = (),
) -> Recall:
    """Choose what `frame` recalls.

    Args:
        frame: index of the current frame.
        prompted: frames whose masks came from the user, in the order they were given.
        memories: other frames that have a memory map.
        pointers: other frames that have an object pointer.
        num_frames: length of the video; None while it is not known.
        backward: whether tracking runs towards frame 0. Looking back is the same rule on
            negated frame numbers, so no second branch is needed.
        policy: limits and strides.
        hidden: those of `memories` that do not show the object as well as `policy.min_memory_iou`
            asks for; of no account without it.
    """
    sign = -1 if backward else 1
    now = sign * frame
    prompted = list(prompted)
    selected = closest_frames(frame, prompted, policy.max_cond_frames_in_attn)
    others = set(prompted) - set(selected)
    if policy.min_memory_iou is None:
        recent = look_back(now, policy)
        reach = spatial_reach(policy)
        held = {f for f in recent if now - f <= reach and sign * f in memories}
    else:
        held = {sign * f for f in memories if f not in hidden or sign * f == now - 1}
        recent = last_sights(now, held | {sign * f for f in prompted}, policy)
    held |= {sign * f for f in others}
    last_slot = policy.num_maskmem - 1
    spatial = [(f, last_slot) for f in selected]
    spatial += [(sign * f, slot) for slot, f in reversed([*enumerate(recent)]) if f in held]

    reach = policy.max_obj_ptrs_in_encoder
    reach = reach if num_frames is None else min(num_frames, reach)
    distances = []
    for f in selected:
        distance = sign * (frame - f)
        if distance >= 0 or not policy.only_obj_ptrs_in_the_past_for_eval:
            signed = policy.use_signed_tpos_enc_to_obj_ptrs
            distances.append((f, distance if signed else abs(distance)))
    for distance in range(1, reach):
        past = frame - sign * distance
        if past in pointers or past in others:
            distances.append((past, distance))
    scale = max(reach - 1, 1)  # a video of one frame has no distances to scale
    return Recall(tuple(spatial), tuple((f, d / scale) for f, d in distances))


def look_back(now: int, policy: MemoryPolicy) -> list[int]:
    """The unprompted frames to recall as published, newest first: the last, then each stride-th."""
    stride = policy.memory_temporal_stride_for_eval
    newest = (now - 2) // stride * stride
    return [now - 1 if k == 0 else newest - (k - 1) * stride for k in range(policy.num_maskmem - 1)]


def last_sights(now: int, shown: Iterable[int], policy: MemoryPolicy) -> list[int]:
    """Of frames that show the object those to recall, newest first, however long ago."""
    limit = max(policy.num_maskmem - 1, 0)
    if policy.max_memory_frames is not None:
        limit = min(limit, policy.max_memory_frames)
    stride = policy.memory_temporal_stride_for_eval
    past = (f for f in shown if f == now - 1 or (f < now - 1 and f % stride == 0))
    return heapq.nlargest(limit, past)


def closest_frames(frame: int, prompted: list[int], limit: int) -> list[int]:
    """At most `limit` prompted frames (-1: all): the last before, the next, then the nearest."""
    if limit == -1 or len(prompted) <= limit:
        return prompted
    before = max((f for f in prompted if f < frame), default=None)
    after = min((f for f in prompted if f >= frame), default=None)
    chosen = [f for f in (before, after) if f is not None]
    rest = sorted((f for f in prompted if f not in chosen), key=lambda f: abs(f - frame))
    return chosen + rest[: limit - len(chosen)]


def spatial_reach(policy: MemoryPolicy) -> int:
    """How many frames back a frame may recall memory maps under a policy."""
    full = max(policy.num_maskmem - 1, 0) * policy.memory_temporal_stride_for_eval
    return full if policy.max_memory_frames is None else policy.max_memory_frames
