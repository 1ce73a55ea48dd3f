"""Frames decoded and prepared ahead of their use, by one thread, within a bound."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from sam2_hq.data.sources import VideoFrames

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class PrefetchedFrames(Generic[T]):
    """`get(i)` is `read(frames, i)`; the next ones in the direction of travel are made ahead.

    Holds at most `ahead + keep` results and one in the making. One thread alone reads, so any
    number of threads may call `get`. Owns its thread, not the reader: `close` joins the one and
    leaves the other open. A forgotten instance takes its thread with it when it is collected.
    """

    def __init__(
        self,
        frames: VideoFrames,
        read: Callable[[VideoFrames, int], T],
        *,
        ahead: int = 4,
        keep: int = 4,
    ) -> None:
        """Start reading ahead at the first `get`.

        Args:
            frames: the reader; others may read it meanwhile, and wait for each other.
            read: makes the result for a frame; runs in the thread.
            ahead: results made before they are asked for; 0 works without a thread.
            keep: results kept after they were asked for, the last one included.

        Raises:
            ValueError: if `ahead` is negative or `keep` is not positive.
        """
        if ahead < 0 or keep < 1:
            raise ValueError(f"ahead must be >= 0 and keep >= 1, got {ahead} and {keep}")
        self.frames = frames
        self._read = read
        self._ahead = ahead
        self._lock = threading.Lock()  # guards everything below
        self._results: dict[int, Future[T]] = {}
        self._asked: deque[int] = deque(maxlen=keep)
        self._step = 1
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1, "sam2_hq-frames") if ahead else None

    def get(self, index: int) -> T:
        """Return the result for one frame, waiting for it if need be.

        Raises:
            RuntimeError: after `close`.
            IndexError, ValueError: what reading this very frame raised.
        """
        while True:
            with self._lock:
                future = self._ask(index)
            try:
                return future.result()
            except Exception:
                if future.cancelled():  # another caller jumped elsewhere: ask again
                    continue
                with self._lock:
                    self._results.pop(index, None)
                raise

    def close(self) -> None:
        """Drop all results and join the thread; a frame being decoded is waited for."""
        with self._lock:
            self._is_closed = True
            self._results.clear()
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, index: int) -> Future[T]:
        if self._is_closed:
            raise RuntimeError("the frames are closed")
        if self._asked and index != self._asked[-1]:
            self._step = 1 if index > self._asked[-1] else -1
        self._asked.append(index)
        plan = [index, *self._next_ones(index)]
        wanted = {*plan, *self._asked}
        for other in [i for i in self._results if i not in wanted]:
            self._results.pop(other).cancel()
        for i in plan:
            if i not in self._results:
                self._results[i] = self._begin(i)
        return self._results[index]

    def _next_ones(self, index: int) -> list[int]:
        end = self.frames.num_frames
        candidates = (index + self._step * k for k in range(1, self._ahead + 1))
        return [i for i in candidates if i >= 0 and (end is None or i < end)]

    def _begin(self, index: int) -> Future[T]:
        if self._thread is not None:
            return self._thread.submit(self._make, index)
        future: Future[T] = Future()
        try:
            future.set_result(self._make(index))
        except Exception as error:
            future.set_exception(error)
        return future

    def _make(self, index: int) -> T:
        return self._read(self.frames, index)
