"""The other program, in a process of its own: its pool forks, and pytest's process has threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
from vos_benchmark.benchmark import benchmark
both, j, f, _ = benchmark([sys.argv[1]], [sys.argv[2]], num_processes=1, verbose=False)
print(json.dumps([both[0], j[0], f[0]]))
"""


def global_percents(truth: Path, prediction: Path) -> tuple[float, float, float]:
    """J&F, J and F over all objects. It writes a table into `prediction`."""
    pytest.importorskip("vos_benchmark")
    command = [sys.executable, "-c", PROGRAM, str(truth), str(prediction)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    both, j, f = json.loads(done.stdout.splitlines()[-1])
    return both, j, f
