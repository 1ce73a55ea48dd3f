"""Workers that die at any moment: nothing is lost or done twice, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_hq.batch.crew import Crew, Lost, Opened, Seat
from sam2_hq.batch.engines import MAX_RETRIES, Outcome, WorkQueue
from sam2_hq.batch.manifest import Record
from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.evaluation.mask_folders import MaskFolder


class Doomed(Crew[Seat]):
    """Workers in name only. Their fates are drawn: whoever is asked lives or dies."""

    def __init__(self, queue: WorkQueue, size: int, data: st.DataObject) -> None:
        super().__init__(queue, size)
        self._data = data
        self.given: list[str] = []
        self.deaths: Counter[str] = Counter()
        self.dismissed: list[Seat] = []

    def hire(self, place: int) -> Seat:
        return Seat(place, f"worker {place}")

    def give(self, seat: Seat, sequence: VideoSequence) -> None:
        self.given.append(sequence.name)

    def next_answer(self) -> tuple[Seat, Opened | Outcome | Lost]:
        busy = [seat for seat in self.seats if seat.at or not seat.is_open]
        assert busy, "would wait for ever"
        seat = self._data.draw(st.sampled_from(busy))
        if self._data.draw(st.integers(0, 2)) == 0:
            if seat.at:
                self.deaths[seat.at.name] += 1
            return seat, Lost("it died")
        if seat.at is None:
            return seat, Opened(None)
        return seat, Outcome(Record(seat.at.name, "done", seat.name), Path())

    def dismiss(self, seats: Sequence[Seat]) -> None:
        self.dismissed += seats


def sequences(count: int) -> list[VideoSequence]:
    return [VideoSequence(f"v{i}", MaskFolder(Path())) for i in range(count)]


@given(st.integers(1, 6), st.integers(1, 4), st.data())
def test_every_sequence_ends_once_whoever_dies(num_sequences: int, size: int, data: st.DataObject):
    crew = Doomed(WorkQueue(sequences(num_sequences)), size, data)
    records: list[Record] = []
    try:
        records += [outcome.record for outcome in crew.run()]
    except ChildProcessError:
        assert not crew.seats
        return
    assert sorted(r.name for r in records) == [f"v{i}" for i in range(num_sequences)]
    for record in records:
        has_failed = crew.deaths[record.name] > MAX_RETRIES
        assert record.status == ("failed" if has_failed else "done")
        assert record.attempts == crew.given.count(record.name)
        assert record.attempts == crew.deaths[record.name] + (not has_failed)


def test_a_model_that_nobody_can_open_ends_the_run():
    class Refusing(Doomed):
        def next_answer(self) -> tuple[Seat, Opened | Outcome | Lost]:
            return self.seats[0], Opened("no such checkpoint")

    crew = Refusing(WorkQueue(sequences(3)), 2, None)
    with pytest.raises(ValueError, match="no such checkpoint"):
        list(crew.run())
    assert [seat.place for seat in crew.dismissed] == [0, 1]


def test_workers_that_always_die_at_the_model_end_the_run():
    class Starved(Doomed):
        def next_answer(self) -> tuple[Seat, Opened | Outcome | Lost]:
            return self.seats[0], Lost("worker 7 ended with exit code -9")

    with pytest.raises(ChildProcessError, match="exit code -9 while it opened the model"):
        list(Starved(WorkQueue(sequences(3)), 2, None).run())
