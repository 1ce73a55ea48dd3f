"""What a tracked frame may cost: operators, arithmetic, memory. Counted, not timed.

The published predictors run 871 operators a frame (HQ, batched) or 3,387 for five objects (one at a
time), and 918 GFLOP a frame of the tiny HQ model at 1024 pixels with the memory full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sam2_hq.build_sam import build_sam2_hq_video_predictor
from sam2_hq.modeling.sam import narrow_attention
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import PointPrompt
from sam2_hq.tracking.state import FeatureCache, VideoState
from sam2_hq.tracking.tracker import Tracker

TINY = "configs/sam2.1/sam2.1_hq_hiera_t.yaml"
VIEWS = {
    "alias", "as_strided", "chunk", "detach", "expand", "permute", "select", "slice", "split",
    "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view",
    "lift_fresh",
}  # fmt: skip


class Watch(TorchDispatchMode):
    """Counts operators, and remembers the largest tensor and all dtypes made."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.largest = 0
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[-1]
        if name not in VIEWS:
            self.counts[name] += 1
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, torch.Tensor):
                self.dtypes.add(value.dtype)
                if name not in VIEWS:
                    self.largest = max(self.largest, value.numel() * value.element_size())
        return out


class Session(NamedTuple):
    tracker: Tracker
    state: VideoState
    next_frame: int


class BlankFrames:
    """Frames without end."""

    def __init__(self, side: int) -> None:
        self.side = side

    def get(self, index: int) -> np.ndarray:
        return np.zeros((self.side, self.side, 3), np.uint8)

    def close(self) -> None:
        pass


def tiny(side: int, device: str = "cpu") -> SAM2VideoPredictor:
    """The tiny HQ model with random weights."""
    overrides = [f"++model.image_size={side}"]
    with torch.device(device):
        predictor = build_sam2_hq_video_predictor(
            TINY, device=device, mode="train", hydra_overrides_extra=overrides
        )
    return predictor.eval().requires_grad_(False)


@contextmanager
def past(num_objects: int, *, side: int, num_frames: int, fake: bool) -> Iterator[Session]:
    """A session some frames into a video. Fake tensors have shapes and dtypes, but no numbers."""
    predictor = tiny(side, "meta" if fake else "cpu")
    fakes = FakeTensorMode(allow_non_fake_inputs=True)  # frames come as arrays
    with fakes if fake else torch.no_grad(), torch.no_grad():
        if fake:
            predictor.to_empty(device="cpu")
        predictor.prepare()
        tracker = Tracker(
            predictor, predictor.memory_policy, replace(predictor.options, object_batch=64)
        )
        state = VideoState(
            frames=None,
            pictures=[],  # nothing is looked at twice
            images=BlankFrames(side),
            num_frames=None,
            video_size=(480, 854),
            device=torch.device("cpu"),
            storage_device=torch.device("cpu"),
            features=FeatureCache(4),
        )
        for i in range(num_objects):
            click = PointPrompt(
                torch.full((1, 1, 2), side / 2), torch.ones(1, 1, dtype=torch.int32)
            )
            tracker.answer_points(state, 0, i, click, use_previous_mask=True)
        for frame in range(num_frames):
            tracker.step(state, frame, backward=False)
        yield Session(tracker, state, num_frames)


@pytest.mark.parametrize("narrow", [False, True])
def test_a_tracked_frame_needs_at_most_600_operators_whatever_the_number_of_objects(
    narrow: bool, monkeypatch
) -> None:
    if narrow:  # as at 1024 pixels
        monkeypatch.setattr(narrow_attention, "MIN_QUERIES", 64)
    counts = {}
    for n in (1, 5, 20):
        with past(n, side=128, num_frames=3, fake=False) as session, Watch() as watch:
            session.tracker.step(session.state, session.next_frame, backward=False)
        counts[n] = watch.counts.total()
    assert max(counts.values()) <= 600, counts
    if narrow:  # for one object alone
        return
    assert abs(counts[5] - counts[1]) <= 5, counts
    assert abs(counts[20] - counts[1]) <= 5, counts


def test_a_tracked_frame_asks_no_tensor_for_its_values_and_keeps_no_score_matrix() -> None:
    # Under fake tensors any question about data raises, so running through is the proof.
    with past(2, side=1024, num_frames=9, fake=True) as session:
        tracker = replace(session.tracker, options=replace(session.tracker.options, object_batch=1))
        with Watch() as watch:
            tracker.step(session.state, session.next_frame, backward=False)
    assert not any(dtype.is_complex for dtype in watch.dtypes)
    # 4,096 queries on 7 x 4,096 keys and pointers would be 450 MiB; the trunk's widest map is 144.
    assert watch.largest <= 150 * 2**20, watch.largest / 2**20


def test_a_tracked_frame_of_the_tiny_model_needs_at_most_740_gflop() -> None:
    with past(1, side=1024, num_frames=18, fake=True) as session:
        (track,) = session.state.tracks.values()
        recall = track.recall(
            session.next_frame, num_frames=None, backward=False, policy=session.tracker.policy
        )
        assert len(recall.spatial) == 7
        with FlopCounterMode(display=False) as counter:
            session.tracker.step(session.state, session.next_frame, backward=False)
    gflop = counter.get_total_flops() / 1e9
    assert 600 < gflop <= 740, counter.get_flop_counts()["Global"]


def test_the_state_of_an_object_is_bounded_by_4_mib() -> None:
    sizes = {}
    with past(2, side=1024, num_frames=1, fake=True) as session:
        policy = replace(session.tracker.policy, max_memory_frames=6)
        tracker = replace(session.tracker, policy=policy)
        for frame in range(1, 31):
            tracker.step(session.state, frame, backward=False)
            sizes[frame] = [object_bytes(track) for track in session.state.tracks.values()]
    prompted = 0.76 * 2**20
    assert all(size <= 4 * 2**20 + prompted for size in sizes[30]), sizes[30]
    assert sizes[20] == sizes[30]


def object_bytes(track: Any) -> int:
    records = [*track.anchors.values(), *track.tracked.values()]
    return sum(
        value.numel() * value.element_size()
        for record in records
        for value in (record.mask_logits, record.memory, record.pointer, record.scores)
        if value is not None
    )
