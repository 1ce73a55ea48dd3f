"""What a worker does, in whatever process: load the model once, then track sequence by sequence."""

from __future__ import annotations

import logging
import os
import socket
import time
import traceback
from dataclasses import replace

from sam2_hq.batch.engines import Outcome
from sam2_hq.batch.folders import discard, unfinished_folder
from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.manifest import Record
from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.evaluation.tracked_folder import track_sequence
from sam2_hq.peak_memory import peak_cuda_bytes, peak_rss_bytes, reset_peaks

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
                tracked = track_sequence(
                    self._predictor,
                    sequence,
                    self._job.dataset,
                    folder,
                    rules=self._job.rules,
                    every_mask=self._job.every_mask,
                )
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
