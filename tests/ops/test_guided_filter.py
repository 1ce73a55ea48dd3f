"""Coarse masks, and the fine pictures whose edges they follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sam2_hq.evaluation.metrics import jaccard
from sam2_hq.ops import guided_filter
from sam2_hq.ops.guided_filter import follow_edges

SIDE, GRID = 128, 32


def leaf() -> torch.Tensor:
    """A lobed shape, bool [SIDE, SIDE]."""
    y, x = torch.meshgrid(torch.arange(SIDE) - 60.0, torch.arange(SIDE) - 66.0, indexing="ij")
    return torch.hypot(x, y) < 30 + 8 * torch.cos(5 * torch.atan2(y, x))


def painted(mask: torch.Tensor, *, contrast: float = 0.5, noise: float = 0.03) -> torch.Tensor:
    """A picture [3, SIDE, SIDE] of something of one colour on another one."""
    generator = torch.Generator().manual_seed(7)
    colours = torch.tensor([0.3, 0.45, 0.3])[:, None, None]
    picture = colours + contrast * mask * torch.tensor([1.0, -0.4, 0.2])[:, None, None]
    return (picture + noise * torch.randn(3, SIDE, SIDE, generator=generator)).clamp(0, 1)


def coarse(mask: torch.Tensor, *, shift: int = 0) -> torch.Tensor:
    """Logits [1, 1, GRID, GRID] as a decoder gives them: blurred, and off by `shift` pixels."""
    share = F.avg_pool2d(mask.roll(shift, 1).float()[None, None], SIDE // GRID)
    return F.avg_pool2d(16 * share - 8, 3, 1, 1, count_include_pad=False)


def plain(logits: torch.Tensor) -> torch.Tensor:
    return F.interpolate(logits, (SIDE, SIDE), mode="bilinear", align_corners=False)


def test_a_blurred_and_shifted_mask_finds_the_edge_of_its_leaf() -> None:
    truth = leaf()
    logits = coarse(truth, shift=4)
    before = jaccard((plain(logits) > 0)[0, 0].numpy(), truth.numpy())
    after = jaccard((follow_edges(logits, painted(truth), 0.25) > 0)[0, 0].numpy(), truth.numpy())
    assert before < 0.87
    assert after > 0.96


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_where_colours_say_nothing_the_mask_stays(noise: float) -> None:
    truth = leaf()
    logits = coarse(truth)
    empty = painted(truth, contrast=0.0, noise=noise)
    fine = follow_edges(logits, empty, 0.25)
    assert jaccard((fine > 0)[0, 0].numpy(), (plain(logits) > 0)[0, 0].numpy()) > 0.97
    if noise == 0:
        torch.testing.assert_close(fine, plain(logits), rtol=0, atol=1e-3)


def test_an_absent_object_stays_absent() -> None:
    logits = torch.full((1, 1, GRID, GRID), -1024.0)
    assert torch.equal(follow_edges(logits, painted(leaf()), 0.25), plain(logits))


def test_a_mask_of_the_whole_picture_stays() -> None:
    logits = torch.full((1, 1, GRID, GRID), 9.0)
    fine = follow_edges(logits, painted(leaf()), 1.0)
    torch.testing.assert_close(fine, plain(logits), rtol=0, atol=1e-3)


def test_what_is_certain_is_not_overruled() -> None:
    """A shirt of the colour of the ground: the model knows that it belongs to the man."""
    body = leaf()
    shirt = torch.zeros_like(body)
    shirt[50:70, 56:76] = True
    picture = torch.where(shirt, painted(~body), painted(body))
    logits = coarse(body).clamp(-20, 20) * 4
    fine = follow_edges(logits, picture, 0.25)[0, 0]
    assert (fine[52:68, 58:74] > 0).all()


def test_objects_of_all_sizes_in_one_call_are_as_one_by_one() -> None:
    small = torch.zeros_like(leaf())
    small[20:26, 100:108] = True
    logits = torch.cat([coarse(leaf()), coarse(small), torch.full((1, 1, GRID, GRID), -5.0)])
    picture = painted(leaf() | small)
    together = follow_edges(logits, picture, 0.25)
    alone = torch.cat([follow_edges(one[None], picture, 0.25) for one in logits])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_the_reach_grows_with_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    means = guided_filter._window_means

    def spy(maps: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
        seen.append(radii.tolist())
        return means(maps, radii)

    monkeypatch.setattr(guided_filter, "_window_means", spy)
    logits = torch.full((3, 1, GRID, GRID), -3.0)
    logits[0, :, :16, :16] = logits[1, :, :4, :4] = logits[2, :, 0, 0] = 3.0
    follow_edges(logits, painted(leaf()), 0.25)
    assert seen[0] == [4, 1, 1]


def test_windows_of_several_radii_are_means_of_what_lies_in_the_picture() -> None:
    maps = torch.rand(2, 3, 7, 9, dtype=torch.float64)
    got = guided_filter._window_means(maps, torch.tensor([1, 3]))
    for i, radius in enumerate((1, 3)):
        for y in range(7):
            for x in range(9):
                rows = slice(max(y - radius, 0), y + radius + 1)
                columns = slice(max(x - radius, 0), x + radius + 1)
                wanted = maps[i, :, rows, columns].mean(dim=(1, 2))
                torch.testing.assert_close(got[i, :, y, x], wanted)


def test_the_fit_of_a_window_is_that_of_weighted_least_squares() -> None:
    generator = np.random.default_rng(0)
    values, colours = generator.uniform(-1, 1, (6, 6)), generator.uniform(0, 1, (3, 6, 6))
    slopes, offset, explained = guided_filter._linear_fit(
        torch.from_numpy(values)[None, None], torch.from_numpy(colours)[None], torch.tensor([1])
    )
    y, x = slice(2, 5), slice(1, 4)  # the window around row 3, column 2
    target, weights = values[y, x].ravel(), np.abs(values[y, x]).ravel() + 0.02
    design = np.column_stack([colours[:, y, x].reshape(3, -1).T, np.ones(9)])
    root = np.sqrt(weights)
    wanted, *_ = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)
    np.testing.assert_allclose([*slopes[0, :, 3, 2], offset[0, 0, 3, 2]], wanted, atol=2e-3)
    rest = target - design @ wanted
    spread = np.average((target - np.average(target, weights=weights)) ** 2, weights=weights)
    left = np.average(rest**2, weights=weights) / spread
    np.testing.assert_allclose(explained[0, 0, 3, 2], 1 - left, atol=2e-3)


def test_half_precision_goes_in() -> None:
    logits = coarse(leaf())
    fine = follow_edges(logits.half(), painted(leaf()), 0.25)
    assert fine.dtype == torch.float32
    torch.testing.assert_close(fine, follow_edges(logits, painted(leaf()), 0.25), rtol=0, atol=0.1)
