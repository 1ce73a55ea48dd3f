"""The table of the model card on drawn clips and packs, with the toy model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam2_hq.data.frames import open_frames
from sam2_hq.data.masks import write_id_map
from tests.toy import disc_mask, toy_clip, toy_predictor
from tests.training.packs import write_packs

NUM_FRAMES = 12  # two more than the warm-up of the speed measurement


def write_clip(root: Path, name: str, *, is_still: bool) -> None:
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "480p" / name).mkdir(parents=True)
    clip = toy_clip(NUM_FRAMES)
    for index in range(NUM_FRAMES):
        source = 0 if is_still else index
        file = f"480p/{name}/{index:05d}"
        Image.fromarray(clip[source]).save(root / f"JPEGImages/{file}.jpg", quality=95)
        write_id_map(root / f"Annotations/{file}.png", disc_mask(source))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_clip(root / "clips", "moving", is_still=False)
    write_clip(root / "clips", "still", is_still=True)
    write_packs(root)
    return root


def test_every_part_of_the_table_is_measured(
    run, script, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(script("nano"), "load", lambda *_, **__: toy_predictor())
    out, kept = tmp_path / "out.json", tmp_path / "kept"
    words = ["--clips", data / "clips", "--json", out, "--keep", kept, "--repeats", 1]
    words += ["--photos", data / "photos_val.zip", "--cutouts", data / "cutouts_train.zip"]
    words += ["--composites", 1, "--threads", torch.get_num_threads()]
    run("nano", *words)
    report = json.loads(out.read_text())
    names = [f"{p}, hq {m}" for m in ("off", "correct", "auto") for p in ("mask", "box")]
    assert list(report["tracking"]) == names
    for scores in (*report["tracking"].values(), *report["baselines"].values()):
        assert 0 <= scores["mean over videos"]["J&F"] <= 1
    repeated = report["baselines"]["first mask repeated"]["sequences"]
    assert repeated["still"]["J&F"] == 1
    warped = report["baselines"]["first mask warped by flow"]["sequences"]
    assert warped["moving"]["J"] > repeated["moving"]["J"]
    assert report["speed"]["frames a second"] > 0
    assert report["photos"]["masks"] == 2
    prompts = ["box", "1 click", "2 clicks", "3 clicks"]
    for mode in ("hq off", "hq correct", "correct minus off"):
        assert list(report["photos"][mode]) == prompts
    for prompt in prompts:
        gain = report["photos"]["correct minus off"][prompt]
        off, correct = (report["photos"][f"hq {mode}"][prompt] for mode in ("off", "correct"))
        assert gain["mean"] == pytest.approx(correct - off)
        assert gain["low"] <= gain["mean"] <= gain["high"]
    assert report["thin structures"]["cut-outs"] == 3
    assert set(report["thin structures"]["correct minus off"]) == {"IoU", "boundary IoU"}
    assert len(list((kept / "mask-off" / "moving").glob("*.png"))) == NUM_FRAMES
    assert "box, hq auto" in capsys.readouterr().out


def test_an_object_joins_a_baseline_where_it_is_given(script) -> None:
    baselines = script("nano_baselines")
    clip = toy_clip(4)
    first, late = np.zeros((2, *clip.shape[1:3]), dtype=bool)
    first[5:20, 5:20], late[30:40, 30:50] = True, True
    prompts = {0: {1: first}, 2: {2: late}}
    results = list(baselines.carry_masks(baselines.repeat, open_frames(clip), prompts))
    assert [sorted(result.masks) for result in results] == [[1], [1], [1, 2], [1, 2]]
    assert (results[3].masks[1] == first).all()
    assert (results[3].masks[2] == late).all()


def test_composites_are_the_same_at_each_run_and_hold_the_cutout(script, data: Path) -> None:
    stills = script("nano_stills")
    once, again = (list(stills.composites(data / "cutouts_train.zip", None, 2)) for _ in range(2))
    assert [len(pictures) for pictures in once] == [2, 2, 2]
    for one, other in zip(once, again, strict=True):
        for (image, mask), (same_image, same_mask) in zip(one, other, strict=True):
            assert (image == same_image).all()
            assert (mask == same_mask).all()
            assert image.shape == (*stills.CANVAS, 3)
            # An ellipse of 60 x 80 in 80 x 96 pixels covers 47 % of its box, at 40 to 85 % of it.
            assert 0.05 < mask.mean() < 0.4
            inside = image[mask]
            assert inside.std(axis=0).max() < 12  # one colour, but for the blended border
