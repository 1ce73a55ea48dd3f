"""Semi-supervised tracking: objects are given on the frame where they first appear, then followed.

The prompts come from the truth, as the mask itself or as what a user would say of it. Objects that
appear later join the run on their frame, so a picture is encoded once whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple

import numpy as np
import torch

from sam2_hq.data.frames import VideoFrames
from sam2_hq.data.masks import BoolMask
from sam2_hq.evaluation.clicks import box_prompt, next_click
from sam2_hq.evaluation.mask_folders import MaskFolder
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import TrackedFrame
from sam2_hq.tracking.state import VideoState

PromptKind = Literal["mask", "box", "click"]
PROMPT_KINDS: tuple[PromptKind, ...] = ("mask", "box", "click")

Prompts = dict[int, dict[int, BoolMask]]
"""Masks by frame index, then by object id."""


class FrameResult(NamedTuple):
    """Masks of one frame: bool [H, W] by object id, one entry for each object given so far."""

    frame: int
    masks: dict[int, BoolMask]


@dataclass(frozen=True)
class TrackingRules:
    """How objects are prompted and results cut out.

    prompt: what is told of a mask: itself, its box, or a click in its middle.
    score_threshold: foreground is a logit above it.
    may_overlap: objects keep the pixels they share; otherwise the highest logit takes them.
    """

    prompt: PromptKind = "mask"
    score_threshold: float = 0.0
    may_overlap: bool = False

    def __post_init__(self) -> None:
        if self.prompt not in PROMPT_KINDS:
            raise ValueError(f"prompt must be one of {', '.join(PROMPT_KINDS)}, got {self.prompt}")
        if not isfinite(self.score_threshold):
            raise ValueError(f"score_threshold must be a finite logit, got {self.score_threshold}")


def first_appearances(
    truth: MaskFolder,
    frame_names: Sequence[str],
    *,
    size: tuple[int, int] | None = None,
    late: bool = True,
    every: bool = False,
) -> Prompts:
    """Masks to start from: each object's first one that is not empty.

    Args:
        truth: annotated masks.
        frame_names: names of the video's frames, in order; annotations of others are left out.
        size: height and width of these frames; None does not check the masks.
        late: also objects that are not on the first annotated frame.
        every: all masks of these objects, not the first alone.

    Raises:
        ValueError: if no frame of the video has an object, or a mask is of another size.
    """
    annotated = set(truth.frames)
    if annotated.isdisjoint(frame_names):
        there = f"'{truth.frames[0]}'" if annotated else "nothing"
        raise ValueError(
            f"'{truth.folder}' has no mask of any frame of the video: it begins with {there}, "
            f"the video with '{frame_names[0]}'"
        )
    prompts: Prompts = {}
    known: set[int] = set()
    for index, name in enumerate(frame_names):
        if name not in annotated:
            continue
        read = truth.read(name)
        if size is not None and read.size != size:
            raise ValueError(
                f"mask '{name}' in '{truth.folder}' is {list(read.size)}, "
                f"the frames are {list(size)} (height, width)"
            )
        masks = {i: mask for i, mask in read.masks.items() if mask.any()}
        new = masks.keys() - known if late or not prompts else set()
        known |= new
        wanted = known & masks.keys() if every else new
        if wanted:
            prompts[index] = {i: masks[i] for i in sorted(wanted)}
        if prompts and not late and not every:
            break
    if not prompts:
        raise ValueError(f"'{truth.folder}' has no object on any frame of the video")
    return prompts


def track_objects(
    predictor: SAM2VideoPredictor,
    frames: VideoFrames,
    prompts: Mapping[int, Mapping[int, BoolMask]],
    rules: TrackingRules = TrackingRules(),
) -> Iterator[FrameResult]:
    """Follow all objects forward from the first prompted frame to the end of the video.

    An object joins on its first prompted frame with all its prompts, so that the later ones too
    are attended to from there on.

    Args:
        predictor: the model; the caller sets inference mode and autocast.
        frames: the video.
        prompts: masks of the objects, one or more of each, by frame index.
        rules: what is said of a mask, and how the answer is cut.

    Raises:
        ValueError: if there is no prompt, or one does not fit the video.
    """
    if not any(prompts.values()):
        raise ValueError("prompts must hold at least one mask, got none")
    with closing(predictor.init_state(frames, async_loading_frames=True)) as state:
        joining = _by_first_frame(prompts)
        start = min(joining)
        _prompt(predictor, state, joining[start], rules.prompt)
        results = predictor.propagate_in_video(state, start_frame_idx=start)
        for index in range(start, len(frames)):
            if index != start and index in joining:
                _prompt(predictor, state, joining[index], rules.prompt)
            yield FrameResult(index, cut_out(next(results), rules))


def cut_out(tracked: TrackedFrame, rules: TrackingRules) -> dict[int, BoolMask]:
    """Binary masks [H, W] of a frame; of objects with equal logits the first wins."""
    logits = tracked.masks[:, 0]
    masks = logits > rules.score_threshold
    if not rules.may_overlap and len(logits) > 1:
        owner = logits.argmax(dim=0)
        masks &= owner == torch.arange(len(logits), device=owner.device)[:, None, None]
    return dict(zip(tracked.obj_ids, masks.cpu().numpy(), strict=True))


def _by_first_frame(prompts: Mapping[int, Mapping[int, BoolMask]]) -> dict[int, Prompts]:
    """All prompts of the objects that begin on a frame, by that frame."""
    first = {i: frame for frame in sorted(prompts, reverse=True) for i in prompts[frame]}
    joining: dict[int, Prompts] = {}
    for frame in sorted(prompts):
        for i, mask in prompts[frame].items():
            joining.setdefault(first[i], {}).setdefault(frame, {})[i] = mask
    return joining


def _prompt(
    predictor: SAM2VideoPredictor, state: VideoState, prompts: Prompts, kind: PromptKind
) -> None:
    for frame, masks in prompts.items():
        for object_id, mask in masks.items():
            if kind == "mask":
                predictor.add_new_mask(state, frame, object_id, mask)
            elif kind == "box":
                predictor.add_new_points_or_box(state, frame, object_id, box=box_prompt(mask))
            else:
                x, y, label = next_click(np.zeros_like(mask), mask)
                predictor.add_new_points_or_box(
                    state, frame, object_id, points=[[x, y]], labels=[label]
                )
        # At once, while the picture's features are there.
        predictor.propagate_in_video_preflight(state)
