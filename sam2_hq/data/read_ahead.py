"""Read the next files while the last ones are worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def read_ahead(
    read: Callable[[Key], Value], keys: Iterable[Key], *, depth: int = 2
) -> Iterator[tuple[Key, Value]]:
    """Read one thing after the other in a thread, up to `depth` before they are asked for.

    Yields:
        key and `read(key)`, in order; an error of `read` is raised in the place of its value.
    """
    waiting: deque[tuple[Key, Future[Value]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        try:
            for key in keys:
                waiting.append((key, pool.submit(read, key)))
                if len(waiting) > depth:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _next(waiting: deque[tuple[Key, Future[Value]]]) -> tuple[Key, Value]:
    key, future = waiting.popleft()
    return key, future.result()
