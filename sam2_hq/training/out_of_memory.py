"""Memory that runs out: one line that says what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

ALLOCATION_FAILURES = ("DefaultCPUAllocator", "_ALLOC_FAILED", "out of memory")
"""What plain runtime errors of torch say when there is no memory left."""


@contextmanager
def explained_out_of_memory(needed_for: str, *, advice: str) -> Iterator[None]:
    """Turn an error for lack of memory into a `ValueError` for whoever chose the sizes.

    Args:
        needed_for: what did not fit.
        advice: what to lower.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(f"memory is too small for {needed_for}: {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on the host or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(sign in str(error) for sign in ALLOCATION_FAILURES)
