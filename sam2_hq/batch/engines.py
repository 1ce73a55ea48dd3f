"""What every engine offers, and the queue of sequences behind it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.manifest import Record
from sam2_hq.evaluation.datasets import VideoSequence

MAX_RETRIES = 2
"""How often a sequence is given to another worker after one was lost over it."""


class Outcome(NamedTuple):
    """What became of a sequence, and the unpublished folder of its masks; None if it failed."""

    record: Record
    folder: Path | None


Outcomes = Generator[Outcome, None, None]
"""As they come; closing it stops the workers."""


class Engine(Protocol):
    """Something that tracks sequences, in any order and on any number of machines."""

    def run(self, job: DatasetJob, sequences: Sequence[VideoSequence]) -> Outcomes:
        """Yield one outcome for every sequence.

        Raises:
            ValueError, OSError: if no worker can do any of them.
        """
        ...


class WorkQueue:
    """Sequences that wait for a worker. Counts how often each was given away."""

    def __init__(self, sequences: Sequence[VideoSequence]) -> None:
        self._waiting = deque(sequences)
        self._given: Counter[str] = Counter()
        self.num_open = len(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> VideoSequence:
        """The next sequence."""
        sequence = self._waiting.popleft()
        self._given[sequence.name] += 1
        return sequence

    def close(self, outcome: Outcome) -> Outcome:
        """Note that a sequence has its outcome, and in it how many attempts that took."""
        self.num_open -= 1
        record = outcome.record
        return outcome._replace(record=record.after(self._given[record.name]))

    def lost(self, sequence: VideoSequence, worker: str, why: str) -> Outcome | None:
        """A worker died over a sequence: it waits again, or after too many has failed."""
        if self._given[sequence.name] <= MAX_RETRIES:
            self._waiting.append(sequence)
            return None
        return self.close(Outcome(Record.failure(sequence.name, worker, why), None))
