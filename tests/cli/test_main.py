from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from sam2_hq.cli.main import app, explain

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "track",
    "track-dataset",
    "segment",
    "everything",
    "evaluate",
    "evaluate-boxes",
    "evaluate-stills",
    "compare",
    "benchmark",
    "train",
    "info",
    "convert",
    "download",
    "doctor",
)


def test_help_names_every_command(run):
    result = run("--help")
    assert result.exit_code == 0
    assert all(f"\n  {name} " in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_does(run, command: str):
    assert run(command, "--help").exit_code == 0
    parameters = get_command(app).commands[command].params
    assert all(p.help for p in parameters)


def test_a_misspelt_command_is_answered_in_one_line(run):
    result = run("trak")
    assert result.exit_code == 2
    assert "trak" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_errors_are_told_on_one_line():
    assert explain(ValueError("a\n  b\tc")) == "a b c"
    assert explain(ValueError()) == "ValueError"
    assert explain(FileNotFoundError(2, "No such file", "x.png")) == "x.png: No such file"


def test_the_doctor_reports_and_advises(run):
    result = run("doctor")
    assert result.exit_code == 0, result.stderr
    for name in ("python", "torch", "device", "connected components", "configs", "decord2"):
        assert f"\n{name} " in f"\n{result.stdout}"


def test_the_program_exits_with_two_and_no_traceback(tmp_path: Path):
    command = [sys.executable, "-m", "sam2_hq.cli.main", "info", str(tmp_path / "nothing.pt")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"sam2-hq: there is no checkpoint {tmp_path / 'nothing.pt'}\n"


def test_tracking_does_not_wait_for_the_compiler(clip: Path, out: Path):
    # Importing it takes over a second, and torch and torchvision do so unasked.
    words = ["track", str(clip), "-o", str(out), "--box", "1:4,8,24,28"]
    script = f"""
import sys
from sam2_hq.cli.main import app
try:
    app({words!r})
except SystemExit as done:
    assert not done.code, done.code
assert "torch._dynamo" not in sys.modules
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "overlay.mp4").stat().st_size
