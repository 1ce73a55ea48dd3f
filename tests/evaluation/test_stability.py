"""Flicker and identity switches, on drawings and on masks drawn by chance."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_hq.evaluation.stability import (
    flicker,
    frame_flicker,
    identity_switches,
    switched_objects,
)

SIZE = (60, 120)
Mask = np.ndarray[tuple[int, int], np.dtype[np.bool_]]
Frames = list[dict[int, Mask]]


def disc(x: float, y: float = 30, radius: float = 12) -> Mask:
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


NOTHING = np.zeros(SIZE, dtype=bool)
LEFT, RIGHT = disc(30), disc(90)


@st.composite
def clips(draw: st.DrawFn, num_frames: int = 5) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    return rng.random((num_frames, draw(st.integers(1, 6)), draw(st.integers(1, 6)))) < share


def test_a_still_mask_does_not_flicker():
    assert flicker([LEFT] * 6) == 0


def test_a_disc_that_moves_does_not_flicker():
    assert flicker(disc(20 + 3 * t, 20 + t) for t in range(20)) == 0


def test_nor_does_a_line_that_moves_farther_than_it_is_wide():
    lines = np.zeros((12, *SIZE), dtype=bool)
    for t, line in enumerate(lines):
        line[10:50, 9 * t : 9 * t + 3] = True
    assert flicker(lines) == 0


def test_a_mask_that_jumps_aside_for_a_frame_flickers():
    assert frame_flicker(disc(30), disc(60), disc(32)) == 1
    aside = frame_flicker(disc(30), disc(36), disc(32))
    assert aside is not None
    assert 0.2 < aside < 0.8


def test_a_mask_that_blinks_flickers_all_the_time():
    assert flicker([LEFT, NOTHING] * 4) == 1


def test_an_object_that_comes_and_goes_does_not_flicker():
    assert flicker([NOTHING, NOTHING, LEFT, LEFT, LEFT, NOTHING, NOTHING]) == 0


def test_frames_on_which_the_object_is_out_of_sight_do_not_dilute_the_mean():
    assert flicker([LEFT, NOTHING, LEFT, *[NOTHING] * 50]) == pytest.approx(2 / 3)
    assert flicker([NOTHING] * 5) is None
    assert flicker([LEFT, NOTHING]) is None


def test_an_outline_that_trembles_costs_its_share_of_the_mask():
    square, wider = np.zeros((2, 20, 20), dtype=bool)
    square[5:15, 5:15] = wider[5:15, 5:17] = True
    assert frame_flicker(square, wider, square) == pytest.approx(1 - 100 / 120)


@given(clips())
def test_flicker_is_the_same_backwards_mirrored_and_in_a_larger_picture(clip: np.ndarray):
    value = flicker(clip)
    assert value is None or 0 <= value <= 1
    for other in (clip[::-1], clip[:, ::-1], np.pad(clip, ((0, 0), (2, 1), (0, 3)))):
        assert flicker(other) == (None if value is None else pytest.approx(value))


@given(clips())
def test_pixels_that_change_once_do_not_flicker(clip: np.ndarray):
    for monotone in (np.logical_or.accumulate(clip), np.logical_and.accumulate(clip)):
        assert flicker(monotone) in (0, None)


@given(clips(num_frames=3))
def test_flicker_is_the_share_of_pixels_that_change_back_unless_a_motion_explains_it(
    clip: np.ndarray,
):
    before, mask, after = clip
    back = ((before != mask) & (mask != after)).sum()
    union = (mask | (before & after)).sum()
    share = back / union if union else 0.0
    value, at_rest = flicker(clip), frame_flicker(before, mask, before)
    assert value is None if not clip.any() else value <= share + 1e-12
    if mask.any() or before.any():
        assert at_rest == pytest.approx((before != mask).sum() / (before | mask).sum())


def test_masks_must_fit_each_other():
    with pytest.raises(ValueError, match="one size"):
        flicker([LEFT, LEFT, LEFT[:9]])
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        flicker(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="one size"):
        identity_switches([{1: LEFT}, {1: LEFT[:40]}])


def tracks(*frames: Iterable[Mask]) -> Frames:
    return [dict(enumerate(masks, start=1)) for masks in frames]


def test_two_objects_that_swap_are_two_switches():
    assert identity_switches(tracks((LEFT, RIGHT), (RIGHT, LEFT), (RIGHT, LEFT))) == 2


def test_fast_objects_that_swap_are_seen_though_they_hardly_overlap_themselves():
    steps = tracks((disc(30), disc(90)), (disc(90 - 14), disc(30 + 14)))
    assert identity_switches(steps) == 2


def test_an_object_whose_mask_is_continued_under_another_name_is_one_switch():
    assert identity_switches(tracks((LEFT, NOTHING), (NOTHING, LEFT))) == 1
    assert identity_switches([{1: LEFT, 2: RIGHT}, {2: LEFT}]) == 1


def test_three_objects_that_change_places_in_a_ring_are_three_switches():
    places = [disc(20), disc(60), disc(100)]
    assert switched_objects(*tracks(places, [places[1], places[2], places[0]])) == [1, 2, 3]


def test_objects_that_pass_each_other_do_not_switch():
    path = [(disc(20 + 4 * t, 26), disc(100 - 4 * t, 34)) for t in range(20)]
    assert identity_switches(tracks(*path)) == 0


def test_objects_that_follow_each_other_do_not_switch():
    convoy = [(disc(20 + 25 * t), disc(45 + 25 * t)) for t in range(3)]
    assert identity_switches(tracks(*convoy)) == 0


def test_a_duplicate_that_vanishes_is_no_switch():
    assert identity_switches(tracks((LEFT, LEFT), (LEFT, NOTHING))) == 0


def test_an_object_that_jumps_onto_another_is_a_duplicate_and_no_switch():
    assert identity_switches(tracks((LEFT, RIGHT), (RIGHT, RIGHT))) == 0


def test_coming_and_going_is_no_switch():
    assert identity_switches(tracks((LEFT, NOTHING), (LEFT, RIGHT), (NOTHING, RIGHT))) == 0


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.permutations([1, 2, 3, 4]))
def test_names_and_mirrors_do_not_matter_and_standing_still_adds_nothing(
    seed: int, names: list[int]
):
    rng = np.random.default_rng(seed)
    places = [disc(x, y, 10) for x in (15, 45, 75, 105) for y in (15, 45)]
    frames = [
        {
            i: places[p]
            for i, p in enumerate(rng.choice(8, 4, replace=False), 1)
            if rng.random() < 0.8
        }
        for _ in range(4)
    ]
    count = identity_switches(frames)
    assert count <= sum(len(frame) for frame in frames[1:])
    renamed = [{names[i - 1]: mask for i, mask in frame.items()} for frame in frames]
    mirrored = [{i: mask[:, ::-1] for i, mask in frame.items()} for frame in frames]
    slow = [frame for frame in frames for _ in range(2)]
    for other in (renamed, mirrored, slow):
        assert identity_switches(other) == count
