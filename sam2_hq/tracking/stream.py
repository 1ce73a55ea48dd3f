"""Frames one by one, of unknown number, in constant memory."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sam2_hq.checks import check_counts
from sam2_hq.data.pictures import read_picture, resize_for_video_model
from sam2_hq.structures import TrackedFrame
from sam2_hq.tracking.memory import spatial_reach
from sam2_hq.tracking.state import VideoState
from sam2_hq.tracking.tracker import Tracker

if TYPE_CHECKING:
    from sam2_hq.sam2_video_predictor import SAM2VideoPredictor


class RecentFrames:
    """The last frames of a stream, as they came and as the network wants them."""

    def __init__(self, side: int, capacity: int = 2, *, keeps_pictures: bool = False) -> None:
        self._side = side
        self._keeps_pictures = keeps_pictures
        self._capacity = capacity
        self._frames: OrderedDict[int, tuple[np.ndarray | None, np.ndarray]] = OrderedDict()
        self.num_seen = 0

    def append(self, frame: np.ndarray) -> int:
        """Take the next frame, uint8 [H, W, 3]; returns its index."""
        square = resize_for_video_model(frame, self._side)
        self._frames[self.num_seen] = (frame if self._keeps_pictures else None, square)
        while len(self._frames) > self._capacity:
            self._frames.popitem(last=False)
        self.num_seen += 1
        return self.num_seen - 1

    def get(self, index: int) -> np.ndarray:
        """Frame `index` as uint8 [S, S, 3], while it is among the last ones."""
        return self._kept(index)[1]

    def __getitem__(self, index: int) -> np.ndarray:
        """Frame `index` as it came, uint8 [H, W, 3], while it is among the last ones."""
        picture = self._kept(index)[0]
        if picture is None:
            raise ValueError("the stream keeps no pictures, the model looked once when it began")
        return picture

    def _kept(self, index: int) -> tuple[np.ndarray | None, np.ndarray]:
        if index not in self._frames:
            kept = (
                f"frames {min(self._frames)}..{max(self._frames)}" if self._frames else "no frame"
            )
            raise ValueError(f"the stream has {kept}, not {index}: prompt the one that came last")
        return self._frames[index]

    def close(self) -> None:
        """Drop the frames."""
        self._frames.clear()


class VideoStream:
    """Track objects through frames that arrive one at a time.

    `step` brings in the next frame and tracks all objects to it; prompts go to the frame that came
    last. The masks are those of `propagate_in_video` on the whole video, as long as the memory
    policy keeps what a frame recalls; by default it does.
    """

    def __init__(self, predictor: SAM2VideoPredictor, num_frames: int | None = None) -> None:
        if num_frames is not None:
            check_counts({"num_frames": num_frames}, least=1)
        self._predictor = predictor
        self._num_frames = num_frames
        self._frames = self._no_frames()
        self._state: VideoState | None = None

    @property
    def state(self) -> VideoState:
        """The session behind the stream.

        Raises:
            ValueError: before the first frame.
        """
        if self._state is None:
            raise ValueError("the stream has no frame yet: call step(frame) first")
        return self._state

    @property
    def frame_idx(self) -> int:
        """Index of the frame that came last; -1 before the first."""
        return self._frames.num_seen - 1

    def step(self, frame: Any) -> TrackedFrame:
        """Take the next frame and track all objects to it.

        Args:
            frame: RGB picture, as `read_picture` takes it, of the size of the first one.

        Returns:
            The masks on this frame; of no object before the first prompt.

        Raises:
            ValueError: for a picture of another size, or a broken one; the stream stays where it
                was.
        """
        is_path = isinstance(frame, str | os.PathLike)
        rgb = read_picture(frame, f"frame '{frame}'" if is_path else "frame")
        height, width = rgb.shape[:2]
        if self._state is None:
            self._state = self._predictor._new_state(
                None, self._frames, self._frames, self._num_frames, (height, width)
            )
        elif (height, width) != self._state.video_size:
            raise ValueError(
                f"frame must be {self._state.video_size} (height, width) as the first one, "
                f"got {(height, width)}"
            )
        if self._num_frames is not None and self._frames.num_seen >= self._num_frames:
            raise ValueError(f"num_frames promised {self._num_frames} frames, got one more")
        with torch.no_grad():
            return self._tracker().step(self._state, self._frames.append(rgb), backward=False)

    def add_new_points_or_box(
        self, obj_id: Hashable, points: Any = None, labels: Any = None, **kwargs: Any
    ) -> TrackedFrame:
        """`SAM2VideoPredictor.add_new_points_or_box` on the frame that came last."""
        return self._predictor.add_new_points_or_box(
            self.state, self.frame_idx, obj_id, points, labels, **kwargs
        )

    def add_new_mask(self, obj_id: Hashable, mask: Any) -> TrackedFrame:
        """`SAM2VideoPredictor.add_new_mask` on the frame that came last."""
        return self._predictor.add_new_mask(self.state, self.frame_idx, obj_id, mask)

    def remove_object(self, obj_id: Hashable) -> None:
        """Forget an object."""
        self._predictor.remove_object(self.state, obj_id, strict=True, need_output=False)

    def close(self) -> None:
        """Forget everything; the next frame starts anew."""
        self._frames = self._no_frames()
        self._state = None

    def _no_frames(self) -> RecentFrames:
        keeps = self._predictor.zoom_in is not None
        return RecentFrames(self._predictor.image_size, keeps_pictures=keeps)

    def _tracker(self) -> Tracker:
        """The predictor's rules, with a bound on what is kept."""
        policy = self._predictor.memory_policy
        bounded = replace(policy, max_memory_frames=spatial_reach(policy))
        return Tracker(self._predictor, bounded, self._predictor.options)
