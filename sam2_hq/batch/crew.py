"""Workers that may die: who is at what, and what happens to the work of a dead one.

What a worker is, a process or an actor on another machine, is the engine's business.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from safetensors import SafetensorError

from sam2_hq.batch.engines import MAX_RETRIES, Outcome, Outcomes, WorkQueue
from sam2_hq.evaluation.datasets import VideoSequence

OPENING_ERRORS = (ValueError, TypeError, OSError, SafetensorError)
"""What a model that cannot be had raises; every worker would."""

_log = logging.getLogger(__name__)


@dataclass
class Seat:
    """The place of one worker: it opens the model, then is idle or at a sequence.

    place: which of the crew's places this is, from 0. name: for people.
    """

    place: int
    name: str
    is_open: bool = False
    at: VideoSequence | None = None


class Opened(NamedTuple):
    """A worker has its model, or says why no worker can have it."""

    refusal: str | None


class Lost(NamedTuple):
    """A worker is dead."""

    why: str


SeatType = TypeVar("SeatType", bound=Seat)


class Crew(ABC, Generic[SeatType]):
    """The workers of one run. Owns them; a dead one is replaced."""

    def __init__(self, queue: WorkQueue, size: int) -> None:
        self._queue, self._size = queue, size
        self._spare_openings = MAX_RETRIES
        self.seats: list[SeatType] = []

    @abstractmethod
    def hire(self, place: int) -> SeatType:
        """Start a worker that opens the model."""

    @abstractmethod
    def give(self, seat: SeatType, sequence: VideoSequence) -> None:
        """Let a worker track; if it is dead, the next answer says so."""

    @abstractmethod
    def next_answer(self) -> tuple[SeatType, Opened | Outcome | Lost]:
        """Wait until a worker has something to say."""

    @abstractmethod
    def dismiss(self, seats: Sequence[SeatType]) -> None:
        """End these workers, whatever they are at."""

    def run(self) -> Outcomes:
        """Work until every sequence has its outcome.

        Raises:
            ValueError: if the model cannot be had.
            ChildProcessError: if no worker lives long enough to open it.
        """
        try:
            for place in range(self._size):
                self.seats.append(self.hire(place))
            while self._queue.num_open:
                outcome = self._hear(*self.next_answer())
                if outcome is not None:
                    yield outcome
        finally:
            self.dismiss(self.seats)

    def _hear(self, seat: SeatType, answer: Opened | Outcome | Lost) -> Outcome | None:
        if isinstance(answer, Lost):
            return self._replace(seat, answer.why)
        if isinstance(answer, Opened) and answer.refusal is not None:
            raise ValueError(answer.refusal)
        seat.is_open = True
        self._employ(seat)
        return None if isinstance(answer, Opened) else self._queue.close(answer)

    def _employ(self, seat: SeatType) -> None:
        seat.at = self._queue.take() if len(self._queue) else None
        if seat.at is not None:
            self.give(seat, seat.at)

    def _replace(self, seat: SeatType, why: str) -> Outcome | None:
        """Give the work of a dead worker to another, and its place to a new one if need be."""
        _log.warning("%s%s", why, f" at '{seat.at.name}'" if seat.at else "")
        self.seats.remove(seat)
        self.dismiss([seat])
        outcome = self._queue.lost(seat.at, seat.name, why) if seat.at else None
        idle = next((other for other in self.seats if other.is_open and other.at is None), None)
        if idle is not None:
            self._employ(idle)
        elif len(self._queue):
            self._hire_again(seat, why)
        return outcome

    def _hire_again(self, seat: SeatType, why: str) -> None:
        if not seat.is_open:
            self._spare_openings -= 1
        if seat.is_open or self._spare_openings >= 0:
            self.seats.append(self.hire(seat.place))
        elif not self.seats:
            raise ChildProcessError(f"{why} while it opened the model; is there memory for it?")
