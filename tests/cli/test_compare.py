"""Folders of masks and models side by side, on a clip of two squares."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_hq.batch.manifest import Manifest, Record
from sam2_hq.build_sam import bundled_weights
from tests.cli.conftest import HEIGHT, WIDTH, write_frames
from tests.evaluation.folders import write_packed, write_per_object

NUM_FRAMES = 4


def squares(shift: int = 0) -> list[np.ndarray]:
    """The masks of `write_frames`, moved to the right."""
    maps = []
    for t in range(NUM_FRAMES):
        ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        ids[10:26, 6 + 2 * t + shift : 22 + 2 * t + shift] = 1
        ids[28:42, 40 - 2 * t + shift : 54 - 2 * t + shift] = 2
        maps.append(ids)
    return maps


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set in the layout of MOSE, and masks `near` and `far` from its truth."""
    root = tmp_path / "data"
    for name in ("one", "two"):
        frames = write_frames(root / "JPEGImages" / name, NUM_FRAMES)
        for index, file in enumerate(sorted(frames.iterdir(), key=lambda f: (len(f.name), f.name))):
            file.rename(frames / f"{index:05d}.png")
        write_packed(root / "Annotations" / name, squares())
        write_packed(tmp_path / "near" / name, squares(1))
        write_packed(tmp_path / "far" / name, squares(5))
    return root


def test_two_folders_of_masks(run, data: Path):
    near, far, html, out = (data.parent / n for n in ("near", "far", "c.html", "c.json"))
    options = ["--dataset", data, "--protocol", "mose", "--html", html, "--json", out]
    result = run("compare", far, near, *options)
    assert result.exit_code == 0, result.stderr
    first = next(line for line in result.stdout.splitlines() if line.startswith("J&F"))
    assert first.endswith("not told apart")
    assert "Few sequences (2): it takes 6" in result.stdout
    tree = json.loads(out.read_text())
    assert (tree["a"], tree["b"]) == ("far", "near")
    assert tree["metrics"]["J"]["a"] == pytest.approx(np.mean([11 / 21, 9 / 19]))
    assert tree["metrics"]["J"]["winner"] is None
    assert list(tree["sequences"]) == ["one", "two"]
    assert "frames_per_second" not in tree["metrics"]
    assert ">far</th>" in html.read_text()
    assert "exists; --overwrite" in run("compare", far, near, *options).stderr


def test_a_report_that_cannot_be_made_leaves_no_numbers(run, data: Path):
    near, far, html, out = (data.parent / n for n in ("near", "far", "c.html", "c.json"))
    for picture in (data / "JPEGImages" / "one").iterdir():
        picture.write_bytes(b"damaged")
    options = ["--dataset", data, "--protocol", "mose", "--html", html, "--json", out]
    result = run("compare", far, near, *options)
    assert result.exit_code == 2
    assert "one" in result.stderr
    assert not html.exists()
    assert not out.exists()


def test_two_hq_modes_of_a_model_and_its_masks_are_kept(run, data: Path, monkeypatch):
    (weights,) = bundled_weights().values()
    (data.parent / "my.safetensors").symlink_to(weights)
    monkeypatch.chdir(data.parent)
    names, out, runs = (data.parent / n for n in ("names.txt", "c.json", "runs"))
    names.write_text("one\n")
    options = ["--dataset", data, "--protocol", "mose", "--device", "cpu", "--out", runs]
    options += ["--sequence-list", names, "--json", out, "--overwrite"]
    result = run("compare", "nano@off", "./my.safetensors@only", *options)
    assert result.exit_code == 0, result.stderr
    metrics = json.loads(out.read_text())["metrics"]
    assert metrics["frames_per_second"]["a"] > 0
    assert {"J&F", "flicker", "boundary_iou", "peak_memory_mib"} <= metrics.keys()
    masks = {file: file.stat().st_mtime_ns for file in runs.rglob("*.png")}
    assert len(masks) == 2 * NUM_FRAMES
    assert sorted(path.name for path in runs.iterdir()) == ["my.safetensors@only", "nano@off"]
    again = run("compare", runs / "nano@off", "./my.safetensors@only", *options)
    assert again.exit_code == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in masks} == masks
    assert json.loads(out.read_text())["metrics"] == metrics


