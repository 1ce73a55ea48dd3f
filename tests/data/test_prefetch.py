from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError

import numpy as np
import pytest

from sam2_hq.data.prefetch import PrefetchedFrames
from sam2_hq.data.sources import VideoFrames, number_names


class CountedFrames(VideoFrames):
    """Frame i is filled with i; knows what was read, and by whom."""

    def __init__(self, count=50, broken=()):
        self.size = (2, 2)
        self.names = number_names(count)
        self.read: list[int] = []
        self.threads: set[int] = set()
        self._broken = broken
        self._busy = threading.Lock()

    def _read(self, index):
        assert self._busy.acquire(blocking=False), "two threads read at once"
        self.read.append(index)
        self.threads.add(threading.get_ident())
        time.sleep(0.0005)
        self._busy.release()
        if index in self._broken:
            raise ValueError(f"frame {index} is damaged")
        return np.full((2, 2, 3), index, np.uint8)


def settle(frames, count):
    deadline = time.monotonic() + 5
    while len(frames.read) < count and time.monotonic() < deadline:
        time.sleep(0.001)


def value(frames, index):
    return int(frames[index][0, 0, 0])


@pytest.mark.parametrize("ahead", [0, 1, 4])
@pytest.mark.parametrize("order", [range(50), range(49, -1, -1), [3, 40, 2, 2, 49, 0, 25]])
def test_any_order_gives_the_frame_asked_for(ahead, order):
    with PrefetchedFrames(CountedFrames(), value, ahead=ahead) as prefetched:
        assert [prefetched.get(index) for index in order] == list(order)


def test_frames_are_read_ahead_in_the_direction_of_travel():
    frames = CountedFrames()
    with PrefetchedFrames(frames, value, ahead=3) as prefetched:
        prefetched.get(20)
        settle(frames, 4)
        assert frames.read == [20, 21, 22, 23]
        prefetched.get(19)
        settle(frames, 7)
        assert frames.read[4:] == [19, 18, 17]  # and 16 waits for no one
    assert threading.get_ident() not in frames.threads


def test_each_frame_is_read_once_on_a_straight_way():
    frames = CountedFrames()
    with PrefetchedFrames(frames, value) as prefetched:
        for index in range(50):
            prefetched.get(index)
            prefetched.get(index)
    assert frames.read == list(range(50))


def test_no_more_results_are_held_than_the_bound():
    class Result:
        def __init__(self, frames, index):
            frames[index]
            made.append(weakref.ref(self))

    made: list[weakref.ref] = []
    with PrefetchedFrames(CountedFrames(), Result, ahead=3, keep=2) as prefetched:
        for index in range(15):
            prefetched.get(index)
            gc.collect()
            assert sum(reference() is not None for reference in made) <= 3 + 2 + 1


@pytest.mark.parametrize("ahead", [0, 4])
def test_an_error_appears_at_its_own_frame_and_again_on_a_retry(ahead):
    with PrefetchedFrames(CountedFrames(broken={2}), value, ahead=ahead) as prefetched:
        assert [prefetched.get(index) for index in (0, 1)] == [0, 1]
        for _ in range(2):
            with pytest.raises(ValueError, match="frame 2 is damaged"):
                prefetched.get(2)
        assert prefetched.get(3) == 3
        with pytest.raises(IndexError):
            prefetched.get(50)


def test_many_threads_may_ask_at_once():
    wrong: list[int] = []

    def ask(prefetched, seed):
        for index in np.random.default_rng(seed).integers(0, 50, 60).tolist():
            if prefetched.get(index) != index:
                wrong.append(index)

    with PrefetchedFrames(CountedFrames(), value, ahead=3, keep=1) as prefetched:
        threads = [threading.Thread(target=ask, args=(prefetched, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
    assert not wrong


def test_the_reader_may_be_read_while_it_is_read_ahead():
    frames = CountedFrames()
    with PrefetchedFrames(frames, value, ahead=4) as prefetched:
        for index in range(50):
            assert prefetched.get(index) == index
            assert value(frames, 49 - index) == 49 - index


def test_closing_joins_the_thread_and_ends_the_reading():
    before = set(threading.enumerate())
    prefetched = PrefetchedFrames(CountedFrames(), value)
    prefetched.get(0)
    assert set(threading.enumerate()) - before
    prefetched.close()
    prefetched.close()
    assert not set(threading.enumerate()) - before
    with pytest.raises(RuntimeError, match="closed"):
        prefetched.get(0)


def test_a_forgotten_instance_takes_its_thread_along():
    before = set(threading.enumerate())
    prefetched = PrefetchedFrames(CountedFrames(), value)
    prefetched.get(0)
    del prefetched
    gc.collect()
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize(("ahead", "keep"), [(-1, 1), (1, 0)])
def test_bad_bounds_are_refused(ahead, keep):
    with pytest.raises(ValueError, match="ahead must be >= 0 and keep >= 1"):
        PrefetchedFrames(CountedFrames(), value, ahead=ahead, keep=keep)


@pytest.mark.parametrize("ahead", [0, 3])
@pytest.mark.timeout(20)
def test_a_source_that_was_cancelled_is_an_error_and_no_endless_wait(ahead):
    def read(frames, index):
        raise CancelledError("the pool is gone")

    with (
        PrefetchedFrames(CountedFrames(), read, ahead=ahead) as frames,
        pytest.raises(CancelledError, match="the pool is gone"),
    ):
        frames.get(1)
