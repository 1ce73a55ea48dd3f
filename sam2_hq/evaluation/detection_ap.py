"""Average precision of masks as COCO and LVIS count it, on mask IoU or on boundary IoU.

Matching and curves are pycocotools' own. LVIS is told by its fields: a category counts on a picture
that has an object of it or lists it in `neg_category_ids`; detections of the other ones are left
out, and detections without a partner where `not_exhaustive_category_ids` has the category.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # Any: JSON values

import numpy as np
from numpy.typing import NDArray

from sam2_hq.evaluation.coco_boxes import Results, Truth

AREAS = {"s": 1, "m": 2, "l": 3}  # below 32², to 96², above; 0 is all
FREQUENCIES = ("r", "c", "f")  # rare, common, frequent categories of LVIS


@dataclass(frozen=True)
class Precision:
    """Average precision and recall, 0 to 1; None where there is no object to find.

    summary: AP, AP50, AP75, AP of sizes s, m and l, and recall (AR). COCO: recall with 1, 10 and
        100 detections a category and picture, and with 100 by size. LVIS: recall with 300 a
        picture, and AP of rare, common and frequent categories.
    by_category: AP by name of the category.
    """

    summary: dict[str, float | None]
    by_category: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**self.summary, "categories": self.by_category}


def average_precision(
    truth: Truth,
    results: Results,
    *,
    boundary_ratio: float | None = None,
    class_agnostic: bool = False,
) -> Precision:
    """Score masks.

    Args:
        truth: annotated pictures; all of them count, also those without results.
        results: `image_id`, `category_id`, `segmentation` as run lengths, and `score`.
        boundary_ratio: None for mask IoU. Otherwise an overlap is the smaller of mask IoU and
            boundary IoU with bands of this share of the diagonal, `metrics.BOUNDARY_IOU_RATIO` as
            published; crowds keep mask IoU.
        class_agnostic: every category is the same one, as in UVO.

    Raises:
        ValueError: if pycocotools is not installed, or `results` is empty.

    Source: Lin et al., Microsoft COCO, 2014; Gupta et al., LVIS, 2019; Cheng et al., Boundary IoU,
    2021.
    """
    if not results:
        raise ValueError("results must hold at least one mask, got none")
    check_pycocotools()
    from sam2_hq.evaluation.coco_evaluator import BoundaryEvaluator, coco_object, curves

    is_federated = truth.is_federated and not class_agnostic
    tree = _without_classes(truth.tree) if class_agnostic else truth.tree
    if is_federated:
        results = _looked_for(truth, results)
    found = {**tree, "annotations": results}
    if class_agnostic:
        found = _without_classes(found)
    evaluator = BoundaryEvaluator(
        coco_object(tree),
        coco_object(found),
        ratio=boundary_ratio,
        not_exhaustive=_pairs(truth, "not_exhaustive_category_ids")
        if is_federated
        else frozenset(),
    )
    if is_federated:
        evaluator.params.maxDets = [truth.max_boxes]
    return _summarise(tree, *curves(evaluator), is_federated)


def check_pycocotools() -> None:
    """Say so before there are masks to score.

    Raises:
        ValueError: if pycocotools is not installed.
    """
    try:
        import pycocotools  # noqa: F401
    except ImportError as error:
        raise ValueError("pycocotools is not installed: pip install 'sam2-hq[coco]'") from error


def _without_classes(tree: Mapping[str, Any]) -> dict[str, Any]:
    entries = [{**entry, "category_id": 1} for entry in tree["annotations"]]
    return {**tree, "annotations": entries, "categories": [{"id": 1, "name": "object"}]}


def _looked_for(truth: Truth, results: Results) -> Results:
    """The best results of each picture, without categories that nobody looked for there."""
    annotated = {(entry["image_id"], entry["category_id"]) for entry in truth.tree["annotations"]}
    known = annotated | _pairs(truth, "neg_category_ids")
    by_image: dict[int, Results] = {}
    for entry in results:
        by_image.setdefault(entry["image_id"], []).append(entry)
    best = (
        sorted(entries, key=lambda entry: -entry["score"])[: truth.max_boxes]
        for entries in by_image.values()
    )
    return [
        entry
        for entries in best
        for entry in entries
        if (entry["image_id"], entry["category_id"]) in known
    ]


def _pairs(truth: Truth, key: str) -> frozenset[tuple[int, int]]:
    """Picture and category of a list that pictures carry."""
    images = truth.tree["images"]
    return frozenset((image["id"], category) for image in images for category in image.get(key, ()))


def _summarise(
    tree: Mapping[str, Any],
    precision: NDArray[np.float64],
    recall: NDArray[np.float64],
    is_federated: bool,
) -> Precision:
    categories = sorted(tree["categories"], key=lambda category: category["id"])
    summary = {
        "AP": _mean(precision[..., 0, -1]),
        "AP50": _mean(precision[0, ..., 0, -1]),
        "AP75": _mean(precision[5, ..., 0, -1]),
    }
    summary |= {f"AP{size}": _mean(precision[..., area, -1]) for size, area in AREAS.items()}
    if is_federated:
        kinds = np.array([category.get("frequency") for category in categories])
        summary |= {f"AP{k}": _mean(precision[:, :, kinds == k, 0, -1]) for k in FREQUENCIES}
    for place, limit in enumerate([300] if is_federated else [1, 10, 100]):
        summary[f"AR@{limit}"] = _mean(recall[..., 0, place])
    summary |= {f"AR{size}": _mean(recall[..., area, -1]) for size, area in AREAS.items()}
    by_category = {
        category["name"]: _mean(precision[:, :, place, 0, -1])
        for place, category in enumerate(categories)
    }
    return Precision(summary, by_category)


def _mean(values: NDArray[np.float64]) -> float | None:
    """Over what there is; -1 marks a category without objects."""
    there = values[values > -1]
    return float(there.mean()) if there.size else None
