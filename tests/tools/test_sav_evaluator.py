"""The published SA-V evaluator: its flags, its table, its exit code."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import pytest

from tests.evaluation.folders import random_maps, square, write_packed, write_per_object
from tests.evaluation.vos_benchmark_tool import global_percents

SCRIPT = Path(__file__).parents[2] / "tools" / "sav_evaluator.py"


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the script on `truth` and `predicted` with more flags; the rows of its table."""

    def run(*flags: str) -> list[list[str]]:
        folders = ["--gt_root", str(tmp_path / "truth"), "--pred_root", str(tmp_path / "predicted")]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *folders, "-n", "1", *flags])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        with open(tmp_path / "predicted" / "results.csv", newline="") as file:
            return [[cell.strip() for cell in row] for row in csv.reader(file)]

    return run


def test_the_table_has_the_digits_of_vos_benchmark(evaluate, tmp_path: Path, capsys) -> None:
    for seed, name in enumerate(("cat", "a-dog")):
        write_packed(tmp_path / "truth" / name, random_maps(seed, num_frames=7, num_objects=2))
        write_packed(
            tmp_path / "predicted" / name, random_maps(seed + 9, num_frames=7, num_objects=2)
        )
    rows = evaluate()
    percents = global_percents(tmp_path / "truth", tmp_path / "predicted")
    assert rows[0] == ["sequence", "obj", "J&F", "J", "F"]
    assert rows[1] == ["Global score", "", *(f"{x:.1f}" for x in percents)]
    assert [row[:2] for row in rows[2:]] == [
        ["a-dog", "001"],
        ["a-dog", "002"],
        ["cat", "001"],
        ["cat", "002"],
    ]
    assert "Global score" in capsys.readouterr().out


def test_a_root_of_a_data_set_stands_for_its_annotations(evaluate, tmp_path: Path) -> None:
    maps = [square(1, 4, 5 + i) for i in range(5)]
    write_per_object(tmp_path / "truth" / "Annotations" / "dog", maps, [1])
    write_per_object(tmp_path / "predicted" / "dog", maps, [1])
    assert evaluate("-q")[1][2:] == ["100.0"] * 3


def test_the_first_and_last_frame_count_when_asked_for(evaluate, tmp_path: Path) -> None:
    maps = [square(1, 4, 5)] * 4
    write_packed(tmp_path / "truth" / "dog", maps)
    write_packed(tmp_path / "predicted" / "dog", [square(1, 25, 40), *maps[1:]])
    assert evaluate("-q")[1][3] == "100.0"
    assert evaluate("-q", "--do_not_skip_first_and_last_frame")[1][3] == "75.0"


@pytest.mark.parametrize("lacks", ["truth", "predicted"])
def test_strict_ends_with_one_when_the_videos_differ(
    evaluate, tmp_path: Path, capsys, lacks: str
) -> None:
    for root in ("truth", "predicted"):
        write_packed(tmp_path / root / "dog", [square(1, 4, 5)] * 4)
        if root != lacks:
            write_packed(tmp_path / root / "cat", [square(1, 4, 5)] * 4)
    evaluate("-q")  # what both have is scored
    with pytest.raises(SystemExit, match="1"):
        evaluate("-q", "--strict")
    assert "cat" in capsys.readouterr().err


def test_what_the_mean_is_without_is_said_also_when_quiet(evaluate, tmp_path: Path, capsys) -> None:
    for root in ("truth", "predicted"):
        write_packed(tmp_path / root / "dog" / "000", [square(1, 4, 5)] * 4)
        write_packed(tmp_path / root / "dog" / "001", [square(1, 4, 5)] * 2)
    write_packed(tmp_path / "truth" / "cat", [square(1, 4, 5)] * 4)
    assert [row[1] for row in evaluate("-q")[1:]] == ["", "000"]
    said = capsys.readouterr()
    assert said.out == ""
    assert "on no frame that counts: dog/1" in said.err
    assert "left out of the mean: cat" in said.err
