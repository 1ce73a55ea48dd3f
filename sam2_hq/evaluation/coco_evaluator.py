"""COCO's evaluator with the overlap of boundaries and the rules of LVIS. Needs pycocotools.

`detection_ap.py` imports it when it is used.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any  # Any: pycocotools has no types

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sam2_hq.evaluation.metrics import boundary_band
from sam2_hq.ops.rle import rle_to_mask

Key = tuple[int, int]
"""Picture and category."""


class BoundaryEvaluator(COCOeval):
    """COCOeval for masks, optionally with boundary IoU and federated annotations.

    Args:
        truth: COCO object of the annotations.
        results: COCO object of the results.
        ratio: width of the band as a share of the diagonal; None for mask IoU alone.
        not_exhaustive: pairs of picture and category where not all objects are annotated, so that
            a detection without a partner does not count.
    """

    def __init__(
        self,
        truth: COCO,
        results: COCO,
        *,
        ratio: float | None,
        not_exhaustive: frozenset[Key] = frozenset(),
    ) -> None:
        super().__init__(truth, results, "segm")
        self._ratio = ratio
        self._not_exhaustive = not_exhaustive

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """Mask IoU; with a ratio the smaller of it and boundary IoU, but for crowds."""
        overlaps = super().computeIoU(imgId, catId)
        if self._ratio is None or len(overlaps) == 0:
            return overlaps
        truth = self._gts[imgId, catId]
        # The order of the rows: best first, among equals as they came.
        found = sorted(self._dts[imgId, catId], key=lambda entry: -entry["score"])[: len(overlaps)]
        bands = coco_mask.iou(
            [self._band(entry) for entry in found],
            [self._band(entry) for entry in truth],
            [0] * len(truth),
        )
        is_crowd = np.array([bool(entry["iscrowd"]) for entry in truth])
        return np.where(is_crowd, overlaps, np.minimum(overlaps, bands))

    def evaluateImg(
        self,
        imgId: int,
        catId: int,
        aRng: list[float],
        maxDet: int,
    ) -> Any:
        """Match one category of one picture."""
        matches = super().evaluateImg(imgId, catId, aRng, maxDet)
        if matches is not None and (imgId, catId) in self._not_exhaustive:
            matches["dtIgnore"] |= matches["dtMatches"] == 0
        return matches

    def _band(self, entry: dict[str, Any]) -> Any:
        if "band" not in entry:
            assert self._ratio is not None
            band = boundary_band(rle_to_mask(entry["segmentation"]), ratio=self._ratio)
            entry["band"] = coco_mask.encode(np.asfortranarray(band, dtype=np.uint8))
        return entry["band"]


def coco_object(tree: Mapping[str, Any]) -> COCO:
    """Annotations or results in memory as pycocotools wants them.

    Numbered from 1, since COCOeval takes an id of 0 for no partner; `area` and `iscrowd` are filled
    in where they are missing.
    """
    coco = COCO()
    entries = [
        {"iscrowd": 0, **entry, "id": number}
        for number, entry in enumerate(tree["annotations"], start=1)
    ]
    coco.dataset = {**tree, "annotations": entries}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    for entry in entries:
        entry["segmentation"] = coco.annToRLE(entry)
        entry.setdefault("area", int(coco_mask.area(entry["segmentation"])))
    return coco


def curves(evaluator: COCOeval) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run it, without its words.

    Returns:
        Precision [T, R, K, A, M] by IoU, recall, category, area and number of detections, and
        recall [T, K, A, M]; -1 where there is no object.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval["precision"], evaluator.eval["recall"]
