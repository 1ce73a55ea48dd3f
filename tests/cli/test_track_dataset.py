"""`sam2-hq track-dataset` as a user meets it: tracked, killed, started again, scored."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sam2_hq.batch.folders import RunFolder
from sam2_hq.cli.main import app
from tests.batch.sets import corner, files, write_model, write_sequence
from tests.evaluation.folders import write_packed
from tests.evaluation.vos_benchmark_tool import global_percents
from tests.toy import SIZE

ROOT = Path(__file__).parents[2]
NAMES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sequences of 24 frames in `set`, and a toy model in `model`."""
    folder = tmp_path_factory.mktemp("data")
    write_model(folder / "model")
    for name in NAMES:
        write_sequence(folder / "set", name, num_frames=24)
    return folder


def words(data: Path, out: Path, *more: str) -> list[str]:
    model = data / "model"
    return [
        "track-dataset", str(data / "set"), "-o", str(out), "--protocol", "mose",
        "--config", str(model / "toy.yaml"), "--checkpoint", str(model / "toy.safetensors"),
        "--device", "cpu", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def calm(data: Path) -> Path:
    """A run that nothing disturbed."""
    result = CliRunner().invoke(app, words(data, data / "calm", "--evaluate"))
    assert result.exit_code == 0, result.stderr
    return data / "calm"


def test_everything_is_tracked_and_scored_by_one_command(
    data: Path, calm: Path, tmp_path: Path, run
):
    assert sorted(path.name for path in calm.iterdir()) == [
        *NAMES, "manifest.jsonl", "report.html", "scores.json", "settings.json",
    ]  # fmt: skip
    assert len(files(calm)) == 3 * 24
    scores = json.loads((calm / "scores.json").read_text())
    gt = data / "set/Annotations"
    assert run(
        "evaluate", calm, "--gt", gt, "--protocol", "mose", "--json", tmp_path / "s.json"
    ).exit_code == 0  # fmt: skip
    by_hand = json.loads((tmp_path / "s.json").read_text())
    assert scores["protocol"] == by_hand["protocol"] == "mose"
    assert scores["global"]["J&F"] == by_hand["global"]["J&F"]
    lines = [json.loads(line) for line in (calm / "manifest.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == list(NAMES)
    for line in lines:
        assert line["scores"]["objects"] == scores["sequences"][line["name"]]["objects"]
        assert line["frames_per_second"] > 0


def test_vos_benchmark_gives_the_same_numbers(data: Path, calm: Path, tmp_path: Path):
    shutil.copytree(calm, tmp_path / "masks")  # the tool writes into it
    _, j, f = global_percents(data / "set/Annotations", tmp_path / "masks")
    scores = json.loads((calm / "scores.json").read_text())
    assert j / 100 == pytest.approx(scores["global"]["J"], abs=1e-9)
    assert f / 100 == pytest.approx(scores["global"]["F"], abs=1e-9)


def test_a_run_killed_in_the_middle_and_started_again_ends_the_same(
    data: Path, calm: Path, tmp_path: Path, run: Callable[..., Any]
):
    out = tmp_path / "out"
    told = words(data, out, "--evaluate", "--workers", "1")
    command = [sys.executable, "-m", "sam2_hq.cli.main", *told]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        # A worker goes on to the next sequence while the run still puts the last one in its place.
        while not ((out / "ant").is_dir() and list(out.glob(".*.partial/*.png"))):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    worker = int(RunFolder(out).manifest.read()["ant"].worker.split("/")[1])
    done = [name for name in NAMES if (out / name).is_dir()]
    assert done[0] == "ant"
    assert len(done) < len(NAMES)
    wait_until_gone(worker)
    result = run(*words(data, out, "--evaluate"))
    assert result.exit_code == 0, result.stderr
    assert f"({len(done)} done before)" in result.stdout
    assert files(out) == files(calm)
    for name in ("scores.json", "report.html"):
        assert (out / name).read_text() == (calm / name).read_text()
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in calm.iterdir())


def wait_until_gone(pid: int) -> None:
    """A killed run leaves no process behind."""
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError(f"worker {pid} still runs")


def test_a_run_in_which_all_fails_is_named_like_one_in_which_some_do(
    data: Path, tmp_path: Path, run: Callable[..., Any]
):
    write_sequence(tmp_path / "set", "dog", num_frames=3, masks={0: np.zeros(SIZE, dtype=np.uint8)})
    told = words(data, tmp_path / "out", "--evaluate")
    told[1] = str(tmp_path / "set")
    result = run(*told)
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert "'dog' failed" in lines[-2]
    assert "1 failed; tracebacks are in" in lines[-1]
    assert not (tmp_path / "out" / "scores.json").exists()


def test_failures_are_named_at_the_end(data: Path, tmp_path: Path, run: Callable[..., Any]):
    root = tmp_path / "set"
    shutil.copytree(data / "set", root)
    (root / "JPEGImages/bee/00003.jpg").write_bytes(b"not a picture")
    write_sequence(root, "dog", num_frames=3, masks={0: np.zeros(SIZE, dtype=np.uint8)})
    told = words(data, tmp_path / "out", "--evaluate")
    told[1] = str(root)
    result = run(*told)
    assert result.exit_code == 1
    assert "48 frames of 2 sequences" in result.stdout
    lines = [line for line in result.stderr.splitlines() if line.startswith("sam2-hq:")]
    assert "'bee' failed" in lines[0]
    assert "00003.jpg" in lines[0]
    assert "'dog' failed" in lines[1]
    assert "2 failed; tracebacks are in" in lines[2]
    assert "left out of the mean: bee, dog" in lines[3]
    assert json.loads((tmp_path / "out/scores.json").read_text())["missing"] == ["bee", "dog"]


def test_layout_and_late_objects_can_be_chosen(data: Path, tmp_path: Path, run: Callable[..., Any]):
    out = tmp_path / "out"
    result = run(*words(data, out, "--names", "ant", "--per-object", "--prompts", "box"))
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in (out / "ant").iterdir()} == {"001", "003"}
    settings = json.loads((out / "settings.json").read_text())
    assert (settings["prompt"], settings["per_object"]) == ("box", True)


def test_an_object_of_sav_that_appears_late_is_tracked_and_scored(
    data: Path, tmp_path: Path, run: Callable[..., Any]
):
    root, out = tmp_path / "set", tmp_path / "out"
    write_sequence(root, "dog", num_frames=9, masks={})
    (root / "JPEGImages").rename(root / "JPEGImages_24fps")
    truth = root / "Annotations_6fps/dog"  # of every second frame
    write_packed(truth / "000", [corner(1, left=True)] * 5, step=2)
    write_packed(truth / "001", [corner(1, left=False)] * 3, start=4, step=2)
    told = words(data, out, "--protocol", "sav", "--evaluate")
    told[1] = str(root)
    result = run(*told)
    assert result.exit_code == 0, result.stderr
    assert "not tracked" not in result.stderr
    assert {folder.name: len(list(folder.iterdir())) for folder in (out / "dog").iterdir()} == {
        "000": 9, "001": 9,
    }  # fmt: skip
    scores = json.loads((out / "scores.json").read_text())
    assert scores["sequences"]["dog"]["objects"].keys() == {"0", "1"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--engine", "spark"], "--engine must be one of local, ray, got 'spark'"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "no Ray cluster answers at"),
        (["--prompts", "word"], "prompt must be one of mask, box, click"),
        (["--protocol", "davis"], "dataset must be one of"),
        (["--names", "fox"], "'fox' has no annotations"),
        (["--names", "ant", "--names", "ant"], "names has 'ant' twice"),
        (["--names", "ant", "--sequence-list", "val.txt"], "not both: got ant and 'val.txt'"),
        (["--dtype", "int8"], "dtype must be one of"),
        (["--protocol", "youtube-vos", "--evaluate"], "--training-meta is needed"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    data: Path, tmp_path: Path, run: Callable[..., Any], more: list[str], message: str
):
    result = run(*words(data, tmp_path / "out", *more))
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("sam2-hq: ")
    assert message in last
    assert not (tmp_path / "out").exists()


def test_an_output_folder_of_others_is_left_alone(
    data: Path, tmp_path: Path, run: Callable[..., Any]
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    for more in ([], ["--overwrite"]):
        result = run(*words(data, out, *more))
        assert result.exit_code == 2
        assert "holds files, but no run of a data set" in result.stderr
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
