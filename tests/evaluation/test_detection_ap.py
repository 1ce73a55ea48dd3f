"""AP and boundary AP against pycocotools, and against AP written out from its definition."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sam2_hq.evaluation.coco_boxes import Truth
from sam2_hq.evaluation.detection_ap import average_precision
from sam2_hq.evaluation.metrics import jaccard
from sam2_hq.ops.rle import rle_to_mask
from tests.evaluation import oracles
from tests.evaluation.coco_worlds import Mask, federated, painted, rle, world

pytest.importorskip("pycocotools")

SEEDS = st.integers(0, 2**32)
ALL = pytest.approx(1)  # a precision of n / (n + 2e-16), as published
Overlap = Callable[[Mask, Mask], float]


def of_pycocotools(tree: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    """The twelve numbers that COCO prints."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(tree)
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats.tolist()


def by_definition(
    tree: dict[str, Any], results: list[dict[str, Any]], overlap: Overlap
) -> dict[str, float]:
    """AP of each category: all sizes, no crowds, categories counted where they were looked for."""
    found = {}
    for category in (c["id"] for c in tree["categories"]):
        truth = [a for a in tree["annotations"] if a["category_id"] == category]
        wanted = [r for r in results if r["category_id"] == category]
        looked_for = {a["image_id"] for a in truth}
        looked_for |= {i["id"] for i in tree["images"] if category in _list(tree, i["id"], "neg")}
        if any("neg_category_ids" in image for image in tree["images"]):
            wanted = [r for r in wanted if r["image_id"] in looked_for]
        if truth:
            thresholds = [
                _area(tree, category, truth, wanted, overlap, t) for t in range(50, 100, 5)
            ]
            found[f"kind {category}"] = float(np.mean(thresholds))
    return found


def _list(tree: dict[str, Any], image_id: int, start: str) -> list[int]:
    image = next(i for i in tree["images"] if i["id"] == image_id)
    return next((v for k, v in image.items() if k.startswith(f"{start}_")), [])


def _area(
    tree: dict[str, Any],
    category: int,
    truth: list[dict[str, Any]],
    results: list[dict[str, Any]],
    overlap: Overlap,
    percent: int,
) -> float:
    """Under the curve of the best precision at each of 101 recalls."""
    masks = [rle_to_mask(a["segmentation"]) for a in truth]
    taken: set[int] = set()
    # Among equal scores pictures go in the order of their ids, and results as they came.
    order = sorted(results, key=lambda r: (-r["score"], r["image_id"]))
    hits = []
    for entry in order:
        mask = rle_to_mask(entry["segmentation"])
        here = [
            (overlap(mask, masks[i]), i)
            for i, a in enumerate(truth)
            if a["image_id"] == entry["image_id"] and i not in taken
        ]
        best = max(here, default=(0.0, -1))
        if best[0] >= percent / 100 - 1e-12:
            taken.add(best[1])
            hits.append(True)
        elif category not in _list(tree, entry["image_id"], "not"):
            hits.append(False)
    right = np.cumsum(hits)
    precision, recall = right / np.arange(1, len(hits) + 1), right / len(truth)
    levels = np.linspace(0, 1, 101)  # as COCO has them: 0.7 is above 7 / 10 there
    return float(np.mean([precision[recall >= level].max(initial=0) for level in levels]))


def boundary_overlap(prediction: Mask, truth: Mask) -> float:
    return min(jaccard(prediction, truth), oracles.boundary_iou(prediction, truth))


@given(SEEDS)
@settings(max_examples=40)
def test_mask_ap_is_that_of_pycocotools_to_the_last_digit(seed: int) -> None:
    tree, results = world(seed)
    assume(tree["annotations"] and results)
    ours = average_precision(Truth(tree), results).summary
    assert [-1 if v is None else v for v in ours.values()] == of_pycocotools(tree, results)


@given(SEEDS)
@settings(max_examples=40)
def test_boundary_ap_is_what_its_definition_says(seed: int) -> None:
    tree, results = world(seed, crowds=False)
    assume(tree["annotations"] and results)
    found = average_precision(Truth(tree), results, boundary_ratio=0.02).by_category
    wanted = by_definition(tree, results, boundary_overlap)
    assert {k: v for k, v in found.items() if v is not None} == pytest.approx(wanted, abs=1e-9)


