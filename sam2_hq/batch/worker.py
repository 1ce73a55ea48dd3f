"""What a worker does, in whatever process: load the model once, then track sequence by sequence."""

from __future__ import annotations

import logging
import os
import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sam2_hq.batch.engines import Outcome
from sam2_hq.batch.folders import discard, unfinished_folder
from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.manifest import Record
from sam2_hq.data.frames import open_frames
from sam2_hq.data.masks import MAX_ID, BoolMask, write_id_map, write_object_masks
from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.evaluation.semi_supervised import first_appearances, id_map, track_objects
from sam2_hq.peak_memory import peak_cuda_bytes, peak_rss_bytes, reset_peaks
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor

_log = logging.getLogger(__name__)


class Worker:
    """A loaded model and what to do with it.

    Raises:
        ValueError, TypeError, OSError: if the model cannot be had.
    """

    def __init__(self, job: DatasetJob, device: str | None = None) -> None:
        self._job = job
        self._model = replace(job.model, device=device or job.model.device)
        self._predictor = self._model.open()
        self.name = f"{socket.gethostname()}/{os.getpid()}/{self._predictor.device}"

    def track(self, sequence: VideoSequence) -> Outcome:
        """Track a sequence into a folder that nobody sees yet; an error is an outcome, too."""
        device = self._predictor.device
        folder = unfinished_folder(self._job.out, sequence.name)
        reset_peaks(device)
        begun = time.perf_counter()
        try:
            with self._model.running_on(device):
                tracked = track_sequence(self._job, self._predictor, sequence, folder)
        except Exception as error:
            # Whatever it is: one damaged video must not end a run of thousands.
            discard(folder)
            _log.debug("'%s' failed", sequence.name, exc_info=True)
            told = " ".join(str(error).split()) or type(error).__name__
            return Outcome(
                Record.failure(sequence.name, self.name, told, traceback.format_exc()), None
            )
        record = Record(
            sequence.name,
            "done",
            self.name,
            frames=tracked.frames,
            objects=len(tracked.object_ids),
            untracked=tracked.left_out or None,
            seconds=round(time.perf_counter() - begun, 3),
            peak_rss_bytes=peak_rss_bytes(),
            peak_cuda_bytes=peak_cuda_bytes(device),
        )
        return Outcome(record, folder)


class TrackedSequence(NamedTuple):
    """How many frames and which objects were tracked, and which ones that appear later were not."""

    frames: int
    object_ids: list[int]
    left_out: list[int]


def track_sequence(
    job: DatasetJob, predictor: SAM2VideoPredictor, sequence: VideoSequence, folder: Path
) -> TrackedSequence:
    """Track all objects of a sequence and write a mask for every frame.

    Frames before the first object get empty masks, and in a folder an object also annotated
    objects that are not tracked.

    Args:
        job: prompts and layout.
        predictor: the model; the caller sets inference mode and autocast.
        sequence: where its frames and annotations are.
        folder: is made; gets PNG files, or a folder of them for each object.

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
            late=job.dataset.late_objects,
            every=job.every_mask,
        )
        object_ids = sorted({i for masks in prompts.values() for i in masks})
        _check_ids(object_ids, sequence, per_object=job.dataset.per_object)
        truth, late = sequence.truth, job.dataset.late_objects
        # With late ones, all objects of packed masks are prompted: no need to read these again.
        annotated = object_ids if late and not truth.is_per_object else truth.object_ids
        writer = _MaskWriter(folder, annotated, frames.size, per_object=job.dataset.per_object)
        for index in range(min(prompts)):
            writer.write(frames.names[index], {})
        for index, masks in track_objects(predictor, frames, prompts, job.rules):
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
            ids = id_map(masks, (self._nothing.shape[0], self._nothing.shape[1]))
            write_id_map(self._folder / f"{frame}.png", ids)


def _check_ids(object_ids: list[int], sequence: VideoSequence, *, per_object: bool) -> None:
    wrong = [i for i in object_ids if not 1 <= i <= MAX_ID]
    if wrong and not per_object:
        raise ValueError(
            f"'{sequence.truth.folder}' has object {wrong[0]}, a packed mask holds 1 to {MAX_ID}; "
            "write one folder an object"
        )
