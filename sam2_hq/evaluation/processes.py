"""The same work on every sequence, in this process or in several."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
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

    Raises:
        ChildProcessError: if one of several processes is killed.
    """
    bar = {"total": len(sequences), "desc": progress, "unit": "video", "disable": progress is None}
    if workers == 1:
        yield from tqdm(map(work, sequences), **bar)
        return
    with ProcessPoolExecutor(workers, _clean_processes(), _end_at_ctrl_c) as pool:
        try:
            yield from tqdm(pool.map(work, sequences), **bar)
        except BrokenProcessPool as error:
            time.sleep(0.2)  # Ctrl-C, if that is what ended it, may reach this process last
            raise ChildProcessError(
                f"one of {workers} processes was killed, perhaps for want of memory; "
                "try fewer workers"
            ) from error


def _end_at_ctrl_c() -> None:
    """Ctrl-C reaches every process; the one that started the others speaks for them."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _clean_processes() -> BaseContext:
    """Processes that share no locks with this one.

    A forked copy of a process with threads (a data loader, Ray) waits for ever for a lock that one
    of them held. The server of forks has no threads, and imports the scoring once for all.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sam2_hq.evaluation.evaluate"])
    return context
