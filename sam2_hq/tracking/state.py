"""What happened in a video: prompts, records and memories of every object, as plain data."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, reduce
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sam2_hq.config import MemoryPolicy
from sam2_hq.ops.appearance import Appearance
from sam2_hq.structures import FrameFeatures, MaskOutput, PointPrompt
from sam2_hq.tracking.memory import Recall, select_memory, spatial_reach

ObjectId = Hashable


class Pictures(Protocol):
    """Frames as they came."""

    def __getitem__(self, index: int) -> np.ndarray:
        """Frame `index` as uint8 [H, W, 3] RGB; IndexError or ValueError where there is none."""


class SquareFrames(Protocol):
    """Frames as the network wants them."""

    def get(self, index: int) -> np.ndarray:
        """Frame `index` as uint8 [S, S, 3] RGB; IndexError or ValueError where there is none."""

    def close(self) -> None:
        """Let go of files and threads."""


def _is_part(tensor: Tensor) -> bool:
    """Whether it is a view of a larger tensor."""
    return tensor.untyped_storage().nbytes() > tensor.nbytes


@dataclass(frozen=True)
class FrameRecord:
    """What tracking knows of one object on one frame. Axis 0 of every tensor has one entry.

    mask_logits: [1, 1, S/4, S/4] float32, judged by appearance and with holes filled; None once
        forgotten.
    memory: [1, Cm, S/16, S/16]; None before the frame is committed and once forgotten.
    pointer: [1, C]. scores: [1, 3], the numbers of `ObjectScores`.
    colours, feature_weights: the `Appearance` of an object that the user showed on this frame.
    """

    mask_logits: Tensor | None
    memory: Tensor | None
    pointer: Tensor
    scores: Tensor
    colours: Tensor | None = None
    feature_weights: Tensor | None = None

    @classmethod
    def from_output(cls, output: MaskOutput, mask_logits: Tensor) -> FrameRecord:
        """The record of a decode, without memory yet."""
        scores = torch.cat([output.object_score, output.iou, output.hq_disagreement], dim=1)
        return cls(mask_logits, None, output.pointer, scores.float())

    @property
    def looks(self) -> Appearance | None:
        """What the object looks like here, where the user showed it."""
        if self.colours is None or self.feature_weights is None:
            return None
        return Appearance(self.colours, self.feature_weights)

    @cached_property
    def presence_and_iou(self) -> tuple[float, float]:
        """The first two scores, read from the device once."""
        presence, iou, _ = self.scores[0].tolist()
        return presence, iou

    def split(self) -> list[FrameRecord]:
        """One record an object from a record of a batch, whose storage they share."""
        columns = [getattr(self, f.name) for f in fields(self)]
        parts = [c.split(1) if c is not None else [None] * len(self.scores) for c in columns]
        return [FrameRecord(*row) for row in zip(*parts, strict=True)]

    def alone(self) -> FrameRecord:
        """A record that shares no storage with those of other objects."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        shared = {k: v for k, v in held.items() if v is not None and _is_part(v)}
        return replace(self, **{k: v.clone() for k, v in shared.items()}) if shared else self

    def to(self, device: torch.device) -> FrameRecord:
        """Keep what is large on `device`."""
        large = ("mask_logits", "memory", "colours", "feature_weights")
        held = {name: value for name in large if (value := getattr(self, name)) is not None}
        return replace(self, **{name: value.to(device) for name, value in held.items()})


@dataclass(frozen=True)
class Painted:
    """Says that a frame was prompted by a mask; the mask itself is in the record."""


@dataclass(frozen=True)
class Pending:
    """The answer to a prompt that is not a memory yet.

    is_anchor: whether it will be recalled from any distance, as first prompts of a frame are.
    exact_mask: [1, 1, S, S] bool, the painted mask where memories are made from it.
    """

    record: FrameRecord
    is_anchor: bool
    exact_mask: Tensor | None = None


