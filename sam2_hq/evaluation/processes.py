"""The same work on every sequence, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from sam2_hq.evaluation.datasets import VideoSequence

_Result = TypeVar("_Result")


def map_sequences(
    work: Callable[[VideoSequence], _Result],
    sequences: Sequence[VideoSequence],
    *,
    workers: int = 1,
    progress: str | None = None,
) -> Iterator[_Result]:
    """Results in the order of the sequences.

    Args:
        work: can be pickled if there are several workers.
        sequences: the videos.
        workers: processes; 1 works in this one.
        progress: what a progress bar says is done; None for no bar.
    """
    bar = {"total": len(sequences), "desc": progress, "unit": "video", "disable": progress is None}
    if workers == 1:
        yield from tqdm(map(work, sequences), **bar)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from tqdm(pool.map(work, sequences), **bar)
