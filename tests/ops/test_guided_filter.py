"""Coarse masks, and the fine pictures whose edges they follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sam2_hq.evaluation.metrics import jaccard
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


def reference(logits: torch.Tensor, picture: torch.Tensor, reach: float) -> np.ndarray:
    """The rule of the module, window by window, by NumPy's least squares."""
    grid = logits[0, 0].double().numpy()
    colours = F.avg_pool2d(picture.double(), SIDE // GRID).numpy()
    radius = round(reach * (grid > 0).sum() ** 0.5)
    places = np.argwhere(grid > 0)
    (top, left), (bottom, right) = places.min(0) - 2 * radius, places.max(0) + 2 * radius + 1
    assert min(top, left) >= 0
    assert max(bottom, right) <= GRID
    values = np.clip(grid, -6, 6) / 6
    fits, shares = np.zeros((4, GRID, GRID)), np.zeros((GRID, GRID))
    windows = {
        (y, x): (
            slice(max(y - radius, top), min(y + radius + 1, bottom)),
            slice(max(x - radius, left), min(x + radius + 1, right)),
        )
        for y in range(top, bottom)
        for x in range(left, right)
    }
    for (y, x), (rows, columns) in windows.items():
        target = values[rows, columns].ravel()
        weights = np.abs(target) + 0.02
        some = colours[:, rows, columns].reshape(3, -1).T
        middle, level = np.average(some, 0, weights), np.average(target, 0, weights)
        root = np.sqrt(weights / weights.sum())[:, None]
        # Ridge regression as rows of its own: the smoothness of the filter.
        design = np.vstack([(some - middle) * root, np.eye(3) * 1e-3])
        slopes = np.linalg.lstsq(design, np.append((target - level) * root[:, 0], [0] * 3))[0]
        fits[:, y, x] = *slopes, level - slopes @ middle
        spread = np.average((target - level) ** 2, weights=weights)
        told = np.average((target - level) * ((some - middle) @ slopes), weights=weights)
        shares[y, x] = np.clip(told / max(spread, 1e-6), 0, 1)
    mixed, share = np.zeros((4, GRID, GRID)), np.zeros((GRID, GRID))
    for (y, x), (rows, columns) in windows.items():
        weights = shares[rows, columns].ravel() + 1e-3
        mixed[:, y, x] = np.average(fits[:, rows, columns].reshape(4, -1), 1, weights)
        share[y, x] = shares[rows, columns].mean()
    step = SIDE // GRID
    near = torch.from_numpy(np.stack([*mixed, share]))[None, :, top:bottom, left:right]
    fine = F.interpolate(near, scale_factor=step, mode="bilinear")[0].numpy()
    part = slice(top * step, bottom * step), slice(left * step, right * step)
    fitted = 6 * ((fine[:3] * picture[(slice(None), *part)].double().numpy()).sum(0) + fine[3])
    result = plain(logits)[0, 0].double().numpy()
    result[part] += fine[4] * (fitted - np.clip(result[part], -6, 6))
    return result


def test_it_is_the_guided_filter_of_its_description() -> None:
    truth = leaf()
    logits = coarse(truth, shift=4)
    picture = painted(truth, contrast=0.2, noise=0.1)
    got, wanted = follow_edges(logits, picture, 0.1)[0, 0], reference(logits, picture, 0.1)
    assert (got - plain(logits)[0, 0]).abs().max() > 2
    np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_what_is_too_small_for_a_window_stays() -> None:
    """Four cells across is the smallest that has windows of a cell to each side."""
    logits = torch.full((2, 1, GRID, GRID), -3.0)
    logits[0, :, 8:11, 8:13] = logits[1, :, 8:12, 8:12] = 3.0
    fine = follow_edges(logits, painted(leaf()), 0.25)
    assert torch.equal(fine[0], plain(logits)[0])
    assert not torch.equal(fine[1], plain(logits)[1])


def test_nothing_vanishes() -> None:
    """Colours without sense: whatever they say, something of the object is left."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        noise = torch.rand(3, GRID // 2, GRID // 2, generator=generator)
        picture = F.interpolate(noise[None], (SIDE, SIDE), mode="bicubic")[0].clamp(0, 1)
        logits = torch.full((1, 1, GRID, GRID), -6.0)
        logits[:, :, 10:14, 10:15] = 0.3
        assert (follow_edges(logits, picture, 0.4) > 0).any()


def test_half_precision_goes_in() -> None:
    logits = coarse(leaf())
    fine = follow_edges(logits.half(), painted(leaf()), 0.25)
    assert fine.dtype == torch.float32
    torch.testing.assert_close(fine, follow_edges(logits, painted(leaf()), 0.25), rtol=0, atol=0.1)