class Covered(NamedTuple):
    """What was tracked on a frame before it was corrected."""

    record: FrameRecord
    backward: bool


@dataclass
class ObjectTrack:
    """One object. A frame is in at most one of `anchors` and `tracked`.

    Where there are prompts, one of them is an anchor or will be after the commit.

    prompts: what the user said, by frame. A frame in it is never tracked over.
    pending: answers to prompts since the last commit.
    anchors: prompted frames, recalled from any distance, in the order they were committed.
    tracked: all other frames; a correction of a tracked frame stays here, and in `prompts`.
    covered: what corrections lie on; comes back when the prompts of the frame are gone.
    directions: frames tracking has visited -> whether it ran backward.
    """

    prompts: dict[int, PointPrompt | Painted] = field(default_factory=dict)
    pending: dict[int, Pending] = field(default_factory=dict)
    anchors: dict[int, FrameRecord] = field(default_factory=dict)
    tracked: dict[int, FrameRecord] = field(default_factory=dict)
    covered: dict[int, Covered] = field(default_factory=dict)
    directions: dict[int, bool] = field(default_factory=dict)

    def record(self, frame: int) -> FrameRecord | None:
        """The latest knowledge of a frame."""
        if frame in self.pending:
            return self.pending[frame].record
        return self.anchors.get(frame) or self.tracked.get(frame)

    def looks(self) -> Appearance | None:
        """What the object looks like: the mean over the frames where the user showed it."""
        shown = [r.looks for frame in self.prompts if (r := self.record(frame)) and r.looks]
        if not shown:
            return None
        if len(shown) == 1:
            return shown[0]
        return Appearance(*(reduce(torch.add, p) / len(shown) for p in zip(*shown, strict=True)))

    def has_anchor(self) -> bool:
        """Whether there is, or will be after the commit, something to track from."""
        return bool(self.anchors) or any(p.is_anchor for p in self.pending.values())

    def stand_alone(self) -> None:
        """Share no storage with other objects, so that theirs can be freed."""
        for records in (self.anchors, self.tracked):
            for frame, record in records.items():
                records[frame] = record.alone()
        for frame, (record, backward) in self.covered.items():
            self.covered[frame] = Covered(record.alone(), backward)

    def await_commit(self, frame: int, prompt: PointPrompt | Painted, pending: Pending) -> None:
        """Take a prompt and the answer to it."""
        if frame not in self.prompts and frame in self.tracked:
            self.covered[frame] = Covered(self.tracked[frame], self.directions[frame])
        self.prompts[frame] = prompt
        self.pending[frame] = pending

    def commit(self, frame: int, memory: Tensor | None) -> None:
        """Make the pending answer of a frame a memory."""
        pending = self.pending.pop(frame)
        record = replace(pending.record, memory=memory)
        if pending.is_anchor:
            self.anchors[frame] = record
            self.tracked.pop(frame, None)
        else:
            self.tracked[frame] = record

    def clear_prompts(self, frame: int) -> None:
        """Take back what the user said on a frame, and what came of it there.

        A corrected frame is again as tracking left it before; any other one counts as never
        visited. With the last anchor gone, corrections are what the object is tracked from, and
        what they lie on is gone. With the last prompt gone, nothing is left of the object.
        """
        if self.prompts.pop(frame, None) is None:
            return
        for answers in (self.pending, self.anchors, self.tracked):
            answers.pop(frame, None)
        if frame in self.covered:
            self.tracked[frame], self.directions[frame] = self.covered.pop(frame)
        else:
            self.directions.pop(frame, None)
        if not self.prompts:
            self.tracked.clear()
            self.directions.clear()
        elif not self.has_anchor():
            self._make_corrections_anchors()

    def _make_corrections_anchors(self) -> None:
        for frame in self.prompts:
            if frame in self.pending:
                self.pending[frame] = replace(self.pending[frame], is_anchor=True)
            else:
                self.anchors[frame] = self.tracked.pop(frame)
        self.covered.clear()

    def recall(
        self, frame: int, *, num_frames: int | None, backward: bool, policy: MemoryPolicy
    ) -> Recall:
        """What a frame recalls of this object."""
        memories = {f for f, record in self.tracked.items() if record.memory is not None}
        hidden: set[int] = set()
        if policy.min_memory_iou is not None:
            hidden = {f for f in memories if not self._is_shown(f, policy.min_memory_iou)}
        return select_memory(
            frame,
            self.anchors,
            memories,
            self.tracked,
            num_frames=num_frames,
            backward=backward,
            policy=policy,
            hidden=hidden,
        )

    def _is_shown(self, frame: int, least_iou: float) -> bool:
        """Whether a tracked frame shows the object well; a corrected mask is as good as any."""
        is_corrected = frame in self.prompts and frame not in self.pending
        presence, iou = self.tracked[frame].presence_and_iou
        return presence > 0 and (is_corrected or iou >= least_iou)

    def recalled(self, frame: int) -> FrameRecord:
        """The record behind a recalled frame."""
        return self.tracked.get(frame) or self.anchors[frame]

    def forget_around(self, frame: int, reach: int) -> None:
        """Drop unprompted records within `reach` frames of a prompted one."""
        for near in range(frame - reach, frame + reach + 1):
            if near not in self.prompts:
                self.tracked.pop(near, None)

    def forget_beyond(self, now: int, *, backward: bool, policy: MemoryPolicy) -> None:
        """Keep only what `now`, when corrected, and frames after it recall, and the newest mask."""
        sign = -1 if backward else 1
        pointer_reach = max(policy.max_obj_ptrs_in_encoder - 1, spatial_reach(policy))
        recalled: set[int] | None = None
        if policy.min_memory_iou is not None:
            # Frames to come recall no others of those that are past.
            recalls = [
                self.recall(frame, num_frames=None, backward=backward, policy=policy)
                for frame in (now, now + sign)
            ]
            recalled = {frame for recall in recalls for frame, _ in recall.spatial}

        def left_of(frame: int, record: FrameRecord) -> FrameRecord | None:
            age = sign * (now - frame)
            is_recalled = age <= spatial_reach(policy) if recalled is None else frame in recalled
            if age < 0 or not (is_recalled or age <= pointer_reach):
                return None
            memory = record.memory if is_recalled else None
            if age > 0 and (record.mask_logits is not None or record.memory is not memory):
                record = replace(record, mask_logits=None, memory=memory)
            # What outlives the others of its batch must not hold their storage.
            return record.alone() if age > spatial_reach(policy) else record

        for frame, record in list(self.tracked.items()):
            if frame in self.prompts:
                continue
            if left := left_of(frame, record):
                self.tracked[frame] = left
            else:
                del self.tracked[frame]
        for frame, (record, was_backward) in list(self.covered.items()):
            if left := left_of(frame, record):
                self.covered[frame] = Covered(left, was_backward)
            else:
                del self.covered[frame]
        for frame in [f for f in self.directions if f not in self.tracked]:
            if frame not in self.anchors:
                del self.directions[frame]


