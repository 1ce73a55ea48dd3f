"""The engine of one machine: processes that each hold a model, or this process alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from sam2_hq.batch.crew import OPENING_ERRORS, Crew, Lost, Opened, Seat
from sam2_hq.batch.engines import Outcome, Outcomes, WorkQueue
from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.worker import Worker
from sam2_hq.device import choose_device
from sam2_hq.evaluation.datasets import VideoSequence

STOP_SECONDS = 10.0
"""How long a worker may take to end when told to."""


class LocalEngine:
    """Tracks on this machine.

    workers: processes. They spread over all CUDA devices unless the job names one, and share the
        CPU's cores. 0 tracks in this process, where nothing notices if the system kills it. None
        for one a CUDA device where there are several, else 0.

    Raises:
        ValueError: if `workers` is negative.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 0:
            raise ValueError(f"workers must be 0 or more, got {workers}")
        self.workers = workers

    def run(self, job: DatasetJob, sequences: Sequence[VideoSequence]) -> Outcomes:
        """See `Engine`."""
        queue = WorkQueue(sequences)
        workers = _one_a_gpu(job.model.device) if self.workers is None else self.workers
        if workers:
            yield from _Processes(job, queue, min(workers, len(queue))).run()
            return
        worker = Worker(job)
        while len(queue):
            yield queue.close(worker.track(queue.take()))


@dataclass(kw_only=True)
class _Process(Seat):
    process: SpawnProcess
    pipe: Connection = field(repr=False)


class _Processes(Crew[_Process]):
    def __init__(self, job: DatasetJob, queue: WorkQueue, size: int) -> None:
        super().__init__(queue, size)
        self._job = job
        self._devices = _spread(job.model.device, size)
        self._threads = max(1, torch.get_num_threads() // size)

    def hire(self, place: int) -> _Process:
        # A forked process cannot use CUDA, and would keep the pipes of the others open.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve,
            args=(theirs, self._job, self._devices[place], self._threads),
            daemon=True,
        )
        process.start()
        theirs.close()
        return _Process(place, str(process.pid), process=process, pipe=ours)

    def give(self, seat: _Process, sequence: VideoSequence) -> None:
        with suppress(OSError):
            seat.pipe.send(sequence)

    def next_answer(self) -> tuple[_Process, Opened | Outcome | Lost]:
        ready = wait([seat.pipe for seat in self.seats])
        seat = next(seat for seat in self.seats if seat.pipe in ready)
        try:
            return seat, seat.pipe.recv()
        except (EOFError, OSError):
            seat.process.join(STOP_SECONDS)
            code = seat.process.exitcode
            return seat, Lost(f"worker {seat.name} ended with exit code {code} (out of memory?)")

    def dismiss(self, seats: Sequence[_Process]) -> None:
        for seat in seats:
            seat.pipe.close()  # an idle one ends
            if seat.at is not None or not seat.is_open:
                seat.process.terminate()
        for seat in seats:
            seat.process.join(STOP_SECONDS)
            if seat.process.is_alive():
                seat.process.kill()
                seat.process.join()


def _serve(pipe: Connection, job: DatasetJob, device: str, threads: int) -> None:
    # Ctrl-C reaches the whole group; the parent decides what then happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        worker = Worker(job, device)
    except OPENING_ERRORS as error:
        pipe.send(Opened(str(error)))
        return
    pipe.send(Opened(None))
    with suppress(EOFError):
        while True:
            pipe.send(worker.track(pipe.recv()))


def _end_with_parent() -> None:
    """A killed run shall not leave processes that hold a GPU."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _one_a_gpu(device: str | None) -> int:
    count = torch.cuda.device_count() if _is_any_gpu(choose_device(device)) else 0
    return count if count > 1 else 0


def _spread(device: str | None, count: int) -> list[str]:
    chosen = choose_device(device)
    if _is_any_gpu(chosen):
        return [f"cuda:{i % torch.cuda.device_count()}" for i in range(count)]
    return [str(chosen)] * count


def _is_any_gpu(device: torch.device) -> bool:
    return device.type == "cuda" and device.index is None
