"""A sequence tracked from its own annotations into a folder of masks: the result of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sam2_hq.data.frames import open_frames
from sam2_hq.data.masks import MAX_ID, BoolMask, merge_masks, write_id_map, write_object_masks
from sam2_hq.evaluation.datasets import Dataset, VideoSequence
from sam2_hq.evaluation.semi_supervised import (
    TrackingRules,
    first_appearances,
    track_objects,
)
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor


class TrackedSequence(NamedTuple):
    """How many frames and which objects were tracked, and which ones that appear later were not."""

    frames: int
    object_ids: list[int]
    left_out: list[int]


def track_sequence(
    predictor: SAM2VideoPredictor,
    sequence: VideoSequence,
    dataset: Dataset,
    folder: Path,
    *,
    rules: TrackingRules,
    every_mask: bool = False,
) -> TrackedSequence:
    """Track all objects of a sequence and write a mask for every frame.

    Frames before the first object get empty masks, and in a folder an object also annotated
    objects that are not tracked.

    Args:
        predictor: the model; the caller sets inference mode and autocast.
        sequence: where its frames and annotations are.
        dataset: whether objects appear late, and the layout of the results.
        folder: is made; gets PNG files, or a folder of them for each object.
        rules: how objects are prompted and cut out.
        every_mask: every annotation of an object is a prompt, not its first alone.

    Raises:
        ValueError: if frames or masks are not as they should be, or no frame has an object.
    """
    assert sequence.frames is not None
    folder.mkdir(parents=True)
    with open_frames(sequence.frames) as frames:
        prompts = first_appearances(
            sequence.truth,
            frames.names,
            size=frames.size,
            late=dataset.late_objects,
            every=every_mask,
        )
        object_ids = sorted({i for masks in prompts.values() for i in masks})
        _check_ids(object_ids, sequence, per_object=dataset.per_object)
        truth, late = sequence.truth, dataset.late_objects
        # With late ones, all objects of packed masks are prompted: no need to read these again.
        annotated = object_ids if late and not truth.is_per_object else truth.object_ids
        writer = _MaskWriter(folder, annotated, frames.size, per_object=dataset.per_object)
        for index in range(min(prompts)):
            writer.write(frames.names[index], {})
        for index, masks in track_objects(predictor, frames, prompts, rules):
            writer.write(frames.names[index], masks)
        left_out = [] if late else sorted({*annotated} - {*object_ids})
        return TrackedSequence(len(frames), object_ids, left_out)


class _MaskWriter:
    """Writes the masks of a frame in one of the two layouts."""

    def __init__(
        self, folder: Path, object_ids: list[int], size: tuple[int, int], *, per_object: bool
    ) -> None:
        self._folder, self._object_ids, self._per_object = folder, object_ids, per_object
        self._nothing = np.zeros(size, dtype=bool)

    def write(self, frame: str, masks: Mapping[int, BoolMask]) -> None:
        if self._per_object:
            whole = {i: masks.get(i, self._nothing) for i in self._object_ids}
            write_object_masks(self._folder, frame, whole)
        else:
            # Where masks overlap, the smaller id is painted last.
            painted = dict(sorted(masks.items(), reverse=True))
            ids = merge_masks(painted, size=(self._nothing.shape[0], self._nothing.shape[1]))
            write_id_map(self._folder / f"{frame}.png", ids)


def _check_ids(object_ids: list[int], sequence: VideoSequence, *, per_object: bool) -> None:
    wrong = [i for i in object_ids if not 1 <= i <= MAX_ID]
    if wrong and not per_object:
        raise ValueError(
            f"'{sequence.truth.folder}' has object {wrong[0]}, a packed mask holds 1 to {MAX_ID}; "
            "write one folder an object"
        )
