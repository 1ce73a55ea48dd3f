"""What J and F do not tell: boundary IoU, and how calm the masks and names of objects are.

Boundary IoU is measured on the frames that count for J and F, flicker and identity switches on all
predicted frames. Objects are those that are judged.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sam2_hq.data.frames import natural_key
from sam2_hq.data.masks import BoolMask
from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.evaluation.mask_folders import FrameMasks, MaskFolder
from sam2_hq.evaluation.metrics import boundary_iou
from sam2_hq.evaluation.processes import map_sequences
from sam2_hq.evaluation.scoring import ObjectCurves
from sam2_hq.evaluation.stability import frame_flicker, switched_objects


@dataclass(frozen=True)
class Quality:
    """The masks of one sequence.

    boundary_iou: mean by object, from 0 to 1.
    flicker: mean by object, from 0 to 1; objects that are never in sight are left out.
    identity_switches: how often an object took the place of another.
    """

    boundary_iou: Mapping[int, float]
    flicker: Mapping[int, float]
    identity_switches: int


def measure_quality(
    sequences: Sequence[VideoSequence],
    predictions: str | os.PathLike[str],
    scores: Mapping[str, Mapping[int, ObjectCurves]],
    *,
    workers: int = 1,
    progress: bool = False,
) -> dict[str, Quality]:
    """Measure all sequences that have scores.

    Args:
        sequences: the truth.
        predictions: folder with a folder a sequence; a mask that is not there is empty.
        scores: J and F by sequence and object, as `evaluate` gives them; they say what counts.
        workers: processes; 1 measures in this one. More, as in `evaluate`.
        progress: show a progress bar.

    Raises:
        ValueError: if a mask is damaged or of another size; the message names the file.
    """
    scored = [sequence for sequence in sequences if sequence.name in scores]
    measure = partial(_measure_one, Path(predictions), scores)
    results = map_sequences(
        measure, scored, workers=workers, progress="measuring" if progress else None
    )
    return {sequence.name: found for sequence, found in zip(scored, results, strict=True)}


def _measure_one(
    predictions: Path,
    all_scores: Mapping[str, Mapping[int, ObjectCurves]],
    sequence: VideoSequence,
) -> Quality:
    scores = all_scores[sequence.name]
    counted = {i: set(values.frames) for i, values in scores.items()}
    prediction = sequence.prediction_in(predictions)
    edges: dict[int, list[float]] = {i: [] for i in scores}
    changes: dict[int, list[float]] = {i: [] for i in scores}
    switches = 0
    size = sequence.truth.read(sequence.truth.frames[0]).size
    window: deque[dict[int, BoolMask]] = deque(maxlen=3)
    for frame in sorted({*prediction.frames}.union(*counted.values()), key=natural_key):
        masks = _judged_masks(prediction, frame, size, scores)
        wanted = [i for i in scores if frame in counted[i]]
        if wanted:
            truth = sequence.truth.read(frame)
            for i in wanted:
                edges[i].append(_boundary_iou(masks.get(i), truth, i))
        window.append(masks)
        if len(window) > 1:
            switches += len(switched_objects(window[-2], window[-1]))
        if len(window) == 3:
            for i, value in _flicker(window).items():
                changes[i].append(value)
    return Quality(
        {i: float(np.mean(values)) for i, values in edges.items()},
        {i: float(np.mean(values)) for i, values in changes.items() if values},
        switches,
    )


def _judged_masks(
    prediction: MaskFolder, frame: str, size: tuple[int, int], judged: Mapping[int, ObjectCurves]
) -> dict[int, BoolMask]:
    found = prediction.read_beside(frame, size)
    return {i: mask for i, mask in found.masks.items() if i in judged} if found else {}


def _boundary_iou(mask: BoolMask | None, truth: FrameMasks, object_id: int) -> float:
    nothing = np.zeros(truth.size, dtype=bool)
    true = truth.masks.get(object_id, nothing)
    predicted = nothing if mask is None else mask
    if truth.void is not None:
        predicted = predicted & ~truth.void
    return boundary_iou(predicted, true)


def _flicker(window: Sequence[Mapping[int, BoolMask]]) -> dict[int, float]:
    """By object; those that are on none of the three frames are left out."""
    found = {}
    for i in {i for masks in window for i in masks}:
        seen = next(masks[i] for masks in window if i in masks)
        before, mask, after = (masks.get(i, np.zeros_like(seen)) for masks in window)
        value = frame_flicker(before, mask, after)
        if value is not None:
            found[i] = value
    return found
