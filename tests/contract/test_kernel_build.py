"""The kernel step of setup.py, with an nvcc of our own and with the real one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sam2_hq.ops.connected_components import packaged_kernels

ROOT = Path(__file__).parents[2]
WORKING = '#!/bin/sh\nwhile [ "$1" != "-o" ]; do shift; done\necho machine code > "$2"\n'
BROKEN = '#!/bin/sh\nwhile [ "$1" != "-o" ]; do shift; done\necho half > "$2"\nexit 1\n'


def build(output: Path, nvcc: str | None = None, **settings: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **settings}
    if nvcc is not None:
        program = output / "cuda" / "bin" / "nvcc"
        program.parent.mkdir(parents=True)
        program.write_text(nvcc)
        program.chmod(0o755)
        environment["CUDA_HOME"] = str(output / "cuda")
    command = [sys.executable, "setup.py", "build_kernels", "--build-lib", str(output / "lib")]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def made(output: Path) -> list[Path]:
    return [path for path in (output / "lib").rglob("*") if path.is_file()]


def test_machine_code_lands_where_the_package_looks_for_it(tmp_path):
    assert build(tmp_path, WORKING).returncode == 0
    (file,) = made(tmp_path)
    assert file.relative_to(tmp_path / "lib") == packaged_kernels().relative_to(ROOT)
    assert file.read_text() == "machine code\n"


def test_the_step_can_be_skipped(tmp_path):
    assert build(tmp_path, WORKING, SAM2_BUILD_CUDA="0").returncode == 0
    assert made(tmp_path) == []


@pytest.mark.parametrize(("allowed", "fails"), [("1", False), ("0", True)])
def test_a_failure_is_fatal_only_on_request_and_leaves_nothing(tmp_path, allowed, fails):
    result = build(tmp_path, BROKEN, SAM2_BUILD_ALLOW_ERRORS=allowed)
    assert (result.returncode != 0) == fails
    assert made(tmp_path) == []


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_nvcc_makes_a_fatbin(tmp_path):
    assert build(tmp_path, SAM2_BUILD_ALLOW_ERRORS="0").returncode == 0
    (file,) = made(tmp_path)
    assert file.read_bytes()[:4] == bytes.fromhex("50ed55ba")  # magic number of a fatbin
