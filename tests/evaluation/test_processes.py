"""Several processes, started from a program that has threads of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.evaluation.mask_folders import MaskFolder
from sam2_hq.evaluation.processes import map_sequences

ROOT = Path(__file__).parents[2]
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


def waits_or_not(sequence: VideoSequence) -> None:
    time.sleep(float(os.environ["LONG"]) * (sequence.name == "long"))
    print(sequence.name, flush=True)


INTERRUPTED = """
import signal
from pathlib import Path
from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.evaluation.mask_folders import MaskFolder
from sam2_hq.evaluation.processes import map_sequences
from tests.evaluation.test_processes import waits_or_not

if __name__ == "__main__":
    signal.signal(signal.SIGINT, HANDLER)
    sequences = [VideoSequence(name, MaskFolder(Path())) for name in ("long", "short", "short")]
    try:
        list(map_sequences(waits_or_not, sequences, workers=2))
        print("done")
    except KeyboardInterrupt:
        print("interrupted")
"""


def started(tmp_path: Path, handler: str, seconds: float) -> subprocess.Popen[str]:
    """A program of three processes, of which one has nothing to do and one is at work."""
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED.replace("HANDLER", handler))
    process = subprocess.Popen(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LONG": str(seconds)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["short\n"] * 2
    time.sleep(0.5)
    return process


def members(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(int(entry.name)) == group:
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize("order", ["all at once", "workers first"])
def test_ctrl_c_ends_all_processes_and_only_the_first_one_speaks(
    order: str, tmp_path: Path
) -> None:
    process = started(tmp_path, "signal.default_int_handler", 60)
    if order == "workers first":
        for worker in set(members(process.pid)) - {process.pid}:
            os.kill(worker, signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    else:
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == "interrupted\n", err
    assert "Traceback" not in err


@pytest.mark.skipif(os.name == "nt", reason="there is no group of processes")
def test_a_program_that_ignores_ctrl_c_is_not_left_without_workers(tmp_path: Path) -> None:
    # As a shell starts what runs in the background.
    process = started(tmp_path, "signal.SIG_IGN", 12)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == "long\ndone\n", err