@given(SEEDS)
@example(19361)  # finds 7 of 10
@settings(max_examples=40)
def test_lvis_counts_only_what_was_looked_for(seed: int) -> None:
    tree, results = world(seed, crowds=False)
    assume(tree["annotations"] and results)
    tree = federated(tree, seed)
    for ratio, overlap in ((None, jaccard), (0.02, boundary_overlap)):
        found = average_precision(Truth(tree), results, boundary_ratio=ratio)
        wanted = by_definition(tree, results, overlap)
        there = {k: v for k, v in found.by_category.items() if v is not None}
        assert there == pytest.approx(wanted, abs=1e-9)
        for letter, first in (("r", 3), ("c", 1), ("f", 2)):
            assert found.summary[f"AP{letter}"] == pytest.approx(wanted.get(f"kind {first}"))
        assert "AR@300" in found.summary


def one_object(mask: Mask, **fields: Any) -> dict[str, Any]:
    entry = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": rle(mask), **fields}
    return {
        "images": [{"id": 1, "height": mask.shape[0], "width": mask.shape[1]}],
        "annotations": [entry],
        "categories": [{"id": 1, "name": "disc"}],
    }


def found(mask: Mask, score: float = 0.9, category: int = 1) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category, "segmentation": rle(mask), "score": score}


def test_a_ragged_border_costs_boundary_ap_alone() -> None:
    truth, shrunk = painted(50, 50, 30, (100, 100)), painted(50, 50, 27.5, (100, 100))
    tree = Truth(one_object(truth))
    assert average_precision(tree, [found(shrunk)]).summary["AP75"] == ALL
    boundary = average_precision(tree, [found(shrunk)], boundary_ratio=0.02)
    assert boundary.summary["AP50"] == 0
    perfect = average_precision(tree, [found(truth)], boundary_ratio=0.02)
    assert perfect.summary["AP"] == ALL


def test_a_crowd_swallows_detections_by_mask_iou() -> None:
    tree = one_object(painted(20, 20, 8))
    crowd = {**one_object(painted(20, 45, 10), id=2, iscrowd=1)["annotations"][0]}
    tree["annotations"].append(crowd)
    inside = found(painted(20, 45, 3), score=0.95)
    both = [inside, found(painted(20, 20, 8))]
    for ratio in (None, 0.02):
        summary = average_precision(Truth(tree), both, boundary_ratio=ratio).summary
        assert summary["AP"] == ALL
        outside = [{**inside, "segmentation": rle(painted(35, 5, 3))}, both[1]]
        summary = average_precision(Truth(tree), outside, boundary_ratio=ratio).summary
        assert summary["AP"] == pytest.approx(0.5)


def test_an_annotation_numbered_zero_can_be_found() -> None:
    mask = painted(20, 20, 8)
    assert average_precision(Truth(one_object(mask, id=0)), [found(mask)]).summary["AP"] == ALL


def test_without_classes_the_kind_of_a_detection_does_not_matter() -> None:
    mask = painted(20, 20, 8)
    tree = one_object(mask)
    tree["categories"].append({"id": 2, "name": "ring"})
    wrong = [found(mask, category=2)]
    assert average_precision(Truth(tree), wrong).summary["AP"] == 0
    assert average_precision(Truth(tree), wrong, class_agnostic=True).summary["AP"] == ALL


def test_polygons_and_missing_areas_are_fine() -> None:
    square = np.zeros((40, 56), dtype=bool)
    square[10:30, 10:30] = True
    tree = one_object(square)
    tree["annotations"][0]["segmentation"] = [[10, 10, 30, 10, 30, 30, 10, 30]]
    summary = average_precision(Truth(tree), [found(square)]).summary
    assert (summary["AP"], summary["APs"], summary["APm"], summary["APl"]) == (ALL, ALL, None, None)


def test_the_inputs_are_left_as_they_were() -> None:
    tree, results = world(3)
    before = copy.deepcopy((tree, results))
    average_precision(Truth(tree), results, boundary_ratio=0.02)
    assert (tree, results) == before


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = painted(20, 20, 8)
    with pytest.raises(ValueError, match="results must hold at least one mask"):
        average_precision(Truth(one_object(mask)), [])
    for name in [
        n for n in sys.modules if n.startswith(("pycocotools", "sam2_hq.evaluation.coco_ev"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ValueError, match=r"pip install 'sam2-hq\[coco\]'"):
        average_precision(Truth(one_object(mask)), [found(mask)])
