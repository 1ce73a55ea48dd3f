"""Which memories a frame attends to: a pure function of frame numbers."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice, takewhile

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
    trusted: Container[int] | None = None,
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
        trusted: those of `memories` that are worth to be recalled from any distance; None recalls
            the last ones, whatever they are.
    """
    sign = -1 if backward else 1
    prompted = list(prompted)
    selected = closest_frames(frame, prompted, policy.max_cond_frames_in_attn)
    others = set(prompted) - set(selected)
    last_slot = policy.num_maskmem - 1
    known = {sign * f for f in (*memories, *others)}
    if trusted is None:
        recent = islice(look_back(sign * frame, policy), last_slot)
        slots = [(slot, past) for slot, past in enumerate(recent) if past in known]
    else:
        worthy = others | {f for f in memories if f in trusted}
        slots = [*enumerate(_newest(sign * frame, known, {sign * f for f in worthy}, policy))]
    spatial = [(f, last_slot) for f in selected]
    spatial += [(sign * past, slot) for slot, past in reversed(slots)]

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


def look_back(now: int, policy: MemoryPolicy) -> Iterator[int]:
    """Frames to recall, newest first and without end: the last one, then every stride-th."""
    stride = policy.memory_temporal_stride_for_eval
    yield now - 1
    yield from count((now - 2) // stride * stride, -stride)


def _newest(now: int, known: set[int], worthy: set[int], policy: MemoryPolicy) -> Iterator[int]:
    """The last frame, then the newest worthy ones, at most as many as may be recalled."""
    limit = policy.num_maskmem - 1
    if policy.max_memory_frames is not None:
        limit = min(limit, policy.max_memory_frames)
    oldest = min(known, default=now)
    past = takewhile(lambda frame: frame >= oldest, look_back(now, policy))
    return islice((f for f in past if f in worthy or (f == now - 1 and f in known)), limit)


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