def test_files_of_one_name_in_two_folders_are_two_sides(run, data: Path, monkeypatch):
    (weights,) = bundled_weights().values()
    (data.parent / "new").mkdir()
    for folder in (data.parent, data.parent / "new"):
        (folder / "my.safetensors").symlink_to(weights)
    monkeypatch.chdir(data.parent / "new")
    runs = data.parent / "runs"
    options = ["--dataset", data, "--protocol", "mose", "--device", "cpu", "--out", runs]
    result = run("compare", "../my.safetensors@off", "./my.safetensors@off", *options)
    assert result.exit_code == 0, result.stderr
    names = sorted(path.name for path in runs.iterdir())
    assert names == ["_.._my.safetensors@off", "my.safetensors@off"]


def test_a_clip_too_short_to_score_is_named_and_does_not_count(run, data: Path):
    near, far = data.parent / "near", data.parent / "far"
    for folder in (data / "Annotations", near, far):
        write_packed(folder / "short", squares()[:1])
    out = data.parent / "c.json"
    options = ["--dataset", data, "--protocol", "mose", "--json", out]
    result = run("compare", near, far, *options)
    assert result.exit_code == 0, result.stderr
    assert "on no frame that counts: short" in result.stderr
    assert list(json.loads(out.read_text())["sequences"]) == ["one", "two"]


def roughen(frames: Path) -> None:
    """Grain on the pictures: the edges of flat squares are followed without a fault."""
    rng = np.random.default_rng(0)
    for file in frames.iterdir():
        picture = np.asarray(Image.open(file), np.float64)
        grain = rng.normal(0, 60, picture.shape)
        Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8)).save(file)


def test_a_model_on_sav_with_an_object_that_appears_late(run, data: Path):
    (data / "JPEGImages").rename(data / "JPEGImages_24fps")
    roughen(data / "JPEGImages_24fps" / "one")
    first, *rest = squares()
    for folder in (data / "Annotations_6fps", data.parent / "perfect"):
        write_per_object(folder / "one", [first * (first == 1), *rest], [1, 2])
    out = data.parent / "c.json"
    options = ["--dataset", data, "--protocol", "sav", "--device", "cpu", "--json", out]
    result = run("compare", data.parent / "perfect", "nano@off", *options)
    assert result.exit_code == 0, result.stderr
    tree = json.loads(out.read_text())
    assert tree["metrics"]["J"]["a"] == 1
    assert 0 < tree["metrics"]["J"]["b"] < 1


def test_speed_is_that_of_the_compared_sequences_alone(run, data: Path):
    names, out = data.parent / "names.txt", data.parent / "c.json"
    names.write_text("one\n")
    for side, seconds in (("near", 2.0), ("far", 4.0)):
        manifest = Manifest(data.parent / side / "manifest.jsonl")
        manifest.add(Record("one", "done", "me", frames=8, seconds=seconds))
        manifest.add(Record("two", "done", "me", frames=8, seconds=100.0))
    words = ["--dataset", data, "--protocol", "mose", "--sequence-list", names, "--json", out]
    assert run("compare", data.parent / "near", data.parent / "far", *words).exit_code == 0
    tree = json.loads(out.read_text())
    speed = tree["metrics"]["frames_per_second"]
    assert (speed["a"], speed["b"]) == (4, 2)
    assert list(tree["sequences"]) == ["one"]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("nothing", "near", "'nothing' is no folder with masks of 'one', no checkpoint file"),
        ("sam2.1_hiera_tinny@off", "near", "did you mean"),
        ("nano@on", "near", "the HQ mode must be one of off, correct, only, auto"),
        ("near", "near", "different names"),
        ("near", "data", "is no folder with masks"),
    ],
)
def test_a_side_that_cannot_be_is_told_in_one_line(run, data: Path, a: str, b: str, message: str):
    sides = [data.parent / s if (data.parent / s).is_dir() else s for s in (a, b)]
    result = run("compare", *sides, "--dataset", data, "--protocol", "mose")
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_missing_data_set_is_named(run, data: Path):
    near, far = data.parent / "near", data.parent / "far"
    result = run("compare", near, far, "--dataset", data / "no", "--protocol", "mose")
    assert "--dataset: there is no folder" in result.stderr
