from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from sam2_hq.ops.masks import (
    choose_hq,
    clean_small_regions,
    fill_holes,
    hq_disagreement,
    mask_iou,
    masks_to_boxes,
    non_overlapping,
    remove_small_regions,
    stability_score,
)


def logits_of(*rows: str) -> torch.Tensor:
    """[1, 1, H, W]; `#` is a logit of 2, anything else of -3."""
    return torch.tensor([[2.0 if pixel == "#" else -3.0 for pixel in row] for row in rows])[
        None, None
    ]


def rows_of(logits: torch.Tensor) -> list[str]:
    return ["".join("#" if pixel > 0 else "." for pixel in row) for row in logits[0, 0]]


def random_logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


masks = arrays(bool, (6, 6))


class TestFillHoles:
    def test_small_holes_become_foreground_and_nothing_else_changes(self):
        logits = logits_of("######", "#.####", "##...#", "###..#", "######", "#.....")
        filled = fill_holes(logits, max_area=6)
        assert rows_of(filled) == ["######"] * 6
        assert_close(filled[logits <= 0].unique(), torch.tensor([0.1]))
        assert torch.equal(filled[logits > 0], logits[logits > 0])
        assert rows_of(fill_holes(logits, 5))[1:3] == ["#.####", "##...#"]
        assert rows_of(fill_holes(logits, 5))[5] == "######"

    def test_an_empty_mask_is_no_hole_and_a_logit_of_zero_is_background(self):
        assert rows_of(fill_holes(logits_of("....", "...."), 7)) == ["....", "...."]
        logits = torch.ones(1, 1, 3, 3)
        logits[0, 0, 1, 1] = 0.0
        assert fill_holes(logits, 1)[0, 0, 1, 1] == pytest.approx(0.1)

    @given(arrays(np.float32, (2, 7, 5), elements=st.floats(-2, 2, width=16)), st.integers(1, 12))
    def test_it_follows_the_definition(self, logits, max_area):
        expected = logits.copy()
        for image, filled in zip(logits, expected, strict=True):
            numbers, count = ndimage.label(image <= 0, np.ones((3, 3)))
            for number in range(1, count + 1):
                if (numbers == number).sum() <= max_area:
                    filled[numbers == number] = 0.1
        found = fill_holes(torch.from_numpy(logits)[:, None], max_area)
        np.testing.assert_array_equal(found[:, 0].numpy(), expected)

    def test_the_input_stays_as_it_is(self):
        logits = logits_of("###", "#.#", "###")
        before = logits.clone()
        for max_area in (0, 3):
            fill_holes(logits, max_area)
            clean_small_regions(logits, max_area, max_area)
            assert torch.equal(logits, before)

    def test_a_negative_area_is_refused(self):
        with pytest.raises(ValueError, match="max_area must be 0 or more pixels, got -1"):
            fill_holes(torch.zeros(1, 1, 2, 2), -1)


class TestCleanSmallRegions:
    def test_both_halves_look_at_the_logits_as_given(self):
        # The island in the hole: filling the ring around it first would make it survive.
        logits = logits_of(
            "#######", "#.....#", "#.....#", "#..#..#", "#.....#", "#######", "......#"
        )
        cleaned = clean_small_regions(logits, max_hole_area=19, max_sprinkle_area=1)
        assert cleaned[0, 0, 3, 3] == -10
        assert cleaned[0, 0, 1, 1] == 10
        assert cleaned[0, 0, 6, 0] == 10
        assert cleaned[0, 0, 0, 0] == 2

    def test_each_candidate_is_cleaned_alone_around_the_threshold(self):
        logits = torch.full((2, 3, 4, 4), 0.7)
        logits[1, 2, 0, 0] = 0.4
        cleaned = clean_small_regions(logits, 1.0, 0.0, threshold=0.5)
        assert cleaned[1, 2, 0, 0] == 10.5
        assert torch.equal(cleaned[0], logits[0])
        assert torch.equal(clean_small_regions(logits), logits)

    def test_a_negative_area_is_refused(self):
        with pytest.raises(ValueError, match="max_sprinkle_area"):
            clean_small_regions(torch.zeros(1, 1, 2, 2), 0, -2)


class TestRemoveSmallRegions:
    def test_small_holes_are_filled_and_then_small_islands_dropped(self):
        masks = logits_of("####...", "#.##..#", "####...", ".......", "##....#")[0] > 0
        found = remove_small_regions(masks, 3)
        expected = logits_of("####...", "####...", "####...", ".......", ".......")[0] > 0
        assert torch.equal(found, expected)
        assert torch.equal(remove_small_regions(masks, 1), masks)

    def test_the_largest_island_stays_and_each_mask_is_alone(self):
        masks = torch.stack(
            [(logits_of("##...#...") > 0)[0, 0], (logits_of(".........") > 0)[0, 0]]
        )
        found = remove_small_regions(masks, 3)
        assert rows_of(found[None, :1].float()) == ["##......."]
        assert not found[1].any()
        assert remove_small_regions(masks[:0], 3).shape == (0, 1, 9)


