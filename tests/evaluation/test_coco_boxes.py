"""A detector's boxes to masks: files, checks, and what the predictor is asked."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_hq.evaluation.coco_boxes import (
    BOXES_AT_ONCE,
    Truth,
    corners,
    picture_files,
    read_detections,
    read_truth,
    scored,
    segment_boxes,
)
from sam2_hq.evaluation.detection_ap import average_precision
from sam2_hq.ops.rle import rle_to_mask
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from tests.evaluation.coco_worlds import federated, world
from tests.toy import SIZE, toy_clip, toy_predictor

PICTURE = toy_clip(1)[0]
Numbers = st.floats(-200, 200)


@pytest.fixture(scope="module")
def predictor() -> SAM2ImagePredictor:
    return SAM2ImagePredictor(toy_predictor())


def detection(*bbox: float, score: float = 0.5) -> dict[str, Any]:
    return {"image_id": 10, "category_id": 1, "bbox": list(bbox), "score": score}


def write(path: Path, tree: object) -> Path:
    path.write_text(json.dumps(tree))
    return path


@given(Numbers, Numbers, st.floats(0, 300), st.floats(0, 300))
def test_every_box_lies_in_the_picture_and_has_an_area(
    x: float, y: float, width: float, height: float
) -> None:
    x0, y0, x1, y1 = corners([x, y, width, height], SIZE)
    assert 0 <= x0 < x1 <= SIZE[1]
    assert 0 <= y0 < y1 <= SIZE[0]
    assert min(x1 - x0, y1 - y0) > 1 - 1e-9


def test_a_box_inside_the_picture_stays_as_it_is() -> None:
    assert corners([10.5, 20, 30, 40.25], SIZE) == [10.5, 20, 40.5, 60.25]


def test_masks_are_those_of_boxes_asked_one_by_one(predictor: SAM2ImagePredictor) -> None:
    rng = np.random.default_rng(0)
    boxes = [detection(*rng.uniform(0, 40, 2), *rng.uniform(10, 30, 2)) for _ in range(35)]
    assert len(boxes) > BOXES_AT_ONCE
    found = segment_boxes(predictor, PICTURE, boxes, hq_modes=["off", "correct"])
    assert len(found["off"]) == len(found["correct"]) == len(boxes)
    predictor.set_image(PICTURE)
    for mode, results in found.items():
        for entry, result in zip(boxes, results, strict=True):
            masks, iou, _ = predictor.predict(
                box=corners(entry["bbox"], SIZE), multimask_output=False, hq_mode=mode
            )
            # A batch sums in another order; few pixels are so close to the border.
            assert (rle_to_mask(result["segmentation"]) != masks[0]).sum() <= 2
            assert result["predicted_iou"] == pytest.approx(float(iou[0]), abs=1e-4)


def test_of_three_candidates_the_one_rated_best_is_taken(predictor: SAM2ImagePredictor) -> None:
    entry = detection(20, 20, 30, 30)
    found = segment_boxes(predictor, PICTURE, [entry], hq_modes=["off"], multimask=True)["off"][0]
    masks, iou, _ = predictor.predict(box=[20, 20, 50, 50], multimask_output=True, hq_mode="off")
    assert (rle_to_mask(found["segmentation"]) == masks[iou.argmax()]).all()
    assert found["predicted_iou"] == pytest.approx(float(iou.max()))


def test_a_score_may_be_the_product_with_the_expected_iou() -> None:
    results = [{"score": 0.5, "predicted_iou": 0.8}]
    assert scored(results, "detector")[0]["score"] == 0.5
    assert scored(results, "product")[0]["score"] == pytest.approx(0.4)
    assert results[0]["score"] == 0.5


def test_the_best_boxes_of_a_picture_are_kept_and_equals_in_order(tmp_path: Path) -> None:
    tree, _ = world(0)
    scores = [0.1, 0.9, 0.5, 0.9]
    entries = [detection(i, 0, 5, 5, score=s) for i, s in enumerate(scores)]
    file = write(tmp_path / "boxes.json", entries)
    kept = read_detections(file, Truth(tree), max_boxes=3)
    assert [entry["bbox"][0] for entry in kept[10]] == [1, 3, 2]


def test_lvis_is_told_by_its_fields_and_takes_more_boxes() -> None:
    tree, _ = world(0)
    assert (Truth(tree).is_federated, Truth(tree).max_boxes) == (False, 100)
    lvis = Truth(federated(tree, 0))
    assert (lvis.is_federated, lvis.max_boxes) == (True, 300)


def test_pictures_are_found_by_name_or_by_the_end_of_their_address(tmp_path: Path) -> None:
    images: list[dict[str, Any]] = [
        {"id": 1, "file_name": "a.jpg"},
        {"id": 2, "coco_url": "http://images.example/val2017/b.jpg"},
        {"id": 3, "coco_url": "http://images.example/val2017/c.jpg"},
    ]
    (tmp_path / "val2017").mkdir()
    for name in ("a.jpg", "b.jpg", "val2017/c.jpg"):
        (tmp_path / name).touch()
    truth = Truth({"images": images})
    files = picture_files(truth, [1, 2, 3], tmp_path)
    assert [files[i].relative_to(tmp_path).as_posix() for i in (1, 2, 3)] == [
        "a.jpg",
        "b.jpg",
        "val2017/c.jpg",
    ]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ValueError, match=r"image 1: there is no file '.*a.jpg'"):
        picture_files(truth, [1], tmp_path)
    with pytest.raises(ValueError, match="images: there is no folder"):
        picture_files(truth, [1], tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, r"\[1\]: the annotations have no image_id 99"),
        ({"category_id": 99}, r"\[1\]: the annotations have no category_id 99"),
        ({"bbox": [1, 2, 3]}, r"\[1\]: bbox must be four numbers"),
        ({"bbox": [1, 2, 3, float("nan")]}, r"\[1\]: bbox must be four numbers"),
        ({"score": "high"}, r"\[1\]: bbox must be four numbers and score one"),
        ({"score": None}, r"\[1\]: bbox must be four numbers and score one"),
        ({"score": True}, r"\[1\]: bbox must be four numbers and score one"),
        ({"bbox": [1, 2, 3, 10**400]}, r"\[1\]: bbox must be four numbers"),
        ({"image_id": [10]}, r"\[1\]: image_id must be a whole number or a name, got \[10\]"),
    ],
)
def test_a_wrong_detection_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    good = detection(0, 0, 5, 5)
    file = write(tmp_path / "boxes.json", [good, {**good, **change}])
    with pytest.raises(ValueError, match=message):
        read_detections(file, Truth(world(0)[0]))


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    tree = world(0)[0]
    file = tmp_path / "x.json"
    with pytest.raises(ValueError, match=r"annotations '.*x.json': no such file"):
        read_truth(file)
    file.write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        read_truth(file)
    for wrong, message in (
        ([], "must have a list of images"),
        ({**tree, "categories": []}, "must have a list of categories"),
        ({**tree, "annotations": [{"image_id": 1}]}, r"annotations\[0\] has no 'category_id'"),
        ({**tree, "images": ["a.jpg"]}, r"images\[0\] has no 'id'"),
        (
            {**tree, "images": [{"id": 10, "height": "40", "width": 56}]},
            r"images\[0\]: height must be a whole number, got '40'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            read_truth(write(file, wrong))
    with pytest.raises(ValueError, match="must be a list of results"):
        read_detections(write(file, {"boxes": []}), Truth(tree))
    without_score = {k: v for k, v in detection(0, 0, 1, 1).items() if k != "score"}
    with pytest.raises(ValueError, match=r"\[0\] has no 'score'"):
        read_detections(write(file, [without_score]), Truth(tree))
    assert read_truth(write(file, copy.deepcopy(tree))).images.keys() == {10, 11, 12, 13}


def test_annotations_of_pictures_that_are_not_listed_are_left_out(tmp_path: Path) -> None:
    tree, _ = world(1)
    listed = tree | {"images": tree["images"][:1]}
    truth = read_truth(write(tmp_path / "truth.json", listed))
    assert truth.tree["annotations"]
    assert {entry["image_id"] for entry in truth.tree["annotations"]} == {tree["images"][0]["id"]}


OUTLINES: dict[str, tuple[object, str]] = {
    "no outline": ([], "has no outline"),
    "a line": ([[1, 2, 3, 4]], "polygons of three points or more"),
    "half a point": ([[1, 2, 3, 4, 5, 6, 7]], "polygons of three points or more"),
    "points in pairs": ([[[1, 2], [3, 4], [5, 6]]], "polygons of three points or more"),
    "one flat polygon": ([1, 2, 3, 4, 5, 6], "polygons of three points or more"),
    "words": ("disc", "polygons of three points or more"),
    "another size": ({"size": [20, 20], "counts": [400]}, r"is \[20, 20\], its picture \[40, 56\]"),
    "too few pixels": ({"size": [40, 56], "counts": [400]}, "counts add up to 400, but size is 40"),
    "damaged": ({"size": [40, 56], "counts": "\x7f"}, "counts is not a COCO run-length string"),
    "no counts": ({"size": [40, 56]}, "rle must have size and counts"),
    "one count": ({"size": [40, 56], "counts": 2240}, "rle must have size and counts"),
    "size in words": ({"size": ["40", "56"], "counts": [2240]}, "rle must have size and counts"),
    "no run so long": ({"size": [40, 56], "counts": [10**30]}, "rle must have size and counts"),
    "a line first": ([[1, 2, 3, 4], [1, 2, 30, 2, 30, 20]], "polygons of three points or more"),
}


@pytest.mark.parametrize("case", OUTLINES)
def test_a_bad_outline_is_named_before_anything_is_segmented(tmp_path: Path, case: str) -> None:
    tree, _ = world(1)
    tree["annotations"][2]["segmentation"], message = OUTLINES[case]
    with pytest.raises(ValueError, match=rf"annotations\[2\].*{message}"):
        read_truth(write(tmp_path / "truth.json", tree))


@pytest.mark.parametrize(
    "outline",
    [
        [[1, 2, 30.5, 2, 30, 20], [0, 0, 3, 0, 3, 3, 0, 3]],
        [[1, 2, 30.5, 2, 30, 20], [0, 0, 3, 0], []],  # parts without an area, as in LVIS
        {"size": [40.0, 56.0], "counts": [40, 2200]},
    ],
)
def test_what_other_tools_take_for_an_outline_is_one(tmp_path: Path, outline: object) -> None:
    tree, results = world(1)
    tree["annotations"][2]["segmentation"] = outline
    truth = read_truth(write(tmp_path / "truth.json", tree))
    assert average_precision(truth, results).summary["AP"] is not None


def test_numbers_with_a_point_are_ids_too(tmp_path: Path) -> None:
    tree, _ = world(1)
    for entry in tree["annotations"]:
        entry["category_id"] = float(entry["category_id"])
    truth = read_truth(write(tmp_path / "truth.json", tree))
    found = [{**detection(0, 0, 5, 5), "image_id": 10.0}]
    assert read_detections(write(tmp_path / "boxes.json", found), truth)[10] == found
