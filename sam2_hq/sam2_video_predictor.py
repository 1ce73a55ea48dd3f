"""Objects through a video: click, box or paint on some frames, get masks on all of them."""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from tqdm import tqdm

from sam2_hq import prompts
from sam2_hq.config import CoreConfig, MemoryPolicy, PredictorOptions
from sam2_hq.data.frames import FrameSource, PrefetchedFrames, VideoFrames, open_frames
from sam2_hq.modeling.backbones.image_encoder import ImageEncoder
from sam2_hq.modeling.memory_attention import MemoryAttention
from sam2_hq.modeling.memory_encoder import MemoryEncoder
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.structures import MaskPrompt, PointPrompt, TrackedFrame
from sam2_hq.tracking.session_file import read_session, write_session
from sam2_hq.tracking.state import (
    FeatureCache,
    ObjectId,
    ObjectTrack,
    Pictures,
    SquareFrames,
    VideoState,
)
from sam2_hq.tracking.stream import VideoStream
from sam2_hq.tracking.tracker import Tracker

FRAMES_AHEAD = 4  # frames decoded before they are asked for


class SAM2VideoPredictor(SAM2Base):
    """A model with the interactive video interface around it. Sessions are the caller's.

    Args:
        image_encoder, memory_attention, memory_encoder, config: as of `SAM2Base`.
        policy: which memories are attended to and kept; may be replaced at any time.
        options: hole filling, overlap and other rules; may be replaced at any time.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        memory_attention: MemoryAttention,
        memory_encoder: MemoryEncoder,
        config: CoreConfig,
        *,
        policy: MemoryPolicy | None = None,
        options: PredictorOptions | None = None,
    ) -> None:
        super().__init__(image_encoder, memory_attention, memory_encoder, config)
        self.memory_policy = policy or MemoryPolicy(num_maskmem=config.num_maskmem)
        self.options = options or PredictorOptions()

    @property
    def memory_policy(self) -> MemoryPolicy:
        """Which memories a frame attends to, and how many are kept.

        Raises:
            ValueError: when set, for more memories than the model has places in time for.
        """
        return self._memory_policy

    @memory_policy.setter
    def memory_policy(self, policy: MemoryPolicy) -> None:
        if policy.num_maskmem > self.config.num_maskmem:
            raise ValueError(
                f"num_maskmem must be at most {self.config.num_maskmem}, as this model was "
                f"trained, got {policy.num_maskmem}"
            )
        self._memory_policy = policy

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
        """Download a model, plain or HQ, from the Hugging Face hub; `kwargs` go to the builder."""
        from sam2_hq.build_sam import build_sam2_video_predictor_hf  # stands above this file

        return build_sam2_video_predictor_hf(model_id, **kwargs)

    @property
    def _tracker(self) -> Tracker:
        return Tracker(self, self.memory_policy, self.options)

    # ------------------------------------------------------------ sessions

    def init_state(
        self,
        video_path: FrameSource,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> VideoState:
        """Open a video. Nothing is decoded yet but the first frame.

        Args:
            video_path: what `open_frames` takes: a folder, a video, a list, an array, an iterator.
                The session closes what it opens; an open `VideoFrames` it leaves open.
            offload_video_to_cpu: accepted for compatibility. Frames are always read when needed,
                and a fixed number of them is held in host memory.
            offload_state_to_cpu: keep masks and memories in host memory, the model on its device.
            async_loading_frames: decode the next frames in a background thread, with a bound.

        Raises:
            ValueError: if there is no frame, or the first cannot be read.
        """
        frames = open_frames(video_path)
        ahead = FRAMES_AHEAD if async_loading_frames else 0
        images = PrefetchedFrames(
            frames, lambda video, index: video.square(index, self.image_size), ahead=ahead
        )
        state = self._new_state(frames, frames, images, frames.num_frames, frames.size)
        state.owns_frames = not isinstance(video_path, VideoFrames)
        try:
            images.get(0)
        except BaseException:
            state.close()
            raise
        if offload_state_to_cpu:
            state.storage_device = torch.device("cpu")
        return state

    def _new_state(
        self,
        frames: VideoFrames | None,
        pictures: Pictures,
        images: SquareFrames,
        num_frames: int | None,
        size: tuple[int, int],
    ) -> VideoState:
        return VideoState(
            frames=frames,
            pictures=pictures,
            images=images,
            num_frames=num_frames,
            video_size=size,
            device=self.device,
            storage_device=self.device,
            features=FeatureCache(self.options.feature_cache_frames),
        )

    def open_stream(self, num_frames: int | None = None) -> VideoStream:
        """Track frames as they come, from a camera or any iterator, in constant memory.

        Args:
            num_frames: how many frames will come, if known. Only for videos shorter than
                `max_obj_ptrs_in_encoder` frames does it change the masks.
        """
        return VideoStream(self, num_frames)

    def save_state(self, state: VideoState, path: str | os.PathLike[str]) -> None:
        """Write a session (prompts, memories, results; no frames) to one safetensors file."""
        write_session(state, path, self)

    def load_state(
        self,
        path: str | os.PathLike[str],
        video_path: FrameSource,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> VideoState:
        """Continue a saved session on the same video with the same model.

        Raises:
            ValueError: if the file is no session, or one of another video size, length or model. A
                file from before sessions noted the weights passes with any weights.
        """
        state = self.init_state(
            video_path, offload_video_to_cpu, offload_state_to_cpu, async_loading_frames
        )
        try:
            read_session(state, path, self)
        except BaseException:
            state.close()
            raise
        return state

    def reset_state(self, inference_state: VideoState) -> None:
        """Forget all objects, prompts and results; the video stays open."""
        inference_state.tracks.clear()

    # ------------------------------------------------------------- prompts

    @torch.no_grad()
    def add_new_points_or_box(
        self,
        inference_state: VideoState,
        frame_idx: int,
        obj_id: Hashable,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
        *,
        use_previous_mask: bool = True,
    ) -> TrackedFrame:
        """Click on an object, or draw a box around it; the object is added if it is new.

        Args:
            inference_state: from `init_state`.
            frame_idx: frame, counted from 0.
            obj_id: any hashable name of the object; integers of NumPy and torch count as int.
            points: [P, 2] x, y in video pixels; P = 0 only beside a box.
            labels: [P]; 1 belongs to the object, 0 does not.
            clear_old_points: these points replace earlier ones on the frame, or join them.
            normalize_coords: coordinates are in video pixels; False: in 0..1.
            box: x0, y0, x1, y1; needs `clear_old_points`, since a box comes before all clicks.
            use_previous_mask: let the object's mask on this frame, if any, guide the new one, as
                published. Then the same click twice gives two masks.

        Returns:
            The masks of all objects on the frame.

        Raises:
            ValueError: for a prompt that does not fit; then nothing has changed.
        """
        obj_id = prompts.object_id(obj_id)
        if box is not None and not clear_old_points:
            raise ValueError("box needs clear_old_points=True: a box comes before all clicks")
        new = self._points_prompt(inference_state, points, labels, box, normalize_coords)
        frame_idx = self._check_frame(inference_state, frame_idx)
        track = inference_state.tracks.get(obj_id)
        old = track.prompts.get(frame_idx) if track is not None else None
        if isinstance(old, PointPrompt) and not clear_old_points:
            new = PointPrompt(
                torch.cat([old.coords, new.coords], dim=1),
                torch.cat([old.labels, new.labels], dim=1),
            )
        self._tracker.answer_points(
            inference_state, frame_idx, obj_id, new, use_previous_mask=use_previous_mask
        )
        return self._tracker.view(inference_state, frame_idx)

    def add_new_points(self, *args: Any, **kwargs: Any) -> TrackedFrame:
        """The old name of `add_new_points_or_box`."""
        return self.add_new_points_or_box(*args, **kwargs)

    @torch.no_grad()
    def add_new_mask(
        self, inference_state: VideoState, frame_idx: int, obj_id: Hashable, mask: Any
    ) -> TrackedFrame:
        """Give an object's mask on a frame; the object is added if it is new.

        Args:
            inference_state: from `init_state`.
            frame_idx: frame, counted from 0.
            obj_id: any hashable name of the object; integers of NumPy and torch count as int.
            mask: [height, width] of the video; bool, 0 and 1, or 0 and 255.

        Returns:
            The masks of all objects on the frame.

        Raises:
            ValueError: for a mask that does not fit; then nothing has changed.
        """
        obj_id = prompts.object_id(obj_id)
        painted = prompts.painted_mask(mask, inference_state.video_size)
        frame_idx = self._check_frame(inference_state, frame_idx)
        square = self._square_mask(painted.to(inference_state.device))
        self._tracker.answer_mask(inference_state, frame_idx, obj_id, MaskPrompt(square))
        return self._tracker.view(inference_state, frame_idx)

    def _square_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """A bool mask of the video's size to [1, 1, S, S] in {0, 1}.

        A mask too small or too thin for that keeps the pixels it covers most: it is not absence.
        """
        square = mask[None, None].float()
        size = (self.image_size, self.image_size)
        if square.shape[-2:] == size:
            return square
        square = F.interpolate(square, size, mode="bilinear", align_corners=False, antialias=True)
        most = square.amax()
        return ((square >= 0.5) | ((most < 0.5) & (square > most / 2))).float()

    def _points_prompt(
        self, state: VideoState, points: Any, labels: Any, box: Any, normalize_coords: bool
    ) -> PointPrompt:
        """Check clicks and box, and bring them to model pixels, the box first."""
        if points is None and labels is None and box is None:
            raise ValueError("points with labels, or box, must be given")
        frame = state.video_size if normalize_coords else (1.0, 1.0)
        parts = []
        if box is not None:
            corners = prompts.boxes(box, frame)
            if len(corners) != 1:
                raise ValueError(f"box must be one box an object, got {len(corners)}")
            parts.append((corners, prompts.corner_labels(len(corners), corners.device)))
        if points is not None or labels is not None:
            clicks, click_labels = prompts.points_and_labels(points, labels, frame)
            if len(clicks) != 1:
                raise ValueError("points must be [P, 2] for one object, got several rows of points")
            if box is None and clicks.shape[1] == 0:
                raise ValueError("points must hold a click where there is no box, got none")
            parts.append((clicks, click_labels))
        coords = torch.cat([c.to(state.device) for c, _ in parts], dim=1)
        scale = coords.new_tensor([frame[1], frame[0]])
        kinds = torch.cat([k.to(state.device) for _, k in parts], dim=1)
        return PointPrompt(coords / scale * self.image_size, kinds)

    @torch.no_grad()
    def clear_all_prompts_in_frame(
        self,
        inference_state: VideoState,
        frame_idx: int,
        obj_id: Hashable,
        need_output: bool = True,
    ) -> TrackedFrame | None:
        """Take back what was said about an object on a frame; what was said elsewhere stays.

        An object without any prompt left keeps its id and nothing else: the next prompt is as its
        first one.
        """
        frame_idx = self._check_number(inference_state, frame_idx)
        track = self._track(inference_state, obj_id)
        track.clear_prompts(frame_idx)
        if not track.prompts:
            inference_state.unbind_tracks()
        return self._tracker.view(inference_state, frame_idx) if need_output else None

    @torch.no_grad()
    def remove_object(
        self,
        inference_state: VideoState,
        obj_id: Hashable,
        strict: bool = False,
        need_output: bool = True,
    ) -> tuple[list[ObjectId], list[tuple[int, torch.Tensor]]]:
        """Forget an object; the masks of the others stay as they were.

        Args:
            inference_state: from `init_state`.
            obj_id: the object; an unknown one is ignored unless `strict`.
            strict: raise for an unknown object.
            need_output: return the masks of the frames on which the object was prompted.

        Returns:
            The remaining ids, and (frame, masks of the remaining objects) of those frames.
        """
        obj_id = prompts.object_id(obj_id)
        if strict:
            self._track(inference_state, obj_id)
        track = inference_state.tracks.pop(obj_id, None)
        if track is None:
            return inference_state.obj_ids, []
        inference_state.unbind_tracks()
        if not need_output or not inference_state.tracks:
            return inference_state.obj_ids, []
        views = (self._tracker.view(inference_state, f) for f in sorted(track.prompts))
        return inference_state.obj_ids, [(view.frame_idx, view.masks) for view in views]

    # --------------------------------------------------------- propagation

    @torch.no_grad()
    def propagate_in_video_preflight(self, inference_state: VideoState) -> None:
        """Make memories of all prompts; `propagate_in_video` does this by itself.

        Raises:
            ValueError: if there is no object, or one of them has no prompt.
        """
        self._check_prompted(inference_state)
        self._tracker.commit(inference_state)

    def propagate_in_video(
        self,
        inference_state: VideoState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
        *,
        num_frames: int | None = None,
        progress: bool = False,
    ) -> Iterator[TrackedFrame]:
        """Track all objects through the video, frame by frame.

        Prompted frames are given back as the user left them; all others are tracked, again if they
        were tracked before. Objects and prompts may change between two frames.

        Args:
            inference_state: from `init_state`.
            start_frame_idx: None for the first prompted frame (`reverse`: the last one).
            max_frame_num_to_track: published limit; k gives k + 1 frames.
            reverse: run towards frame 0.
            num_frames: our limit; k gives k frames.
            progress: show a progress bar.

        Raises:
            ValueError: at once, if there is nothing to track, or an argument is out of range.
        """
        state = inference_state
        self._check_prompted(state)
        frames = self._frame_range(
            state, start_frame_idx, max_frame_num_to_track, reverse, num_frames
        )
        return self._propagate(state, frames, reverse, progress)

    def _propagate(
        self, state: VideoState, frames: Iterable[int], reverse: bool, progress: bool
    ) -> Iterator[TrackedFrame]:
        for frame in tqdm(frames, desc="tracking", unit="frame", disable=not progress):
            if not state.has_frame(frame):
                state.num_frames = state.frames.num_frames  # the iterator of frames has ended
                return
            with torch.no_grad():
                tracked = self._tracker.step(state, frame, backward=reverse)
            yield tracked

    def _frame_range(
        self,
        state: VideoState,
        start: int | None,
        max_more: int | None,
        reverse: bool,
        count: int | None,
    ) -> Iterable[int]:
        prompted = [frame for track in state.tracks.values() for frame in track.prompts]
        if start is None:
            start = max(prompted) if reverse else min(prompted)
        start = self._check_frame(state, start, "start_frame_idx")
        if max_more is not None and count is not None:
            raise ValueError("give max_frame_num_to_track or num_frames, not both")
        if max_more is not None:
            count = _count(max_more, "max_frame_num_to_track") + 1
        elif count is not None:
            count = _count(count, "num_frames")
        if reverse:
            return range(start, -1 if count is None else max(start - count, -1), -1)
        ends = [] if count is None else [start + count]
        ends += [] if state.num_frames is None else [state.num_frames]
        return range(start, min(ends)) if ends else itertools.count(start)

    # -------------------------------------------------------------- checks

    def _check_number(self, state: VideoState, frame: Any, name: str = "frame_idx") -> int:
        """A frame that there can be; an iterator is not read."""
        frame = _integer(frame, name)
        end = state.num_frames if state.frames is None else state.frames.num_frames
        if frame < 0 or (end is not None and frame >= end):
            wanted = "0 or more" if end is None else f"in 0..{end - 1}"
            raise ValueError(f"{name} must be {wanted}, got {frame}")
        return frame

    def _check_frame(self, state: VideoState, frame: Any, name: str = "frame_idx") -> int:
        """A frame that there is; an iterator is read up to it, so this comes last."""
        frame = self._check_number(state, frame, name)
        if not state.has_frame(frame):
            self._check_number(state, frame, name)  # its length is known by now
        return frame

    def _check_prompted(self, state: VideoState) -> None:
        if not state.tracks:
            raise ValueError("there is no object to track: add points, a box or a mask first")
        for object_id, track in state.tracks.items():
            if not track.has_anchor():
                raise ValueError(f"object {object_id!r} has no prompt left: add one or remove it")

    def _track(self, state: VideoState, obj_id: Hashable) -> ObjectTrack:
        obj_id = prompts.object_id(obj_id)
        if obj_id not in state.tracks:
            known = ", ".join(map(repr, state.tracks)) or "none"
            raise ValueError(
                f"obj_id {obj_id!r} is not an object of this session, which has {known}"
            )
        return state.tracks[obj_id]


def _integer(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {value!r}") from error


def _count(value: Any, name: str) -> int:
    count = _integer(value, name)
    if count < 0:
        raise ValueError(f"{name} must be 0 or more, got {count}")
    return count
