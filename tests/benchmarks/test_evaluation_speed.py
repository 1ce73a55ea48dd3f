"""J and F beside vos-benchmark: equal digits, and a difference is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sam2_hq.benchmark.clock import Clock
from tests.evaluation.folders import random_maps, write_packed

pytest.importorskip("vos_benchmark.evaluator")

ROOT = Path(__file__).parents[2]


def test_given_masks_get_the_same_scores_from_both(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        for side, other in (("truth", seed), ("prediction", seed + 10)):
            maps = random_maps(other, num_frames=5, num_objects=2)
            write_packed(tmp_path / side / name, maps)
    out = tmp_path / "out.json"
    folders = ["--annotations", tmp_path / "truth", "--predictions", tmp_path / "prediction"]
    options = [*folders, "--repeats", 1, "--workers", 2, "--out", out]
    done = subprocess.run(  # a process without threads: the other program forks
        [sys.executable, "benchmarks/evaluation_speed.py", *map(str, options)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    report = json.loads(out.read_text())
    kinds = report["sets"]["given"]
    assert list(kinds) == [
        "arrays, one process",
        "files, one process",
        "files, one, wall time",
        "files, 2 processes",
    ]
    assert all(kind["largest_difference"] < 1e-12 for kind in kinds.values())
    assert kinds["files, one process"]["objects"] == 4
    assert "faster by" in done.stdout
    assert not list((tmp_path / "prediction").glob("*.csv"))


def test_synthetic_masks_are_imperfect_and_have_every_object(script, tmp_path: Path) -> None:
    speed = script("evaluation_speed")
    scores = speed.our_files(*speed.write_set(tmp_path, (120, 160), 5), 1)
    assert len(scores) == 2 * len(speed.SHARES)
    assert all(0 < value < 1 for pair in scores.values() for value in pair)


def test_another_digit_is_noticed(script) -> None:
    found = script("evaluation_speed").take_turns(
        lambda: {"1": (0.5, 0.7)}, lambda: {"1": (0.5, 0.8)}, Clock(), 2
    )
    assert found["largest_difference"] == pytest.approx(0.1)
    assert found["turns"] == 2
