"""Numbers on pictures that are never trained on, from the metrics that the evaluation uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_hq.evaluation.clicks import box_around
from sam2_hq.evaluation.interactive import click_segmenter, iou_after_clicks
from sam2_hq.evaluation.metrics import jaccard
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.structures import HQMode

NUM_CLICKS = 3

Still = tuple[str, NDArray[np.uint8], list[NDArray[np.bool_]]]
"""Name, picture [H, W, 3], masks [H, W]."""


def validate_stills(
    model: SAM2Base, stills: Iterable[Still], *, max_objects: int = 1, hq_mode: HQMode = "off"
) -> dict[str, float]:
    """Mean IoU after a box, after one click and after three.

    Args:
        model: in evaluation mode.
        stills: pictures with masks.
        max_objects: the first so many masks of each are asked for.
        hq_mode: which masks are measured.

    Raises:
        ValueError: if there is no mask at all.
    """
    predictor = SAM2ImagePredictor(model)
    scores: dict[str, list[float]] = {"box": [], "click_1": [], f"click_{NUM_CLICKS}": []}
    with torch.inference_mode():
        for _, picture, masks in stills:
            predictor.set_image(picture)
            for truth in islice((mask for mask in masks if mask.any()), max_objects):
                box = np.array(box_around(truth), dtype=np.float32)
                answer = predictor.predict(box=box, multimask_output=False, hq_mode=hq_mode)
                scores["box"].append(jaccard(answer[0][0].astype(bool), truth))
                segment = click_segmenter(predictor, hq_mode)
                clicks = iou_after_clicks(segment, truth, NUM_CLICKS)
                scores["click_1"].append(clicks[0])
                scores[f"click_{NUM_CLICKS}"].append(clicks[-1])
    if not scores["box"]:
        raise ValueError("stills must have masks to validate on, got none")
    return {f"iou_{name}": float(np.mean(values)) for name, values in scores.items()}


def on_stills(
    stills: Iterable[Still], *, hq_mode: HQMode = "off"
) -> Callable[[SAM2Base], Mapping[str, float]]:
    """A validation for a trainer; keeps the pictures."""
    kept = list(stills)
    return lambda model: validate_stills(model, kept, hq_mode=hq_mode)
