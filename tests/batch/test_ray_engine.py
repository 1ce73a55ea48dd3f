"""A real Ray cluster of several nodes on this machine, and one of them dies in the middle."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sam2_hq.batch.ray_engine import RayEngine
from sam2_hq.batch.runner import run_dataset
from sam2_hq.model_spec import ModelSpec
from tests.batch.sets import files, job, write_sequence

STORE = 80 << 20  # bytes of shared memory a node, about the least that Ray takes
NUM_FRAMES = 40


def half_done(out: Path) -> list[Path]:
    """Sequences that somebody is at the first half of."""
    folders = out.glob(".*.partial")
    return [f for f in folders if 0 < len(list(f.glob("*.png"))) < NUM_FRAMES // 2]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without work and two nodes with one worker each."""
    pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE}
    )
    yield cluster
    cluster.shutdown()


def test_a_node_dies_and_every_result_is_there_once(cluster: Any, tmp_path: Path, model: ModelSpec):
    root, out = tmp_path / "set", tmp_path / "out"
    names = [f"v{i}" for i in range(6)]
    for name in names:
        write_sequence(root, name, num_frames=NUM_FRAMES)
    with pytest.raises(ConnectionError, match="no node of the cluster took a worker within 1 sec"):
        run_dataset(job(root, out, model), engine=RayEngine(cluster.address, start_seconds=1))
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]

    is_over = threading.Event()

    def kill_a_node() -> None:
        # Workers may take minutes to import torch for the first time.
        while len(half_done(out)) < 2:
            if is_over.wait(0.01):
                return
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill_a_node)
    killer.start()
    try:
        summary = run_dataset(job(root, out, model), engine=RayEngine(cluster.address))
    finally:
        is_over.set()
        killer.join()
    assert [(record.name, record.status) for record in summary.records] == [
        (name, "done") for name in names
    ]
    assert max(record.attempts for record in summary.records) == 2, "no work was lost"
    manifest = (out / "manifest.jsonl").read_text()
    assert Counter(json.loads(line)["name"] for line in manifest.splitlines()) == Counter(names)
    run_dataset(job(root, tmp_path / "local", model))
    assert files(out) == files(tmp_path / "local")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Something that takes calls and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_cluster_that_is_not_there_is_told_soon(
    root: Path, out: Path, model: ModelSpec, silent_port: int, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("sam2_hq.batch.ray_engine.CONNECT_SECONDS", 0.2)
    for address in ("127.0.0.1:1", f"127.0.0.1:{silent_port}", "nonsense"):
        begun = time.monotonic()
        with pytest.raises(ConnectionError, match=f"no Ray cluster answers at '{address}'"):
            run_dataset(job(root, out, model), engine=RayEngine(address))
        assert time.monotonic() - begun < 10
    assert not out.exists()


def test_a_cluster_needs_a_worker():
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match="workers must be 1 or more on a cluster, got 0"):
        RayEngine(workers=0)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'sam2-hq\[distributed\]'"):
        RayEngine()
