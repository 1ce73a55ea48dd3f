"""Seconds of work on a device, and what repeated measurements say together.

On CUDA the marks are events in the stream, so that measuring waits for the device once, at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any  # Any: JSON values

import numpy as np
import torch

Mark = float | torch.cuda.Event
"""A moment: seconds, or an event in the stream of a CUDA device."""


class Clock:
    """Tells the time that a device needs.

    Args:
        device: whose work is timed.
        cpu_time: count what this process spends on all its threads, which other processes do not
            disturb; only for the CPU.

    Raises:
        ValueError: for `cpu_time` on another device.
    """

    def __init__(self, device: torch.device | str = "cpu", *, cpu_time: bool = False) -> None:
        self.device = torch.device(device)
        if cpu_time and self.device.type != "cpu":
            raise ValueError(f"cpu_time must be off for work on {self.device}, got True")
        self._read = time.process_time if cpu_time else time.perf_counter

    def mark(self) -> Mark:
        """The moment at which the work given to the device so far is done."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            return event
        if self.device.type == "mps":
            torch.mps.synchronize()
        return self._read()

    def seconds(self, marks: Sequence[Mark]) -> list[float]:
        """Seconds from each mark to the next; waits for the last one."""
        if marks and isinstance(marks[-1], torch.cuda.Event):
            marks[-1].synchronize()
        return [_between(first, second) for first, second in pairwise(marks)]

    def time(self, work: Callable[[], object]) -> float:
        """Seconds of one call."""
        start = self.mark()
        work()
        return self.seconds([start, self.mark()])[0]

    def laps(self, steps: Iterable[object]) -> list[float]:
        """Seconds of each step of an iteration."""
        marks = [self.mark()]
        for _ in steps:
            marks.append(self.mark())
        return self.seconds(marks)


@dataclass(frozen=True)
class Timing:
    """Seconds of one kind of work that was done several times."""

    median: float
    first_quartile: float
    third_quartile: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Summarise measurements.

        Raises:
            ValueError: if there is none.
        """
        if not seconds:
            raise ValueError("seconds must hold at least one measurement, got none")
        low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
        return cls(middle, low, high, len(seconds))

    @property
    def per_second(self) -> float:
        """How often the work can be done in a second."""
        return 1 / self.median

    def to_json(self) -> dict[str, Any]:
        """Seconds, and times a second."""
        return {
            "median_seconds": self.median,
            "quartiles_seconds": [self.first_quartile, self.third_quartile],
            "count": self.count,
            "per_second": self.per_second,
        }


def _between(first: Mark, second: Mark) -> float:
    if isinstance(first, torch.cuda.Event):
        assert isinstance(second, torch.cuda.Event)
        return first.elapsed_time(second) / 1000
    assert isinstance(second, float)
    return second - first
