"""The engine of one machine: processes that each hold a model, or this process alone."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

import torch

from sam2_hq.batch.engines import OPENING_ERRORS, Outcome, Outcomes, WorkQueue
from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.worker import Worker
from sam2_hq.device import choose_device
from sam2_hq.evaluation.datasets import VideoSequence

_log = logging.getLogger(__name__)

STOP_SECONDS = 10.0
"""How long a worker may take to end when told to."""


class LocalEngine:
    """Tracks on this machine.

    workers: processes. They spread over all CUDA devices unless the job names one, and share the
        CPU's cores. 0 tracks in this process, where nothing notices if the system kills it.

    Raises:
        ValueError: if `workers` is negative.
    """

    def __init__(self, workers: int = 0) -> None:
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, got {workers}")
        self.workers = workers

    def run(self, job: DatasetJob, sequences: Sequence[VideoSequence]) -> Outcomes:
        """See `Engine`."""
        queue = WorkQueue(sequences)
        if self.workers:
            yield from _Crew(job, queue, min(self.workers, len(queue))).run()
            return
        worker = Worker(job)
        while len(queue):
            yield queue.close(worker.track(queue.take()))


class _Crew:
    """The worker processes of a run. Owns them; a dead one is replaced."""

    def __init__(self, job: DatasetJob, queue: WorkQueue, size: int) -> None:
        self._job, self._queue = job, queue
        self._threads = max(1, torch.get_num_threads() // size)
        self._seats = [self._hire(device) for device in _spread(job.model.device, size)]

    def _hire(self, device: str) -> _Seat:
        return _Seat(self._job, device, self._threads)

    def run(self) -> Outcomes:
        try:
            while self._queue.num_open:
                ready = wait([seat.pipe for seat in self._seats])
                for seat in [seat for seat in self._seats if seat.pipe in ready]:
                    outcome = self._attend(seat)
                    if outcome is not None:
                        yield outcome
        finally:
            for seat in self._seats:
                seat.dismiss()
            for seat in self._seats:
                seat.join()

    def _attend(self, seat: _Seat) -> Outcome | None:
        """Take what a worker says, and give it the next sequence."""
        try:
            answer = seat.pipe.recv()
        except (EOFError, OSError):
            return self._replace(seat)
        if isinstance(answer, Exception):
            raise answer
        seat.is_open = True
        seat.give(self._queue)
        return None if answer is None else self._queue.close(answer)

    def _replace(self, seat: _Seat) -> Outcome | None:
        self._seats.remove(seat)
        seat.dismiss()
        seat.join()
        how = f"worker {seat.process.pid} ended with exit code {seat.process.exitcode}"
        if seat.is_open:
            self._seats.append(self._hire(seat.device))
        elif not self._seats:
            raise ChildProcessError(f"{how} while it opened the model; is there memory for it?")
        _log.warning("%s%s", how, f" at '{seat.at.name}'" if seat.at else "")
        if seat.at is None:
            return None
        return self._queue.lost(seat.at, str(seat.process.pid), f"{how}; out of memory?")


class _Seat:
    """One worker process, and the sequence that it is at."""

    def __init__(self, job: DatasetJob, device: str, threads: int) -> None:
        # A forked process cannot use CUDA, and would keep the pipes of the others open.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, job, device, threads), daemon=True
        )
        self.process.start()
        theirs.close()
        self.device = device
        self.is_open = False
        self.at: VideoSequence | None = None

    def give(self, queue: WorkQueue) -> None:
        self.at = queue.take() if len(queue) else None
        if self.at is not None:
            # One that has died meanwhile is noticed when its answer is read.
            with suppress(OSError):
                self.pipe.send(self.at)

    def dismiss(self) -> None:
        """Tell the process to end: an idle one at its own pace, a busy one at once."""
        self.pipe.close()
        if self.at is not None:
            self.process.terminate()

    def join(self) -> None:
        self.process.join(STOP_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(pipe: Connection, job: DatasetJob, device: str, threads: int) -> None:
    # Ctrl-C reaches the whole group; the parent decides what then happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        worker = Worker(job, device)
    except OPENING_ERRORS as error:
        pipe.send(ValueError(str(error)))
        return
    pipe.send(None)
    with suppress(EOFError):
        while True:
            pipe.send(worker.track(pipe.recv()))


def _end_with_parent() -> None:
    """A killed run shall not leave processes that hold a GPU."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _spread(device: str | None, count: int) -> list[str]:
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        return [f"cuda:{i % torch.cuda.device_count()}" for i in range(count)]
    return [str(chosen)] * count
