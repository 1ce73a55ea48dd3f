from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_hq.build_sam import load
from sam2_hq.data.masks import read_id_map
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor

SMALL = ("--override", "++model.image_size=128")
HEIGHT, WIDTH = 48, 64


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "result" / "mask.png"


def test_it_writes_what_the_image_predictor_says(run, picture: Path, target: Path):
    result = run("segment", picture, "-o", target, "--box", "4:4,8,24,28", *SMALL)
    assert result.exit_code == 0, result.stderr
    predictor = SAM2ImagePredictor(load(hydra_overrides_extra=[SMALL[1]], device="cpu"))
    predictor.set_image(Image.open(picture))
    masks, iou, _ = predictor.predict(box=[4, 8, 24, 28], multimask_output=False)
    np.testing.assert_array_equal(read_id_map(target), 4 * masks[0])
    scores = json.loads(target.with_suffix(".json").read_text())["objects"]["4"]
    assert scores["iou"] == pytest.approx(float(iou[0]))
    assert scores["area"] == masks[0].sum()
    with Image.open(target.with_name("mask_overlay.png")) as overlay:
        assert overlay.size == (WIDTH, HEIGHT)


def test_of_three_proposals_the_best_rated_is_written(run, picture: Path, target: Path):
    options = ("--point", "12,18", "--multimask", "--no-overlay", *SMALL)
    assert run("segment", picture, "-o", target, *options).exit_code == 0
    scores = json.loads(target.with_suffix(".json").read_text())["objects"]["1"]
    assert len(scores["candidates"]) == 3
    assert scores["iou"] == max(scores["candidates"])
    assert sorted(path.name for path in target.parent.iterdir()) == ["mask.json", "mask.png"]


def test_a_mask_is_a_first_guess_that_changes_the_answer(run, picture: Path, target: Path):
    answers = []
    for columns in (slice(6, 22), slice(40, 54)):
        guess = np.zeros((HEIGHT, WIDTH), np.uint8)
        guess[10:26, columns] = 1
        Image.fromarray(guess).save(picture.parent.parent / "guess.png")
        options = ("--mask", picture.parent.parent / "guess.png", "--overwrite", *SMALL)
        assert run("segment", picture, "-o", target, *options).exit_code == 0
        answers.append(json.loads(target.with_suffix(".json").read_text()))
    assert answers[0] != answers[1]


def test_an_overlay_does_not_outlive_its_mask(run, picture: Path, target: Path):
    assert run("segment", picture, "-o", target, "--box", "4,8,24,28", *SMALL).exit_code == 0
    overlay = target.with_name(f"{target.stem}_overlay.png")
    assert overlay.is_file()
    again = ("--box", "40,28,54,42", "--overwrite", "--no-overlay")
    assert run("segment", picture, "-o", target, *again, *SMALL).exit_code == 0
    assert not overlay.exists()


def test_a_result_is_not_replaced_unless_told(run, picture: Path, target: Path):
    assert run("segment", picture, "-o", target, "--box", "4,8,24,28", *SMALL).exit_code == 0
    before = target.read_bytes()
    refused = run("segment", picture, "-o", target, "--box", "40,28,54,42", *SMALL)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert target.read_bytes() == before


@pytest.mark.parametrize("name", ["ball.png", "picture.png"])
def test_it_never_writes_over_what_it_reads(run, picture: Path, tmp_path: Path, name: str):
    folder = tmp_path / "mine"
    folder.mkdir()
    image, prompts = folder / "picture.png", folder / "ball.json"
    Image.open(picture).save(image)
    prompts.write_text(
        '{"version": 1, "prompts": [{"object": 1, "frame": 0, "box": [4, 8, 24, 28]}]}'
    )
    before = {path: path.read_bytes() for path in folder.iterdir()}
    result = run("segment", image, "--prompts", prompts, "-o", folder / name, "--overwrite", *SMALL)
    assert result.exit_code == 2
    assert "it is what the command reads" in result.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["mask.png", "mask.json", "mask_overlay.png"])
def test_a_folder_in_the_place_of_a_result_is_refused_before_anything_is_written(
    run, picture: Path, target: Path, name: str
):
    (target.parent / name).mkdir(parents=True)
    result = run("segment", picture, "-o", target, "--box", "4,8,24,28", "--overwrite", *SMALL)
    assert result.exit_code == 2
    assert f"{name}': it is a folder" in result.stderr
    assert [path.name for path in target.parent.iterdir()] == [name]


@pytest.mark.parametrize("command", ["segment", "everything"])
def test_a_folder_is_not_one_picture(run, clip: Path, target: Path, command: str):
    box = ["--box", "4,8,24,28"] if command == "segment" else []
    result = run(command, clip, "-o", target, *box)
    assert result.exit_code == 2
    assert "sam2-hq track" in result.stderr
    assert not target.parent.exists()
