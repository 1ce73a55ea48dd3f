"""mIoU and mBIoU: the published box, scores of known masks, means and their differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sam2_hq.data.masks import write_id_map
from sam2_hq.evaluation.metrics import boundary_iou, jaccard
from sam2_hq.evaluation.still_scores import (
    StillScore,
    StillScores,
    find_stills,
    label_box,
    read_label,
    score_stills,
)
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from tests.toy import disc_mask, toy_clip, toy_predictor

DISC = disc_mask().astype(np.uint8) * 255


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pictures of a disc; the second mask is empty."""
    pictures, masks = tmp_path / "im", tmp_path / "gt"
    pictures.mkdir()
    masks.mkdir()
    for name, seed in (("a9", 1), ("a10", 1), ("b", 2)):
        Image.fromarray(toy_clip(1, seed)[0]).save(pictures / f"{name}.jpg")
        label = disc_mask(seed=seed).astype(np.uint8) * 255
        Image.fromarray(label * (name != "a10")).save(masks / f"{name}.png")
    return pictures, masks


def test_pictures_are_paired_with_masks_of_their_name(folders: tuple[Path, Path]) -> None:
    assert [still.name for still in find_stills(*folders)] == ["a9", "a10", "b"]
    (folders[1] / "b.png").unlink()
    with pytest.raises(ValueError, match=r"mask '.*b.png': no such file"):
        find_stills(*folders)
    with pytest.raises(ValueError, match="masks: there is no folder"):
        find_stills(folders[0], folders[1] / "no")
    (folders[1] / "empty").mkdir()
    with pytest.raises(ValueError, match="has no picture"):
        find_stills(folders[1] / "empty", folders[1])


def test_pictures_may_lie_beside_their_masks(folders: tuple[Path, Path]) -> None:
    pictures, masks = folders
    for mask in masks.iterdir():
        mask.rename(pictures / mask.name)
    found = find_stills(pictures, pictures)
    assert [(still.picture.name, still.mask.name) for still in found] == [
        (f"{name}.jpg", f"{name}.png") for name in ("a9", "a10", "b")
    ]


def test_hidden_files_and_suffixes_in_capitals_stop_nothing(folders: tuple[Path, Path]) -> None:
    pictures, masks = folders
    (pictures / "b.jpg").rename(pictures / "b.JPG")
    (masks / "b.png").rename(masks / "b.PNG")
    for folder, name in ((pictures, "._b.jpg"), (masks, "._b.png"), (masks, "._a9.PNG")):
        (folder / name).write_bytes(b"what another system leaves beside files")
    found = find_stills(pictures, masks)
    assert [(still.picture.name, still.mask.name) for still in found] == [
        ("a9.jpg", "a9.png"),
        ("a10.jpg", "a10.png"),
        ("b.JPG", "b.PNG"),
    ]


def test_two_pictures_of_one_mask_are_refused(folders: tuple[Path, Path]) -> None:
    Image.open(folders[0] / "b.jpg").save(folders[0] / "b.png")
    with pytest.raises(ValueError, match=r"b\..*' and 'b\..*' share a mask"):
        find_stills(*folders)


def test_scores_are_those_of_the_masks_from_the_published_box(
    folders: tuple[Path, Path],
) -> None:
    predictor = SAM2ImagePredictor(toy_predictor())
    stills = find_stills(*folders)
    scores = score_stills(predictor, stills, ["off", "correct"])
    assert scores.empty == ["a10"]
    assert list(scores.rows) == ["a9", "b"]
    predictor.set_image(Image.open(stills[0].picture))
    truth = DISC > 128
    for mode in ("off", "correct"):
        masks, _, _ = predictor.predict(box=label_box(DISC), multimask_output=False, hq_mode=mode)
        assert scores.rows["a9"][mode] == (
            jaccard(masks[0], truth),
            boundary_iou(masks[0], truth),
        )


def test_the_box_is_taken_on_a_square_of_1024() -> None:
    label = np.zeros((100, 200), dtype=np.uint8)
    label[20:50, 60:140] = 255
    # Columns 60 to 139 of 200: the first above half on the square is 307, the last 716.
    scale = [200 / 1024, 100 / 1024]
    x0, y0, x1, y1 = (v / scale[i % 2] for i, v in enumerate(label_box(label) or []))
    assert [round(v) for v in (x0, y0, x1, y1)] == [307, 205, 716, 511]
    assert label_box(np.zeros((4, 5), dtype=np.uint8)) is None
    assert label_box(np.full((4, 5), 128, dtype=np.uint8)) is None


def test_a_thin_line_still_has_a_box() -> None:
    label = np.zeros((2048, 2048), dtype=np.uint8)
    label[1000:1002] = 255
    x0, y0, x1, y1 = label_box(label) or []
    assert x0 == 0 < x1
    assert y0 < y1


def test_masks_of_zero_and_one_count(tmp_path: Path) -> None:
    Image.fromarray(DISC // 255).save(tmp_path / "m.png")
    assert (read_label(tmp_path / "m.png") == DISC).all()
    Image.fromarray(np.stack([DISC] * 3, axis=-1)).save(tmp_path / "rgb.png")
    assert (read_label(tmp_path / "rgb.png") == DISC).all()


def test_a_mask_in_colours_is_not_taken_for_its_red(tmp_path: Path) -> None:
    Image.fromarray(np.stack([DISC, 0 * DISC, DISC], axis=-1)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png' must be gray, got colours"):
        read_label(tmp_path / "m.png")


@pytest.mark.parametrize("object_id", [1, 2, 7])
def test_of_a_palette_with_colours_the_ids_count(tmp_path: Path, object_id: int) -> None:
    write_id_map(tmp_path / "m.png", DISC // 255 * object_id)
    assert (read_label(tmp_path / "m.png") == DISC).all()


def test_a_palette_of_grays_is_a_gray_picture(tmp_path: Path) -> None:
    soft = np.maximum(DISC // 2, 9)
    image = Image.fromarray(255 - soft)
    image.putpalette([value for value in range(255, -1, -1) for _ in "rgb"])  # white comes first
    image.save(tmp_path / "m.png")
    assert (read_label(tmp_path / "m.png") == soft).all()


def test_gains_are_paired_by_picture() -> None:
    rows: dict[str, Any] = {
        str(i): {"off": StillScore(i / 10, 0.1), "correct": StillScore(i / 10 + 0.05, 0.1)}
        for i in range(8)
    }
    scores = StillScores(rows)
    report = scores.to_json()
    assert report["means"]["off"]["mIoU"] == pytest.approx(0.35)
    assert report["means"]["correct"]["mIoU"] == pytest.approx(0.40)
    gain = report["gains"]["correct"]["mIoU"]
    # Every picture gains the same, so that the interval has no width.
    assert [gain[key] for key in ("mean", "low", "high")] == pytest.approx([0.05] * 3)
    assert report["gains"]["correct"]["mBIoU"]["mean"] == 0


def test_damage_is_named(folders: tuple[Path, Path]) -> None:
    predictor = SAM2ImagePredictor(toy_predictor())
    pictures, masks = folders
    Image.fromarray(DISC[:, :40]).save(masks / "a9.png")
    with pytest.raises(ValueError, match=r"a9.png' is \[72, 40\], its picture \[72, 96\]"):
        score_stills(predictor, find_stills(pictures, masks), ["off"])
    for name in ("a9", "b"):
        Image.fromarray(0 * DISC).save(masks / f"{name}.png")
    with pytest.raises(ValueError, match="no mask has foreground"):
        score_stills(predictor, find_stills(pictures, masks), ["off"])
