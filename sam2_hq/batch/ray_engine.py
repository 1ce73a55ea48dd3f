"""The engine of many machines: actors of a Ray cluster that each hold a model.

Frames and masks never travel: every node, and the one that asks, must see the same storage under
the same paths.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any  # Any: Ray's handles, which have no public type

from sam2_hq.batch.crew import OPENING_ERRORS, Crew, Lost, Opened, Seat
from sam2_hq.batch.engines import Outcome, Outcomes, WorkQueue
from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.worker import Worker
from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.model_spec import ModelSpec

CONNECT_SECONDS = 5.0
HTTP2_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # an empty frame of type 4
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HTTP2_SETTINGS
START_SECONDS = 300.0


class RayEngine:
    """Tracks on a Ray cluster. A lost node's sequences go to others.

    address: HOST:PORT, or auto for RAY_ADDRESS or the cluster that this machine belongs to.
    workers: actors, each with one CPU and its share of the GPUs; None for one a GPU, or one a CPU
        of a cluster without.
    start_seconds: how long to wait for a node that takes the first worker.

    Raises:
        ValueError: if Ray is not installed, or `workers` is not positive.
    """

    def __init__(
        self,
        address: str = "auto",
        workers: int | None = None,
        *,
        start_seconds: float = START_SECONDS,
    ) -> None:
        _ray()
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be 1 or more on a cluster, got {workers}")
        self.address, self.workers, self.start_seconds = address, workers, start_seconds

    def run(self, job: DatasetJob, sequences: Sequence[VideoSequence]) -> Outcomes:
        """See `Engine`."""
        job = replace(job, model=_with_absolute_paths(job.model))
        with _connected(self.address):
            queue = WorkQueue(sequences)
            resources = _ray().cluster_resources()
            is_on_gpu = job.model.device in (None, "cuda") and resources.get("GPU", 0) > 0
            # A cluster that grows on demand may have none yet.
            slots = max(1, int(resources.get("GPU" if is_on_gpu else "CPU", 0)))
            size = min(self.workers or slots, len(queue))
            share = min(1.0, slots / size) if is_on_gpu else 0.0
            for outcome in _Actors(job, queue, size, share, self.start_seconds).run():
                _check_visible(outcome)
                yield outcome


@dataclass(kw_only=True)
class _Actor(Seat):
    handle: Any
    answer: Any  # what it will say next


class _Actors(Crew[_Actor]):
    def __init__(
        self, job: DatasetJob, queue: WorkQueue, size: int, gpu_share: float, start_seconds: float
    ) -> None:
        super().__init__(queue, size)
        self._job, self._start_seconds = job, start_seconds
        self._class = _ray().remote(num_cpus=1, num_gpus=gpu_share, max_restarts=0)(_RemoteWorker)

    def hire(self, place: int) -> _Actor:
        handle = self._class.remote()
        return _Actor(place, f"actor {place}", handle=handle, answer=handle.open.remote(self._job))

    def give(self, seat: _Actor, sequence: VideoSequence) -> None:
        seat.answer = seat.handle.track.remote(sequence)

    def next_answer(self) -> tuple[_Actor, Opened | Outcome | Lost]:
        expected = {seat.answer: seat for seat in self.seats if seat.at or not seat.is_open}
        is_working = any(seat.at for seat in self.seats)
        timeout = None if is_working else self._start_seconds
        ready, _ = _ray().wait(list(expected), timeout=timeout)
        if not ready:
            raise ConnectionError(
                f"no node of the cluster took a worker within {self._start_seconds:g} seconds; "
                "has it free CPUs?"
            )
        seat = expected[ready[0]]
        try:
            return seat, _ray().get(ready[0])
        except _ray().exceptions.RayError as error:
            return seat, Lost(f"{seat.name} was lost ({type(error).__name__})")

    def dismiss(self, seats: Sequence[_Actor]) -> None:
        for seat in seats:
            _ray().kill(seat.handle)


class _RemoteWorker:
    """Lives in the process of an actor."""

    def open(self, job: DatasetJob) -> Opened:
        try:
            self._worker = Worker(job)
        except OPENING_ERRORS as error:
            return Opened(str(error))
        return Opened(None)

    def track(self, sequence: VideoSequence) -> Outcome:
        return self._worker.track(sequence)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError("Ray is not installed: pip install 'sam2-hq[distributed]'") from error
    return ray


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """A program that has joined a cluster stays in it."""
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    _check_reachable(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="warning")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConnectionError(f"address: no Ray cluster answers at '{address}': {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Greet the cluster in HTTP/2, which gRPC speaks; Ray would wait for an answer for ever."""
    place = re.fullmatch(r"([^:/]+):(\d+)", address)
    if place is None:
        return
    try:
        with socket.create_connection((place[1], int(place[2])), CONNECT_SECONDS) as connection:
            connection.sendall(HTTP2_GREETING)
            answer = connection.recv(len(HTTP2_SETTINGS))
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"address: no Ray cluster answers at '{address}': {error}") from error
    if answer[3:4] != HTTP2_SETTINGS[3:4]:
        raise ConnectionError(f"address: what answers at '{address}' is no Ray cluster")


def _with_absolute_paths(model: ModelSpec) -> ModelSpec:
    """Workers start in other folders."""

    def absolute(name: str | None) -> str | None:
        return str(Path(name).absolute()) if name and Path(name).is_file() else name

    return replace(model, checkpoint=absolute(model.checkpoint), config=absolute(model.config))


def _check_visible(outcome: Outcome) -> None:
    if outcome.folder is not None and not outcome.folder.is_dir():
        raise FileNotFoundError(
            f"'{outcome.folder}', written by {outcome.record.worker}, is not here: the output "
            "folder must be on storage that all nodes share"
        )
