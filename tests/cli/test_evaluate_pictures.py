"""`sam2-hq evaluate-boxes` and `evaluate-stills` on pictures of squares."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sam2_hq.evaluation.coco_boxes import read_truth
from sam2_hq.evaluation.detection_ap import average_precision
from tests.evaluation.coco_worlds import rle

pytest.importorskip("pycocotools")

SMALL = ["--override", "++model.image_size=128", "--device", "cpu"]
SQUARES = {1: (8, 10, 20), 2: (20, 36, 18)}  # y, x, side
HEIGHT, WIDTH = 48, 64


def square(name: int) -> np.ndarray[Any, Any]:
    y, x, side = SQUARES[name]
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + side, x : x + side] = True
    return mask


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """images/, masks/, truth.json and boxes.json."""
    for folder in ("images", "masks", "results"):
        (tmp_path / folder).mkdir()
    ground = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    images, annotations, boxes = [], [], []
    for name, (y, x, side) in SQUARES.items():
        picture = np.where(square(name)[..., None], np.uint8([230, 90, 40]), ground)
        Image.fromarray(picture).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(square(name).astype(np.uint8) * 255).save(tmp_path / f"masks/{name}.png")
        images.append({"id": name, "height": HEIGHT, "width": WIDTH, "file_name": f"{name}.png"})
        entry: dict[str, Any] = {"image_id": name, "category_id": 1}
        annotations.append({"id": name, **entry, "segmentation": rle(square(name))})
        boxes.append({**entry, "bbox": [x, y, side, side], "score": 0.9})
    tree = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "square"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(tree))
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    return tmp_path


def boxes_command(data: Path) -> list[object]:
    files = [data / "truth.json", data / "boxes.json"]
    return ["evaluate-boxes", *files, "--images", data / "images", *SMALL]


def test_both_hq_modes_are_scored_in_one_run(run, data: Path):
    out = data / "out.json"
    words = ["--hq-mode", "off,correct", "--json", out, "--results", data / "results"]
    result = run(*boxes_command(data), *words)
    assert result.exit_code == 0, result.stderr
    report = json.loads(out.read_text())
    assert report["boxes"] == 2
    truth = read_truth(data / "truth.json")
    for kind, ratio in (("mask", None), ("boundary", 0.02)):
        assert f"{kind}, hq mode" in result.stdout
        for mode in ("off", "correct"):
            kept = json.loads((data / "results" / f"{mode}.json").read_text())
            again = average_precision(truth, kept, boundary_ratio=ratio).to_json()
            assert report[kind][mode] == again
            assert again["categories"] == {"square": again["AP"]}
    assert "correct - off" in result.stdout


def test_the_nano_model_finds_plain_squares(run, data: Path):
    out = data / "out.json"
    assert run(*boxes_command(data), "--hq-mode", "off", "--json", out).exit_code == 0
    assert json.loads(out.read_text())["mask"]["off"]["AP50"] > 0.9


def test_stills_are_scored_by_the_box_of_their_mask(run, data: Path):
    out = data / "out.json"
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(data / "masks" / "3.png")
    Image.open(data / "images" / "1.png").save(data / "images" / "3.png")
    words = [data / "images", data / "masks", *SMALL, "--json", out]
    result = run("evaluate-stills", *words)
    assert result.exit_code == 0, result.stderr
    report = json.loads(out.read_text())
    assert report["empty"] == ["3"]
    assert "left out: 3" in result.stderr
    assert list(report["means"]) == ["off", "correct"]
    assert report["means"]["off"]["mIoU"] > 0.5
    assert f"{100 * report['means']['off']['mBIoU']:.2f}" in result.stdout
    assert "correct over off: mIoU" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hq-mode", "off,best"], "hq_mode must be one of off, correct"),
        (["--score", "mean"], "--score must be one of detector, product, got 'mean'"),
        (["--boundary-ratio", 0], "--boundary-ratio"),
        (["--json", "no/such/folder.json"], "there is no folder"),
        (["--results", "no/such/folder"], "there is no folder"),
        (["--images", "no/such/folder"], "images: there is no folder"),
    ],
)
def test_mistakes_are_told_in_one_line(run, data: Path, words: list[object], message: str):
    result = run(*boxes_command(data), *words)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]


def test_a_missing_extra_is_told_before_hours_of_work(run, data: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    result = run(*boxes_command(data))
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "sam2-hq: pycocotools is not installed: pip install 'sam2-hq[coco]'"
    ]


def test_a_picture_of_another_size_is_named(run, data: Path):
    Image.new("RGB", (10, 10)).save(data / "images" / "2.png")
    result = run(*boxes_command(data))
    assert result.exit_code == 2
    assert "2.png' is [10, 10], the annotations say [48, 64]" in result.stderr


def test_nothing_is_replaced_unasked(run, data: Path):
    (data / "results" / "correct.json").write_text("precious")
    result = run(*boxes_command(data), "--results", data / "results")
    assert result.exit_code == 2
    assert "--overwrite replaces it" in result.stderr
    assert (data / "results" / "correct.json").read_text() == "precious"
    assert not (data / "results" / "off.json").exists()