class FeatureCache:
    """Features of the frames used last, by frame and weights; at most `capacity` of them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._features: OrderedDict[tuple[int, int], FrameFeatures] = OrderedDict()

    def get(
        self,
        frame: int,
        num_loads: int,
        encode: Callable[[], FrameFeatures],
        *,
        held: Collection[int] = (),
    ) -> FrameFeatures:
        """Features of a frame, encoded when they are not there.

        Args:
            frame: its number.
            num_loads: how often weights were loaded into the model.
            encode: makes the features.
            held: frames that stay beside the `capacity` ones.
        """
        key = (frame, num_loads)
        features = self._features.pop(key, None) or encode()
        self._features[key] = features
        others = [one for one in self._features if one[0] not in held]
        for old in others[: -self.capacity]:
            del self._features[old]
        return features

    def clear(self) -> None:
        """Drop all features."""
        self._features.clear()


@dataclass
class VideoState:
    """A session on one video. Owned by the caller, changed by the predictor alone.

    frames: the source; pictures: its frames as they came; images: as the network wants them.
    num_frames: None while it is not known (streams, iterators).
    known_frames: what was known of it at the start, which distances in time are scaled by: the end
        of an iterator does not change what is recalled.
    video_size: (height, width) in which masks are returned.
    tracks: object id -> track, in the order the objects were added.
    owns_frames: whether the source was opened for this session, and is closed with it.
    is_closed: no frame can be read any more.
    """

    frames: Any  # a data.frames.VideoFrames; None for a stream
    pictures: Pictures
    images: SquareFrames
    num_frames: int | None
    video_size: tuple[int, int]
    device: torch.device
    storage_device: torch.device
    features: FeatureCache
    tracks: dict[ObjectId, ObjectTrack] = field(default_factory=dict)
    owns_frames: bool = False
    is_closed: bool = field(default=False, init=False)
    known_frames: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.known_frames = self.num_frames

    @property
    def video_height(self) -> int:
        """Height of the frames in pixels."""
        return self.video_size[0]

    @property
    def video_width(self) -> int:
        """Width of the frames in pixels."""
        return self.video_size[1]

    @property
    def goes_forward_only(self) -> bool:
        """Whether a frame that has passed cannot be read again."""
        return self.frames is None or self.frames.goes_forward_only

    @property
    def obj_ids(self) -> list[ObjectId]:
        """Ids of the objects, in the order they were added (a new list)."""
        return list(self.tracks)

    def __getitem__(self, key: str) -> Any:
        """Read-only access under the published dictionary keys that scripts use."""
        if key not in _PUBLISHED_KEYS:
            known = ", ".join(sorted(_PUBLISHED_KEYS))
            raise KeyError(f"{key!r} is not a key of a session; there are {known}")
        return _PUBLISHED_KEYS[key](self)

    def __contains__(self, key: object) -> bool:
        """Whether `state[key]` works."""
        return key in _PUBLISHED_KEYS

    def __iter__(self) -> Iterator[str]:
        """The keys `state[key]` knows."""
        return iter(_PUBLISHED_KEYS)

    def has_frame(self, frame: int) -> bool:
        """Whether the video has a frame; an iterator is read up to it, a stream may bring any."""
        if self.num_frames is None and self.frames is not None:
            return self.frames.has_frame(frame)
        return frame >= 0 and (self.num_frames is None or frame < self.num_frames)

    def unbind_tracks(self) -> None:
        """Let objects share no storage, so that what one of them left can be freed."""
        for track in self.tracks.values():
            track.stand_alone()

    def close(self) -> None:
        """Let go of files, threads and features; the masks stay.

        A reader that was open before the session stays open.
        """
        self.is_closed = True
        self.images.close()
        self.features.clear()
        if self.owns_frames:
            self.frames.close()


_PUBLISHED_KEYS: dict[str, Callable[[VideoState], Any]] = {
    "num_frames": lambda state: state.num_frames,
    "video_height": lambda state: state.video_height,
    "video_width": lambda state: state.video_width,
    "device": lambda state: state.device,
    "storage_device": lambda state: state.storage_device,
    "offload_state_to_cpu": lambda state: state.device != state.storage_device,
    "obj_ids": lambda state: state.obj_ids,
    "obj_id_to_idx": lambda state: {i: n for n, i in enumerate(state.tracks)},
    "obj_idx_to_id": lambda state: dict(enumerate(state.tracks)),
    "frames_tracked_per_obj": lambda state: {
        n: {f: {"reverse": back} for f, back in track.directions.items()}
        for n, track in enumerate(state.tracks.values())
    },
}
