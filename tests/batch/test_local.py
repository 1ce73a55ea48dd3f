"""Worker processes: the same masks as without, and a killed one costs nothing but time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from sam2_hq.batch.local import LocalEngine
from sam2_hq.batch.runner import run_dataset
from sam2_hq.model_spec import ModelSpec
from tests.batch.sets import files, job, write_sequence


def kill_a_worker_at(out: Path, name: str) -> None:
    """As the system does when memory runs out."""
    while not list(out.glob(f".{name}.*.partial/*.png")):
        time.sleep(0.005)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)


def test_a_killed_worker_is_replaced_and_its_sequence_done_again(tmp_path: Path, model: ModelSpec):
    root, out = tmp_path / "set", tmp_path / "out"
    for name in ("ant", "bee"):
        write_sequence(root, name, num_frames=30)
    killer = threading.Thread(target=kill_a_worker_at, args=(out, "bee"))
    killer.start()
    summary = run_dataset(job(root, out, model), engine=LocalEngine(1))
    killer.join()
    assert [(r.name, r.status, r.attempts) for r in summary.records] == [
        ("ant", "done", 1),
        ("bee", "done", 2),
    ]
    run_dataset(job(root, tmp_path / "calm", model))
    assert files(out) == files(tmp_path / "calm")
    assert sorted(p.name for p in out.iterdir()) == [
        "ant",
        "bee",
        "manifest.jsonl",
        "settings.json",
    ]
    assert multiprocessing.active_children() == []


def test_a_model_that_does_not_open_in_a_worker_is_told_once(root: Path, out: Path, tmp_path: Path):
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"damaged\.pt") as told:
        run_dataset(job(root, out, ModelSpec(str(damaged))), engine=LocalEngine(1))
    assert str(told.value).count("damaged.pt") == 1
    assert not out.exists()


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(ValueError, match="workers must be 0 or more, got -1"):
        LocalEngine(-1)
