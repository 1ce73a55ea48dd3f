"""What objects look like, learnt on one frame and looked for on another."""

from __future__ import annotations

import math

import pytest
import torch

from sam2_hq.ops import appearance
from sam2_hq.ops.appearance import (
    Appearance,
    Cells,
    cells_of,
    evidence,
    heed_own_colours,
    learn,
    stack_looks,
    surroundings,
)
from sam2_hq.ops.masks import enlarge
from sam2_hq.structures import FrameFeatures

SIDE = 24
RED, GREEN, BLUE = (31 / 31, 2 / 31, 2 / 31), (4 / 31, 20 / 31, 4 / 31), (2 / 31, 2 / 31, 31 / 31)
LIMIT = appearance.LARGEST_RATIO


def box(y0: int, y1: int, x0: int, x1: int) -> torch.Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def frame(
    *patches: tuple[torch.Tensor, tuple[float, float, float]],
    ground: tuple[float, float, float] = GREEN,
    texture: torch.Tensor | None = None,
) -> Cells:
    """A picture of patches on a ground; `texture` [SIDE, SIDE] is what the encoder sees in it."""
    picture = torch.tensor(ground)[:, None, None].expand(3, SIDE, SIDE).clone()
    for mask, colour in patches:
        picture[:, mask] = torch.tensor(colour)[:, None]
    seen = torch.zeros(SIDE, SIDE) if texture is None else texture
    high = torch.stack([seen, -seen])[None]
    features = FrameFeatures(torch.zeros(1, 2, SIDE // 4, SIDE // 4), (high,))
    return cells_of(picture, features, (SIDE, SIDE))


def learnt(cells: Cells, mask: torch.Tensor) -> Appearance:
    """What is learnt of an object that fills its cells."""
    looks = learn(cells, mask.float(), near(mask)[0])
    assert looks is not None
    return looks


def near(mask: torch.Tensor) -> torch.Tensor:
    return surroundings(mask[None])


def logits(mask: torch.Tensor) -> torch.Tensor:
    return mask.float() * 2 - 1


def test_a_red_thing_that_moved_is_told_from_its_green_ground() -> None:
    shown, now = box(8, 16, 8, 16), box(8, 16, 11, 19)
    looks = learnt(frame((shown, RED)), shown)
    found = evidence(frame((now, RED)), looks, near(box(8, 16, 9, 17)))[0, 0]
    assert (found[now] >= LIMIT).all()
    assert (found[box(8, 16, 7, 11)] <= -LIMIT).all()  # where it was decoded, and is no longer
    assert (found[:2] == 0).all()  # far away nothing is said


def test_a_colour_that_was_not_shown_says_nothing() -> None:
    shown, blue = box(8, 16, 8, 16), box(14, 18, 8, 16)
    looks = learnt(frame((shown, RED)), shown)
    found = evidence(frame((shown, RED), (blue, BLUE)), looks, near(shown))[0, 0]
    torch.testing.assert_close(found[blue], torch.zeros(int(blue.sum())), rtol=0, atol=1e-5)


def test_a_colour_of_both_counts_by_how_often_it_is_met_in_each() -> None:
    shown, half = box(8, 16, 8, 16), box(8, 16, 8, 12)
    looks = learnt(frame((half, RED)), shown)
    found = evidence(frame((half, RED)), looks, near(shown))[0, 0]
    # Green is half of the object, and all of what is around it.
    torch.testing.assert_close(found[10, 14].item(), math.log(0.5), rtol=0, atol=1e-3)


def test_a_mask_half_in_a_cell_counts_half() -> None:
    share = 0.5 * box(8, 16, 7, 17).float() + 0.5 * box(8, 16, 8, 16)
    looks = learn(frame(), share, near(share > 0.5)[0])
    assert looks is not None
    torch.testing.assert_close(looks.colours.sum(dim=2), torch.ones(1, 2))


def test_a_wire_that_fills_a_fifth_of_its_cells_is_learnt() -> None:
    wire = torch.eye(SIDE, dtype=torch.bool)
    texture = torch.where(wire, -0.6, -1.0)
    seen = frame(
        (wire, tuple(0.2 * r + 0.8 * g for r, g in zip(RED, GREEN, strict=True))), texture=texture
    )
    looks = learn(seen, 0.2 * wire, near(wire)[0])
    assert looks is not None
    found = evidence(seen, looks, near(wire))[0, 0]
    assert (found[wire] > 1).all()
    assert (found[~wire] < 0).all()


def test_features_of_a_large_object_are_learnt_from_some_of_its_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = box(4, 20, 4, 20)
    cells = frame(texture=torch.where(shown, 1.0, -1.0) + 0.1 * torch.arange(SIDE).sin())
    every = learnt(cells, shown)
    monkeypatch.setattr(appearance, "MOST_CELLS", 300)
    some = learnt(cells, shown)
    assert not torch.equal(some.feature_weights, every.feature_weights)
    torch.testing.assert_close(some.feature_weights, every.feature_weights, rtol=0.02, atol=0.005)
    assert torch.equal(some.colours, every.colours)


def test_a_fence_is_learnt_from_some_of_its_cells_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the distance of its poles, some of their cells are among those drawn."""
    monkeypatch.setattr(appearance, "MOST_CELLS", SIDE * SIDE // 4)
    everywhere = box(0, SIDE, 0, SIDE)
    for start in range(4):
        poles = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        poles[:, start::4] = True
        cells = frame(texture=torch.where(poles, 1.0, -1.0))
        looks = learn(cells, poles.float(), everywhere)
        assert looks is not None
        found = evidence(cells, looks, everywhere[None])[0, 0]
        assert (found[poles] - found[~poles].max() > 3).all()


@pytest.mark.parametrize(("share", "is_learnt"), [(0.2, True), (0.02, False), (0.0, False)])
def test_less_than_a_cell_of_an_object_teaches_nothing(share: float, is_learnt: bool) -> None:
    thread = box(8, 9, 6, 12)
    assert (learn(frame((thread, RED)), share * thread, near(thread)[0]) is not None) == is_learnt


def test_features_of_some_cells_are_those_of_enlarged_levels() -> None:
    level = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
    cells = torch.arange(SIDE * SIDE)
    wanted = enlarge(level[None], (SIDE, SIDE))[0].flatten(1)
    torch.testing.assert_close(appearance._at(level, cells, (SIDE, SIDE)), wanted)


def test_autocast_does_not_round_what_features_teach() -> None:
    shown = box(8, 16, 8, 16)
    cells = frame((shown, RED), texture=torch.linspace(-1, 1, SIDE).expand(SIDE, SIDE).contiguous())
    exact = learnt(cells, shown)
    with torch.autocast("cpu", torch.bfloat16):
        for one, other in zip(learnt(cells, shown), exact, strict=True):
            assert torch.equal(one, other)


def test_features_tell_apart_what_colours_cannot() -> None:
    shown = box(8, 16, 8, 16)
    texture = torch.where(shown, 1.0, -1.0)
    looks = learnt(frame(texture=texture), shown)
    found = evidence(frame(texture=texture), looks, near(shown))[0, 0]
    assert (found[shown] > 0.9 * appearance.FEATURE_SHARE).all()
    assert (found[box(8, 16, 17, 18)] < -0.9 * appearance.FEATURE_SHARE).all()
    assert found.abs().max() <= LIMIT + appearance.FEATURE_SHARE


def test_too_little_of_an_object_teaches_and_finds_nothing() -> None:
    shown, speck = box(8, 16, 8, 16), box(3, 4, 3, 6)
    nothing, everything = box(0, 0, 0, 0), box(0, SIDE, 0, SIDE)
    for mask in (speck, nothing, everything):  # nothing is around everything
        assert learn(frame((mask, RED)), mask.float(), near(mask)[0]) is None
    looks = learnt(frame((shown, RED)), shown)
    for little in (speck, torch.zeros_like(speck)):
        assert not evidence(frame((shown, RED)), looks, near(little)).any()


def test_objects_together_are_as_each_alone_and_unknown_ones_get_nothing() -> None:
    one, other = box(2, 8, 2, 8), box(12, 22, 10, 20)
    cells = frame((one, RED), (other, BLUE), texture=torch.arange(SIDE).float().expand(SIDE, SIDE))
    looks = [learnt(cells, mask) for mask in (one, other)]
    stacked = stack_looks([looks[0], None, looks[1]])
    assert stacked is not None
    masks = torch.cat([near(mask) for mask in (one, other, other)])
    found = evidence(cells, stacked, masks)
    for row, mask, known in ((0, one, looks[0]), (2, other, looks[1])):
        torch.testing.assert_close(found[row : row + 1], evidence(cells, known, near(mask)))
    assert not found[1].any()
    assert stack_looks([None, None]) is None


@pytest.mark.parametrize("colour", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 0.0, 0.49)])
def test_every_colour_has_its_share_of_bins(colour: tuple[float, float, float]) -> None:
    cells = frame(ground=colour)
    assert cells.bins.min() >= 0
    assert cells.bins.max() < appearance.BINS**3
    torch.testing.assert_close(cells.shares.sum(dim=0), torch.ones(SIDE * SIDE))


def test_a_decoder_without_high_resolution_features_has_the_embedding_alone() -> None:
    shown = box(8, 16, 8, 16)
    ground = torch.full((3, SIDE, SIDE), 0.5)
    embedding = torch.where(shown[::4, ::4], 1.0, -1.0) * torch.tensor([1.0, -1.0])[:, None, None]
    features = FrameFeatures(embedding[None], ())
    cells = cells_of(ground, features, (SIDE, SIDE))
    found = evidence(cells, learnt(cells, shown), near(shown))[0, 0]
    assert found[shown].mean() > 1
    assert found[box(8, 16, 17, 18)].mean() < -1


def test_an_answer_that_took_some_ground_for_the_object_is_put_right_by_its_colours() -> None:
    thing, answer = box(8, 16, 8, 16), box(8, 16, 6, 13)
    picture = torch.tensor(GREEN)[:, None, None].expand(3, SIDE, SIDE).clone()
    picture[:, thing] = torch.tensor(RED)[:, None]
    judged = heed_own_colours(picture, logits(answer), 2.0)
    assert torch.equal(judged > 0, thing)
    assert torch.equal(heed_own_colours(picture, logits(answer), 0.1) > 0, answer)


def test_an_answer_without_an_object_or_of_the_ground_s_colour_stays() -> None:
    flat = torch.full((3, SIDE, SIDE), 0.3)
    nothing = logits(box(0, 0, 0, 0))
    assert heed_own_colours(flat, nothing, 2.0) is nothing
    answer = box(8, 16, 8, 16)
    assert torch.equal(heed_own_colours(flat, logits(answer), 2.0) > 0, answer)
