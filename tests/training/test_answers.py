"""Clicks and IoUs of objects that the grid of the losses shows well, badly, or not at all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sam2_hq.structures import PointPrompt
from sam2_hq.training.answers import Judge, Prompt, correct
from sam2_hq.training.losses import LossWeights

SIDE = 96
JUDGE = Judge(LossWeights())


def square(side: int) -> Tensor:
    """A square that begins in the middle of a cell."""
    truth = torch.zeros(1, SIDE, SIDE)
    truth[0, 46 : 46 + side, 46 : 46 + side] = 1
    return truth


def wire() -> Tensor:
    truth = torch.zeros(1, SIDE, SIDE)
    truth[0, 10:80, 33] = 1
    return truth


def ring() -> Tensor:
    place = torch.arange(SIDE) - 47.5
    radius = (place[:, None] ** 2 + place[None] ** 2).sqrt()
    return ((radius > 30) & (radius < 32)).float()[None]


OBJECTS = {"small": square(5), "large": square(30), "wire": wire(), "ring": ring()}


def exact(truth: Tensor) -> Tensor:
    return (truth[:, None] - 0.5) * 20


def place_of(click: PointPrompt) -> tuple[int, int]:
    x, y = click.coords[0, 0].long().tolist()
    return y, x


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("central", [0.0, 1.0])
def test_the_first_click_is_on_the_object(name: str, central: float) -> None:
    truth = OBJECTS[name]
    for seed in range(10):
        numbers = torch.rand(1, 4, generator=torch.Generator().manual_seed(seed))
        click = JUDGE.click_object(truth, numbers, central)
        assert click.labels.tolist() == [[1]]
        if name != "large":  # a cell at its border is covered for the most part
            assert truth[0][place_of(click)] == 1


@pytest.mark.parametrize("name", OBJECTS)
def test_a_missed_object_is_clicked_and_one_that_is_found_is_not(name: str) -> None:
    truth = OBJECTS[name]
    for seed in range(10):
        numbers = torch.rand(1, 4, generator=torch.Generator().manual_seed(seed))
        missed = JUDGE.click_error(truth, torch.full((1, 1, 24, 24), -5.0), numbers, 1.0)
        assert missed.labels.tolist() == [[1]]
        assert truth[0][place_of(missed)] == 1
        found = JUDGE.click_error(truth, exact(truth), numbers, 1.0)
        assert found.labels.tolist() == [[0]]
        assert truth[0][place_of(found)] == 0


@pytest.mark.parametrize("name", OBJECTS)
def test_an_exact_mask_has_an_iou_of_one(name: str) -> None:
    truth = OBJECTS[name]
    assert float(JUDGE.overlap(exact(truth), truth)) == pytest.approx(1.0, abs=0.01)
    assert float(JUDGE.overlap(-exact(truth), truth)) < 0.05


def test_objects_are_judged_each_by_itself() -> None:
    truth = torch.cat(list(OBJECTS.values()))
    numbers = torch.rand(len(truth), 4, generator=torch.Generator().manual_seed(0))
    logits = torch.cat([exact(truth), -exact(truth)], dim=1)
    together = JUDGE.click_error(truth, logits[:, 1:], numbers, 0.0)
    for row in range(len(truth)):
        one = slice(row, row + 1)
        alone = JUDGE.click_error(truth[one], logits[one, 1:], numbers[one], 0.0)
        assert torch.equal(alone.coords, together.coords[one])
        assert torch.equal(alone.labels, together.labels[one])
    assert JUDGE.overlap(logits, truth).shape == (4, 2)


def test_an_object_out_of_sight_gets_a_negative_click() -> None:
    truth = torch.zeros(1, SIDE, SIDE)
    assert JUDGE.click_object(truth, torch.rand(1, 4), 1.0).labels.tolist() == [[0]]
    assert float(JUDGE.overlap(exact(truth), truth)) == 0.0


@pytest.mark.parametrize("forget", [False, True])
def test_a_correction_brings_the_mask_it_corrects_unless_it_is_forgotten(forget: bool) -> None:
    truth = square(8)
    logits = torch.full((1, 1, SIDE, SIDE), -50.0)  # nothing found
    given = correct(
        Prompt(), logits, truth, torch.zeros(1, 4), judge=JUDGE, central=1.0, forget=forget
    )
    assert given.points is not None
    assert given.points.labels.tolist() == [[1]]
    if forget:
        assert given.mask_logits is None
    else:
        assert given.mask_logits is not None
        assert (given.mask_logits == -32).all()
