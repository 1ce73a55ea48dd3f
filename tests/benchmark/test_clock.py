"""The clock against sleeping and spinning, whose lengths are known."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from sam2_hq.benchmark.clock import Clock, Timing


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_wall_time_counts_waiting_and_cpu_time_does_not() -> None:
    assert Clock().time(lambda: time.sleep(0.03)) >= 0.03
    assert Clock(cpu_time=True).time(lambda: time.sleep(0.03)) < 0.02
    assert Clock(cpu_time=True).time(lambda: spin(0.03)) >= 0.03


def test_each_step_of_an_iteration_is_timed_alone() -> None:
    def steps() -> Iterator[None]:
        for seconds in (0.0, 0.03, 0.0):
            spin(seconds)
            yield

    first, slow, last = Clock(cpu_time=True).laps(steps())
    assert slow >= 0.03 > max(first, last)


def test_cpu_time_of_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="cpu_time must be off for work on cuda"):
        Clock("cuda", cpu_time=True)


def test_a_timing_has_median_and_quartiles() -> None:
    timing = Timing.of([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (timing.first_quartile, timing.median, timing.third_quartile) == (2, 3, 4)
    assert timing.to_json()["per_second"] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="at least one measurement"):
        Timing.of([])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_work_is_timed_and_not_its_launch() -> None:
    clock = Clock("cuda")
    # A launch takes microseconds; waiting 10^8 cycles takes tens of milliseconds.
    assert clock.time(lambda: torch.cuda._sleep(10**8)) > 0.02