class TestNonOverlapping:
    def test_the_highest_logit_keeps_the_pixel(self):
        logits = torch.tensor([3.0, -12.0, 1.0]).view(3, 1, 1, 1)
        assert non_overlapping(logits).flatten().tolist() == [3.0, -12.0, -10.0]

    def test_the_first_of_equals_wins_and_one_object_is_left_alone(self):
        logits = torch.zeros(2, 1, 1, 1)
        assert non_overlapping(logits).flatten().tolist() == [0.0, -10.0]
        assert torch.equal(non_overlapping(logits[:1]), logits[:1])

    def test_masks_are_disjoint_and_their_union_stays(self):
        logits = random_logits(4, 1, 9, 8)
        apart = non_overlapping(logits) > 0
        assert apart.sum(dim=0).max() == 1
        assert torch.equal(apart.any(dim=0), (logits > 0).any(dim=0))


class TestBoxesAndScores:
    @given(arrays(bool, (3, 5, 7)))
    def test_boxes_are_the_outermost_pixels(self, masks):
        for mask, box in zip(masks, masks_to_boxes(torch.from_numpy(masks)), strict=True):
            y, x = np.nonzero(mask)
            expected = [x.min(), y.min(), x.max(), y.max()] if len(x) else [0, 0, 0, 0]
            assert box.tolist() == expected

    def test_no_mask_has_no_box(self):
        assert masks_to_boxes(torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (0, 4)
        assert masks_to_boxes(torch.zeros(2, 3, 4, 4, dtype=torch.bool)).shape == (2, 3, 4)

    def test_stability_counts_strictly_on_both_sides(self):
        logits = torch.tensor([[2.0, 1.0, 0.5, -0.5, -1.0, -2.0]])
        assert stability_score(logits, 0.0, 1.0, if_empty=1.0) == pytest.approx(1 / 4)

    @pytest.mark.parametrize("if_empty", [0.0, 1.0])
    def test_the_stability_of_an_empty_mask_is_the_callers_choice(self, if_empty):
        assert stability_score(torch.full((4, 4), -9.0), 0.0, 1.0, if_empty=if_empty) == if_empty

    @given(masks, masks)
    def test_iou_follows_the_definition(self, first, second):
        union = (first | second).sum()
        expected = (first & second).sum() / union if union else 1.0
        found = mask_iou(torch.from_numpy(first), torch.from_numpy(second))
        assert found.item() == pytest.approx(expected)


class TestChooseHQ:
    sam = random_logits(2, 3, 8, 8, seed=1)
    hq = random_logits(2, 1, 8, 8, seed=2)
    iou = torch.full((2, 3), 0.9)

    def test_the_published_modes(self):
        assert torch.equal(choose_hq(self.sam, self.hq, self.iou, "off"), self.sam)
        assert torch.equal(choose_hq(self.sam, self.hq, self.iou, "correct"), self.sam + self.hq)
        only = choose_hq(self.sam, self.hq, self.iou, "only")
        assert torch.equal(only, torch.cat([self.hq] * 3, dim=1))

    def test_auto_decides_for_each_candidate(self):
        distance = hq_disagreement(self.sam, self.hq)
        iou = 1 - distance / 2 + torch.tensor([[0.01, -0.01, 0.01], [-0.01, 0.01, -0.01]])
        chosen = choose_hq(self.sam, self.hq, iou, "auto")
        for object_ in range(2):
            for candidate in range(3):
                is_sam = (object_ + candidate) % 2 == 0
                expected = self.sam[object_, candidate]
                if not is_sam:
                    expected = expected + self.hq[object_, 0]
                assert torch.equal(chosen[object_, candidate], expected)

    @given(masks, masks, masks)
    @settings(max_examples=300)
    def test_auto_leaves_the_corrected_mask_only_for_a_better_one(self, sam, corrected, truth):
        sam_logits = torch.where(torch.from_numpy(sam), 1.0, -1.0)[None, None]
        wanted = torch.where(torch.from_numpy(corrected), 1.0, -1.0)[None, None]
        hq_logits = wanted - sam_logits + 0.5 * wanted
        truth = torch.from_numpy(truth)
        exact_iou = mask_iou(sam_logits > 0, truth)
        chosen = choose_hq(sam_logits, hq_logits, exact_iou, "auto")
        if torch.equal(chosen, sam_logits):
            # atol: float32 rounding of three ratios
            assert exact_iou >= mask_iou(wanted > 0, truth) - 1e-6

    def test_disagreement_is_one_minus_the_iou_of_before_and_after(self):
        sam, hq = logits_of("##.."), torch.tensor([0.0, -9.0, 9.0, 0.0]).view(1, 1, 1, 4)
        assert hq_disagreement(sam, hq).item() == pytest.approx(2 / 3)
        assert hq_disagreement(logits_of("...."), torch.zeros(1, 1, 1, 4)).item() == 0

    def test_an_unknown_mode_is_named(self):
        with pytest.raises(ValueError, match="one of off, correct, only, auto, got 'best'"):
            choose_hq(self.sam, self.hq, self.iou, "best")


def test_everything_runs_on_fake_tensors():
    with FakeTensorMode():
        logits, hq, iou = torch.empty(2, 3, 8, 8), torch.empty(2, 1, 8, 8), torch.empty(2, 3)
        chosen = choose_hq(logits, hq, iou, "auto")
        assert clean_small_regions(chosen, 3, 2).shape == (2, 3, 8, 8)
        assert non_overlapping(fill_holes(hq, 8)).shape == hq.shape
        assert masks_to_boxes(chosen > 0).shape == (2, 3, 4)
        assert stability_score(chosen, 0.0, 1.0, if_empty=1.0).shape == (2, 3)
