"""Simulated prompts say what a person looking at the truth would say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sam2_hq.structures import PointPrompt
from sam2_hq.training.prompts import (
    coarse_mask_logits,
    coarse_view,
    correction_click,
    deepest_part,
    first_click,
    join_points,
    loose_box,
    pick_pixels,
)

# Rows 5..14, columns 8..19 of 20 x 30: the example of the published click simulation.
TRUTH = torch.zeros(1, 20, 30, dtype=torch.bool)
TRUTH[:, 5:15, 8:20] = True


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor([values])


@given(st.integers(0, 2**20), st.floats(0, 0.999))
def test_a_picked_pixel_lies_in_its_region(seed: int, number: float) -> None:
    region = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(seed)) > 0.7
    picked = pick_pixels(region, torch.full((3, 1), number))
    for row, (index,) in enumerate(picked.tolist()):
        assert region[row].flatten()[index] or not region[row].any()


def test_every_pixel_of_a_region_is_picked_equally_often() -> None:
    region = torch.zeros(1, 4, 4, dtype=torch.bool)
    region[0, [0, 2, 3], [1, 3, 0]] = True
    evenly = (torch.arange(300) + 0.5) / 300
    picked = pick_pixels(region, evenly[None])
    assert torch.bincount(picked[0]).tolist() == [0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 100]


def test_the_deepest_part_is_the_middle() -> None:
    middle = deepest_part(TRUTH)[0].nonzero()
    assert set(middle[:, 0].tolist()) == {9, 10}
    assert middle[:, 1].min() == 12
    assert middle[:, 1].max() == 15


def test_the_middle_of_a_large_object_is_small_on_a_large_grid() -> None:
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    thick = (y - 128) ** 2 + (x - 128) ** 2 < 100**2
    thin = torch.zeros_like(thick)
    thin[100:103, 20:200] = True
    middle = deepest_part(torch.stack([thick, thin]))
    assert 0 < middle[0].sum() < 0.35 * thick.sum()
    assert set(middle[1].nonzero()[:, 0].tolist()) == {101}


def test_a_central_first_click_is_in_the_middle_and_positive() -> None:
    click = first_click(TRUTH, numbers(0.0, 0.0, 0.0, 0.0), stride=4, central=0.5)
    assert click.labels.tolist() == [[1]]
    assert click.coords.tolist() == [[[12 * 4, 9 * 4]]]


def test_a_correction_is_positive_on_what_is_missing_and_negative_on_what_is_too_much() -> None:
    missing = TRUTH.clone()
    missing[:, :, 14:] = False
    click = correction_click(TRUTH, missing, numbers(0.0, 0.5, 0, 0), stride=1)
    assert click.labels.tolist() == [[1]]
    assert 14 <= click.coords[0, 0, 0] < 20
    too_much = TRUTH.clone()
    too_much[:, :3, :3] = True
    click = correction_click(TRUTH, too_much, numbers(0.9, 0.5, 0, 0), stride=1)
    assert click.labels.tolist() == [[0]]
    assert click.coords.max() < 3


def test_when_all_is_right_the_click_is_a_negative_one_on_the_background() -> None:
    click = correction_click(TRUTH, TRUTH, numbers(0.0, 0.7, 0, 0), stride=1)
    x, y = click.coords[0, 0].long().tolist()
    assert click.labels.tolist() == [[0]]
    assert not TRUTH[0, y, x]


def test_a_tight_box_holds_the_first_and_last_pixel() -> None:
    box = loose_box(TRUTH, torch.full((1, 4), 0.5))
    assert box.coords.tolist() == [[[8, 5], [19, 14]]]
    assert box.labels.tolist() == [[2, 3]]


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_loose_box_is_at_most_a_tenth_off_and_in_the_picture(noise: list[float]) -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 0:40, 10:50] = True
    box = loose_box(mask, numbers(*noise)).coords.flatten()
    assert ((box - torch.tensor([10.0, 0, 49, 39])).abs() <= 3.9 + 1e-4).all()
    assert box.min() >= 0
    assert box.max() <= 63


def test_a_coarse_mask_is_right_in_the_large_and_noisy_at_the_border() -> None:
    truth = torch.zeros(1, 64, 64)
    truth[:, 16:48, 16:48] = 1
    noise = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    logits = coarse_mask_logits(truth, noise)
    assert set(logits.unique().tolist()) == {-10.0, 10.0}
    wrong = (logits[:, 0] > 0) != (truth > 0.5)
    assert wrong.any()
    assert not wrong[:, 24:40, 24:40].any()
    assert not wrong[:, :8].any()


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_a_nearer_view_begins_with_a_coarser_mask(factor: int) -> None:
    logits = torch.full((2, 1, 48, 48), -9.0)
    logits[:, :, 12:36, 12:36] = 60.0
    logits[:, :, 23, :] = -9.0  # a crack one cell wide
    seen = coarse_view(logits, factor)
    assert seen.shape == logits.shape
    assert seen.max() <= 32
    crack = (seen[:, :, 23, 12:36] < 0).float().mean()
    assert crack == (1 if factor == 1 else 0)
    assert ((seen > 0) == (logits > 0))[:, :, :20].float().mean() > 0.95


def test_points_are_joined_in_order() -> None:
    one = PointPrompt(torch.zeros(2, 1, 2), torch.ones(2, 1, dtype=torch.int32))
    both = join_points(join_points(None, one), one)
    assert both.coords.shape == (2, 2, 2)


@pytest.mark.parametrize("stride", [1, 4])
def test_a_click_stays_in_its_cell(stride: int) -> None:
    click = first_click(TRUTH, numbers(0.9, 0.3, 0.99, 0.99), stride=stride, central=0.0)
    x, y = (click.coords[0, 0] // stride).long().tolist()
    assert TRUTH[0, y, x]
