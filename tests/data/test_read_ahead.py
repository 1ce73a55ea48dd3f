"""Files are read while others are worked on, in order, and never too many."""

from __future__ import annotations

import threading

import pytest

from sam2_hq.data.read_ahead import read_ahead


def test_values_come_in_order_with_their_keys() -> None:
    assert list(read_ahead(lambda n: n * n, range(5))) == [(n, n * n) for n in range(5)]
    assert list(read_ahead(lambda n: n, [])) == []


def test_the_next_is_read_while_the_last_is_worked_on() -> None:
    has_begun = {n: threading.Event() for n in range(5)}

    def read(n: int) -> int:
        has_begun[n].set()
        return n

    values = read_ahead(read, range(5), depth=2)
    assert next(values) == (0, 0)
    assert has_begun[2].wait(timeout=30)
    assert not has_begun[3].is_set()  # that would be more than two ahead


def test_a_damaged_file_is_reported_in_its_turn() -> None:
    def read(n: int) -> int:
        if n == 2:
            raise ValueError("mask 2 is damaged")
        return n

    values = read_ahead(read, range(5))
    assert [next(values), next(values)] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="damaged"):
        next(values)
