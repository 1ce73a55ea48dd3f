"""`sam2-hq benchmark` on small frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

QUICK = ["--image-size", 128, "--warm-up", 1, "--repeats", 2, "--passes", 1, "--warm-up-passes", 0]


@pytest.fixture
def json_file(tmp_path: Path) -> Path:
    return tmp_path / "speed.json"


def test_both_paths_are_timed_for_every_number_of_objects(run, json_file: Path):
    words = ["--objects", 1, "--objects", 3, "--frame-size", "72x96", "--dtype", "bfloat16"]
    result = run("benchmark", *QUICK, *words, "--json", json_file)
    assert result.exit_code == 0, result.stderr
    report = json.loads(json_file.read_text())
    assert [speed["objects"] for speed in report["video"]["speeds"]] == [1, 3]
    assert [speed["objects"] for speed in report["image"]["speeds"]] == [1, 3]
    assert report["model"]["image_size"] == 128
    assert report["model"]["dtype"] == "bfloat16"
    assert report["source"] == {"name": "synthetic", "height": 72, "width": 96}
    assert report["environment"]["device"] in result.stdout
    frame = report["video"]["speeds"][1]["stages"]["frame"]
    assert frame["count"] == 2
    assert f"{1000 * frame['median_seconds']:.2f}" in result.stdout


def test_own_frames_are_timed_and_their_number_is_checked(run, clip: Path, json_file: Path):
    words = ["--path", "video", "--by-verb", "--cpu-time", "--device", "cpu"]
    result = run("benchmark", clip, *QUICK, *words, "--json", json_file)
    assert result.exit_code == 0, result.stderr
    report = json.loads(json_file.read_text())
    assert "image" not in report
    assert report["clock"] == "cpu"
    assert "condition" in report["video"]["speeds"][0]["verb_seconds"]
    too_many = run("benchmark", clip, *QUICK, "--path", "video", "--repeats", 5)
    assert too_many.exit_code == 2
    assert "source must have 6 frames" in too_many.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--path", "audio"], "--path must be one of video, image, both, got 'audio'"),
        (["--frame-size", "480"], "--frame-size must be HEIGHTxWIDTH"),
        (["--objects", 0], "objects must be 1 or more, got 0"),
        (["--dtype", "int8"], "dtype must be one of"),
        (["--image-size", 100], "image_size must be a multiple of 32"),
        (["--json", "no/such/folder.json"], "there is no folder"),
    ],
)
def test_mistakes_are_told_in_one_line(run, words: list[object], message: str):
    result = run("benchmark", *QUICK, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
