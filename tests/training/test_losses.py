"""Losses against the published numbers and against their own rules."""

from __future__ import annotations

import pytest
import torch

from sam2_hq.training.losses import LossWeights, answer_losses, candidate_iou, dice_loss, focal_loss

LOGITS = torch.tensor([[[2.0, -1], [0.5, -3]], [[-1, 1], [1, -1]], [[3, 3], [-3, -3]]])[None]
TRUTH = torch.tensor([[[1.0, 1], [0, 0]]])
PREDICTED_IOU = torch.tensor([[0.5, 0.2, 0.9]])
SCORE = torch.tensor([[1.5]])
PRESENT = torch.tensor([True])
PUBLISHED = LossWeights()


def losses_of(logits, iou, truth, *, is_present=PRESENT, weights=PUBLISHED):
    overlap = candidate_iou(logits, truth[:, None])
    return answer_losses(
        logits, iou, SCORE, truth, overlap=overlap, is_present=is_present, weights=weights
    )


def published(truth: torch.Tensor, logits: torch.Tensor, iou: torch.Tensor):
    present = truth.flatten(1).any(dim=1)
    return losses_of(logits, iou, truth, is_present=present)


def test_focal_and_dice_of_each_candidate_are_the_published_ones() -> None:
    truth = TRUTH[:, None]
    assert focal_loss(LOGITS, truth)[0].tolist() == pytest.approx(
        [0.114760, 0.181130, 0.000055], abs=5e-6
    )
    assert dice_loss(LOGITS, truth)[0].tolist() == pytest.approx([0.3154, 0.4, 0.037941], abs=1e-4)


def test_the_best_of_three_pays_and_all_predicted_ious_are_held_to_the_truth() -> None:
    losses = published(TRUTH, LOGITS, PREDICTED_IOU)
    assert [float(term) for term in losses] == pytest.approx(
        [5.5e-5, 0.037941, 0.133333, 0.201413], abs=1e-6
    )
    assert float(losses.total(LossWeights())) == pytest.approx(0.373780, abs=2e-6)


def test_predicted_ious_can_be_held_by_squared_error() -> None:
    weights = LossWeights(squared_iou=True)
    losses = losses_of(LOGITS, PREDICTED_IOU, TRUTH, weights=weights)
    assert float(losses.iou) == pytest.approx((1 / 36 + 0.4**2 / 9 + 0.01) / 3, abs=1e-6)


def test_the_candidate_that_is_shown_can_pay_too() -> None:
    second = torch.tensor([[0.5, 0.8, 0.3]])  # it is shown, the third one is the cheapest
    losses = losses_of(LOGITS, second, TRUTH, weights=LossWeights(shown=0.25))
    assert float(losses.dice) == pytest.approx(0.75 * 0.037941 + 0.25 * 0.4, abs=1e-5)
    assert float(losses.mask) == pytest.approx(0.75 * 0.000055 + 0.25 * 0.181130, abs=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_lies_between_none_and_all(share) -> None:
    with pytest.raises(ValueError, match=r"shown must be between 0 and 1, got"):
        LossWeights(shown=share)


def test_two_answers_sum_to_the_published_loss() -> None:
    first = published(TRUTH, LOGITS, PREDICTED_IOU)
    second = published(TRUTH, LOGITS[:, 2:], PREDICTED_IOU[:, 2:])
    total = first.total(LossWeights()) + second.total(LossWeights())
    assert float(total) == pytest.approx(0.714227, abs=4e-6)


def test_an_absent_object_pays_for_presence_alone() -> None:
    losses = published(TRUTH * 0, LOGITS, PREDICTED_IOU)
    assert [float(term) for term in losses] == pytest.approx([0, 0, 0, 1.701413], abs=1e-6)


def test_iou_compares_hard_masks() -> None:
    assert candidate_iou(LOGITS, TRUTH[:, None])[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1.0])


def test_a_soft_target_is_cheapest_when_it_is_met() -> None:
    truth = torch.full((1, 1, 2, 2), 0.3)
    met, missed = torch.logit(truth), torch.logit(truth + 0.2)
    assert focal_loss(met, truth) < focal_loss(missed, truth)
