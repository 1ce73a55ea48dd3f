"""The example clip: the renderer at a small size, and the files that are shipped."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIP = EXAMPLES / "clip"
SIZE = {"height": 72, "width": 128}
FRAMES = 48
BALL = 3


@pytest.fixture(scope="module")
def frame_module() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        return importlib.import_module("scene.frame")


@pytest.fixture(scope="module")
def script(frame_module: ModuleType) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        return importlib.import_module("render_clip")


@pytest.fixture(scope="module")
def facts() -> dict:
    return json.loads((CLIP / "clip.json").read_text())


def read_ids(index: int) -> np.ndarray:
    return np.asarray(Image.open(CLIP / f"Annotations/meadow/{index:05d}.png"))


def test_the_same_seed_gives_the_same_files_and_another_seed_does_not(script, tmp_path):
    for name, seed in (("one", 7), ("again", 7), ("other", 8)):
        script.render_clip(tmp_path / name / "clip", frames=3, seed=seed, **SIZE)
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(names) == 3 + 3 + 2
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    picture = Path("clip/JPEGImages/meadow/00001.jpg")
    assert (tmp_path / "one" / picture).read_bytes() != (tmp_path / "other" / picture).read_bytes()


def test_the_small_rendering_tells_the_same_story_as_the_shipped_clip(frame_module, facts):
    scenery = frame_module.build_scenery(facts["seed"], **SIZE)
    hidden = facts["hidden"][str(BALL)]
    for index in (0, hidden[len(hidden) // 2], FRAMES - 1):
        _, ids = frame_module.render_frame(scenery, facts["seed"], index, FRAMES, *SIZE.values())
        shipped = read_ids(index)
        assert set(np.unique(ids)) == set(np.unique(shipped))
        for number in set(np.unique(ids)) - {0}:
            # Thin parts win or lose whole pixels at this size.
            share = (ids == number).mean() / (shipped == number).mean()
            assert 0.6 < share < 1.6


def test_visible_coverage_of_all_objects_never_exceeds_a_pixel(frame_module):
    scenery = frame_module.build_scenery(7, **SIZE)
    canvas = frame_module.render_instant(scenery, 0.5, *SIZE.values())
    assert canvas.visible.min() >= -1e-6
    assert canvas.visible.sum(0).max() <= 1 + 1e-4  # float32, some eighty layers


def test_shipped_masks_fit_the_frames_in_size_and_ids(facts):
    pictures = sorted((CLIP / "JPEGImages/meadow").iterdir())
    masks = sorted((CLIP / "Annotations/meadow").iterdir())
    assert [p.stem for p in pictures] == [m.stem for m in masks]
    assert len(pictures) == facts["frames"]
    for picture, mask in zip(pictures, masks, strict=True):
        with Image.open(picture) as image, Image.open(mask) as ids:
            assert image.size == ids.size == (facts["width"], facts["height"])
            assert ids.mode == "P"
            assert ids.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
            assert set(np.unique(np.asarray(ids))) <= {0, *map(int, facts["objects"])}


def test_an_object_is_hidden_exactly_on_the_stated_frames_and_returns(facts):
    for number, frames in facts["hidden"].items():
        for index in range(facts["frames"]):
            assert (index in frames) == (not (read_ids(index) == int(number)).any())
    ball = facts["hidden"][str(BALL)]
    assert len(ball) >= 3
    assert ball[-1] < facts["frames"] - 1


def test_prompts_lie_on_the_objects_of_the_first_frame(facts):
    data = json.loads((EXAMPLES / "prompts.json").read_text())
    ids = read_ids(0)
    assert [prompt["object"] for prompt in data["prompts"]] == [int(n) for n in facts["objects"]]
    for prompt in data["prompts"]:
        rows, columns = np.nonzero(ids == prompt["object"])
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert prompt["box"] == corners
        assert all(ids[y, x] == prompt["object"] for x, y in prompt["points"])


def test_the_clip_stays_small_and_carries_its_licence():
    assert sum(path.stat().st_size for path in CLIP.rglob("*") if path.is_file()) <= 2.5e6
    assert "CC0" in (CLIP / "LICENSE").read_text()
