"""J&F of tracking and baselines on clips in the layout of DAVIS, and frames a second."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from nano_baselines import Carry, carry_masks
from tqdm import tqdm

from sam2_hq.benchmark.clock import Clock
from sam2_hq.data.frames import open_frames
from sam2_hq.data.masks import merge_masks, write_id_map
from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import Dataset, VideoSequence, open_dataset
from sam2_hq.evaluation.evaluate import Means, evaluate
from sam2_hq.evaluation.semi_supervised import (
    FrameResult,
    PromptKind,
    TrackingRules,
    first_appearances,
    track_objects,
)
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor

# Those of SA-V, which count what vos-benchmark counts.
CONVENTIONS = Conventions(objects="annotated", before_appearance="drop_unseen")
CLIPS = Dataset("JPEGImages/480p", "Annotations/480p", conventions=CONVENTIONS)

SPEED_WARM_UP = 10  # frames, until the memory is full


def open_clips(root: Path, names: list[str]) -> list[VideoSequence]:
    """All clips, or those named."""
    return open_dataset(root, CLIPS, names=names)


def frames_of(clip: VideoSequence) -> Path:
    """Folder of the pictures."""
    assert clip.frames is not None
    return clip.frames


def measure_tracking(
    predictor: SAM2VideoPredictor, clips: list[VideoSequence], prompt: PromptKind, folder: Path
) -> dict[str, Any]:
    """Follow all objects from their first masks, or the boxes around them."""
    for clip in tqdm(clips, desc=folder.name):
        frames = open_frames(frames_of(clip))
        prompts = first_appearances(clip.truth, frames.names)
        results = track_objects(predictor, frames, prompts, TrackingRules(prompt))
        write_annotated(clip, frames.names, results, folder)
    return score(clips, folder)


def measure_baseline(baseline: Carry, clips: list[VideoSequence], folder: Path) -> dict[str, Any]:
    """Carry all first masks by a rule that knows no objects."""
    for clip in tqdm(clips, desc=folder.name):
        with open_frames(frames_of(clip)) as frames:
            results = carry_masks(baseline, frames, first_appearances(clip.truth, frames.names))
            write_annotated(clip, frames.names, results, folder)
    return score(clips, folder)


def write_annotated(
    clip: VideoSequence, names: list[str], results: Iterable[FrameResult], folder: Path
) -> None:
    """Write the masks of the frames that have a truth, as vos-benchmark wants them."""
    wanted = set(clip.truth.frames)
    size = clip.truth.read(clip.truth.frames[0]).size
    (folder / clip.name).mkdir(parents=True, exist_ok=True)
    masks: dict[int, dict[int, Any]] = {r.frame: r.masks for r in results}
    for index, name in enumerate(names):
        if name in wanted:
            # Where masks overlap, the smaller id is painted last.
            painted = dict(sorted(masks.get(index, {}).items(), reverse=True))
            write_id_map(folder / clip.name / f"{name}.png", merge_masks(painted, size=size))


def score(clips: list[VideoSequence], folder: Path) -> dict[str, Any]:
    """Scores over objects, as vos-benchmark prints them, and over videos."""
    evaluation = evaluate(clips, folder, CONVENTIONS)
    over_videos = Means.over(list(evaluation.sequence_means().values()))
    return {"mean over videos": over_videos.to_json(), **evaluation.to_json()}


def measure_speed(
    predictor: SAM2VideoPredictor, clip: VideoSequence, *, repeats: int
) -> dict[str, Any]:
    """Seconds a frame from decoded picture to binary mask, one object, memory full."""
    frames = open_frames(frames_of(clip))
    pictures = np.stack([frames[i] for i in range(len(frames))])
    first = first_appearances(clip.truth, frames.names)
    index = min(first)
    one = {index: dict(list(first[index].items())[:1])}
    seconds = []
    for _ in range(repeats):
        laps = Clock(predictor.device).laps(track_objects(predictor, open_frames(pictures), one))
        seconds.append(statistics.median(laps[SPEED_WARM_UP:]))
    best, worst = min(seconds), max(seconds)
    return {
        "frames a second": 1 / statistics.median(seconds),
        "range": [1 / worst, 1 / best],
        "clip": clip.name,
        "size": list(pictures.shape[1:3]),
        "passes": repeats,
    }
