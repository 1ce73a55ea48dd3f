"""Several processes, started from a program that has threads of its own."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.evaluation.mask_folders import MaskFolder
from sam2_hq.evaluation.processes import map_sequences

LOCK = threading.Lock()


def is_free(sequence: VideoSequence) -> tuple[str, bool]:
    found = LOCK.acquire(timeout=2)
    if found:
        LOCK.release()
    return sequence.name, found


def dies(sequence: VideoSequence) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_told_in_one_line() -> None:
    sequences = [VideoSequence(name, MaskFolder(Path())) for name in ("ant", "bee")]
    with pytest.raises(ChildProcessError, match="one of 2 processes was killed"):
        list(map_sequences(dies, sequences, workers=2))


def test_a_lock_that_a_thread_holds_does_not_stop_the_workers() -> None:
    sequences = [VideoSequence(name, MaskFolder(Path())) for name in ("ant", "bee", "cat")]
    with LOCK:
        found = list(map_sequences(is_free, sequences, workers=2))
    assert found == [("ant", True), ("bee", True), ("cat", True)]
