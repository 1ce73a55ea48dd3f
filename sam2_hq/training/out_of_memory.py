"""Memory that runs out in the middle of a run: one line that says what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

ALLOCATION_FAILURES = ("DefaultCPUAllocator", "_ALLOC_FAILED", "out of memory")
"""What plain runtime errors of torch say when there is no memory left."""


@contextmanager
def explained_out_of_memory(stage: str, image_size: int, batch_size: int) -> Iterator[None]:
    """Turn an error for lack of memory into a `ValueError` for whoever chose the sizes.

    Args:
        stage: name of the stage that runs.
        image_size: side of its pictures, in model pixels.
        batch_size: clips a step, of all processes.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(
            f"memory is too small for stage {stage!r} with image_size {image_size} and "
            f"batch_size {batch_size}: lower one of them in train.trainer.phases, or "
            "train.data.max_objects, or train.data.num_frames"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on the host or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(sign in str(error) for sign in ALLOCATION_FAILURES)
