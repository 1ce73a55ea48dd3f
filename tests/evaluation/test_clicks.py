"""Clicks and boxes of an ideal user, and what they say of a segmenter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from sam2_hq.evaluation.clicks import Click, box_around, box_prompt, next_click
from sam2_hq.evaluation.interactive import (
    click_segmenter,
    iou_after_clicks,
    num_clicks_to_reach,
)
from sam2_hq.evaluation.intervals import bootstrap_interval
from sam2_hq.evaluation.metrics import jaccard
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from tests.evaluation.oracles import Mask, mask_pairs
from tests.toy import disc_mask, toy_clip, toy_predictor

TRUTH = np.zeros((20, 30), dtype=bool)
TRUTH[5:15, 8:20] = True


def test_clicks_are_the_published_ones():
    assert next_click(np.zeros_like(TRUTH), TRUTH) == Click(12, 9, 1)
    prediction = TRUTH.copy()
    prediction[:, 14:] = False
    prediction[:3, :3] = True
    assert next_click(prediction, TRUTH) == Click(16, 7, 1)
    assert next_click(TRUTH, TRUTH) == Click(0, 0, 0)


def test_what_is_too_much_gets_a_click_beside_the_object():
    prediction = TRUTH.copy()
    prediction[15:20, 8:20] = True
    assert next_click(prediction, TRUTH).label == 0


@given(mask_pairs(largest=40))
@settings(max_examples=40)
def test_a_click_lies_on_an_error(pair: tuple[Mask, Mask]):
    prediction, truth = pair
    x, y, label = next_click(prediction, truth)
    if (prediction != truth).any():
        assert prediction[y, x] != truth[y, x]
        assert label == truth[y, x]


def test_a_box_holds_first_and_last_pixel():
    assert box_around(TRUTH) == (8, 5, 19, 14)
    with pytest.raises(ValueError, match="mask must have foreground"):
        box_around(np.zeros((4, 5), dtype=bool))


def test_a_box_prompt_is_never_empty():
    assert box_prompt(TRUTH) == box_around(TRUTH)
    dot = np.zeros_like(TRUTH)
    dot[19, 29] = True
    assert box_prompt(dot) == (29, 19, 30, 20)


def test_a_segmenter_that_learns_a_column_a_click_gets_better():
    def segment(clicks: list[Click]) -> Mask:
        mask = np.zeros_like(TRUTH)
        for x, _, _ in clicks:
            mask[5:15, x - 1 : x + 2] = True
        return mask

    scores = iou_after_clicks(segment, TRUTH, 3)  # type: ignore[arg-type]
    assert scores == sorted(scores)
    assert scores[0] == 0.25
    assert num_clicks_to_reach(scores, 0.4) == 2
    assert num_clicks_to_reach(scores, 0.99) == 3


def test_clicks_on_a_model_are_those_a_user_would_make_by_hand():
    predictor = SAM2ImagePredictor(toy_predictor())
    predictor.set_image(toy_clip()[0])
    truth = disc_mask()
    scores = iou_after_clicks(click_segmenter(predictor, "off"), truth, 2)
    first = next_click(np.zeros_like(truth), truth)
    masks, iou, logits = predictor.predict([first[:2]], [first.label], hq_mode="off")
    best = int(iou.argmax())
    second = next_click(masks[best], truth)
    masks, _, _ = predictor.predict(
        [first[:2], second[:2]],
        [first.label, second.label],
        mask_input=logits[best : best + 1],
        multimask_output=False,
        hq_mode="off",
    )
    assert scores[1] == jaccard(masks[0], truth)


def test_an_interval_holds_the_mean_and_narrows_with_more_items():
    rng = np.random.default_rng(0)
    few, many = (bootstrap_interval(rng.normal(1, 1, n)) for n in (20, 2000))
    assert few.low < few.mean < few.high
    assert many.high - many.low < (few.high - few.low) / 5
    assert many.mean == pytest.approx(1, abs=0.1)
    normal = 1.96 / 2000**0.5
    assert many.high - many.mean == pytest.approx(normal, rel=0.1)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="truth must have foreground"):
        iou_after_clicks(lambda clicks: TRUTH, np.zeros_like(TRUTH), 1)
    with pytest.raises(ValueError, match="num_clicks must be 1 or more"):
        iou_after_clicks(lambda clicks: TRUTH, TRUTH, 0)
    with pytest.raises(ValueError, match=r"values must be \[N\]"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="confidence must be between"):
        bootstrap_interval([1.0], confidence=95)
