"""How many clicks a good mask takes, for any segmenter of single pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sam2_hq.data.masks import BoolMask
from sam2_hq.evaluation.clicks import Click, next_click
from sam2_hq.evaluation.metrics import jaccard
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.structures import HQMode

Segmenter = Callable[[Sequence[Click]], BoolMask]
"""Given all clicks so far, oldest first, the mask [H, W]."""


def iou_after_clicks(segment: Segmenter, truth: BoolMask, num_clicks: int) -> list[float]:
    """Click in the middle of the largest error, segment, and so on.

    Args:
        segment: called once a click with all clicks so far.
        truth: bool [H, W], not empty.
        num_clicks: how many.

    Returns:
        IoU after 1, 2, ... `num_clicks` clicks.

    Raises:
        ValueError: if `truth` is empty or `num_clicks` is not positive.
    """
    if num_clicks < 1:
        raise ValueError(f"num_clicks must be 1 or more, got {num_clicks}")
    if not truth.any():
        raise ValueError("truth must have foreground, got an empty mask")
    clicks: list[Click] = []
    mask = np.zeros_like(truth)
    scores = []
    for _ in range(num_clicks):
        clicks.append(next_click(mask, truth))
        mask = segment(clicks)
        scores.append(jaccard(mask, truth))
    return scores


def num_clicks_to_reach(scores: Sequence[float], iou: float) -> int:
    """NoC@iou: the first click after which `iou` is reached, or the number of clicks made."""
    return next((i for i, score in enumerate(scores, start=1) if score >= iou), len(scores))


def click_segmenter(predictor: SAM2ImagePredictor, hq_mode: HQMode | None = None) -> Segmenter:
    """Clicks on the picture that is set: the best of three for the first, then one mask refined.

    Args:
        predictor: with a picture set.
        hq_mode: None for the model's own.

    Returns:
        A segmenter for one object; it carries the logits from click to click.
    """
    previous: NDArray[np.float32] | None = None

    def segment(clicks: Sequence[Click]) -> BoolMask:
        nonlocal previous
        masks, iou, logits = predictor.predict(
            [[click.x, click.y] for click in clicks],
            [click.label for click in clicks],
            mask_input=previous if len(clicks) > 1 else None,
            multimask_output=len(clicks) == 1,
            hq_mode=hq_mode,
        )
        best = int(iou.argmax())
        previous = logits[best : best + 1]
        return masks[best]

    return segment
