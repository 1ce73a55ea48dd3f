"""Several processes, started from a program that has threads of its own."""

from __future__ import annotations

import threading
from pathlib import Path

from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.evaluation.mask_folders import MaskFolder
from sam2_hq.evaluation.processes import map_sequences

LOCK = threading.Lock()


def is_free(sequence: VideoSequence) -> tuple[str, bool]:
    found = LOCK.acquire(timeout=2)
    if found:
        LOCK.release()
    return sequence.name, found


def test_a_lock_that_a_thread_holds_does_not_stop_the_workers() -> None:
    sequences = [VideoSequence(name, MaskFolder(Path())) for name in ("ant", "bee", "cat")]
    with LOCK:
        found = list(map_sequences(is_free, sequences, workers=2))
    assert found == [("ant", True), ("bee", True), ("cat", True)]
