"""The trunk: windows, positions, and the layout of the four published sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from sam2_hq.build_sam import build_sam2
from sam2_hq.modeling.backbones.hieradet import (
    Hiera,
    MultiScaleBlock,
    PatchEmbed,
    from_windows,
    pool_2x2,
    to_windows,
)


@settings(max_examples=60)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    window=st.integers(1, 6),
)
def test_cutting_into_windows_and_joining_them_changes_nothing(
    batch: int, height: int, width: int, window: int
) -> None:
    x = torch.randn(batch, height, width, 2)
    windows, grid = to_windows(x, window)
    assert windows.shape == (batch * grid[0] * grid[1], window, window, 2)
    assert torch.equal(from_windows(windows, grid, (height, width)), x)


def test_windows_go_row_by_row_and_are_padded_with_zeros_at_bottom_and_right() -> None:
    x = torch.arange(1.0, 7.0).reshape(1, 2, 3, 1)
    windows, grid = to_windows(x, 2)
    assert grid == (1, 2)
    assert windows[..., 0].tolist() == [[[1, 2], [4, 5]], [[3, 0], [6, 0]]]


def test_pooling_leaves_out_an_odd_last_row_and_column() -> None:
    x = torch.arange(15.0).reshape(1, 3, 5, 1)
    assert pool_2x2(x)[0, ..., 0].tolist() == [[6, 8]]
    numbers = torch.randn(2, 5, 6, 3)
    want = F.max_pool2d(numbers.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert torch.equal(pool_2x2(numbers), want)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_tokens_lie_in_one_piece_however_the_picture_lies(layout: torch.memory_format) -> None:
    embed = PatchEmbed(6)
    pixels = torch.randn(1, 3, 32, 24)
    tokens = embed(pixels.contiguous(memory_format=layout))
    assert tokens.shape == (1, 8, 6, 6)
    assert tokens.is_contiguous()
    assert_close(tokens, embed.proj(pixels).permute(0, 2, 3, 1))


def by_hand(block: MultiScaleBlock, x: torch.Tensor, window: int) -> torch.Tensor:
    """A block, one window after another, with the padded places filled in explicitly."""
    normed = block.norm1(x)
    side = -(-x.shape[1] // window) * window
    padded = x.new_zeros(1, side, side, x.shape[-1])
    padded[:, : x.shape[1], : x.shape[2]] = normed
    step = window // 2 if block.pool_query else window
    out_side = side // 2 if block.pool_query else side
    attended = x.new_zeros(1, out_side, out_side, block.attn.proj.out_features)
    for i in range(side // window):
        for j in range(side // window):
            rows = slice(i * window, (i + 1) * window)
            columns = slice(j * window, (j + 1) * window)
            q, k, v = block.attn.qkv(padded[:, rows, columns]).chunk(3, dim=-1)
            q = pool_2x2(q) if block.pool_query else q
            q, k, v = (t.flatten(1, 2).unflatten(-1, (block.attn.num_heads, -1)) for t in (q, k, v))
            scores = torch.einsum("bnhd,blhd->bhnl", q, k) / q.shape[-1] ** 0.5
            out = torch.einsum("bhnl,blhd->bnhd", scores.softmax(dim=-1), v).flatten(2)
            rows = slice(i * step, (i + 1) * step)
            columns = slice(j * step, (j + 1) * step)
            attended[:, rows, columns] = block.attn.proj(out).unflatten(1, (step, step))
    shortcut = x if block.proj is None else block.proj(normed)
    shortcut = pool_2x2(shortcut) if block.pool_query else shortcut
    x = shortcut + attended[:, : shortcut.shape[1], : shortcut.shape[2]]
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize(("dim_out", "pool"), [(8, False), (16, True)])
def test_padded_places_are_attended_to_and_cropped_away(dim_out: int, pool: bool) -> None:
    torch.manual_seed(0)
    block = MultiScaleBlock(8, dim_out, 2, window_size=4, pool_query=pool)
    x = torch.randn(1, 6, 6, 8)  # padded to 8 x 8
    with torch.no_grad():
        got = block(x)
        assert got.shape == ((1, 3, 3, 16) if pool else (1, 6, 6, 8))
        assert_close(got, by_hand(block, x, 4))


def test_window_zero_attends_over_the_whole_map() -> None:
    torch.manual_seed(0)
    block = MultiScaleBlock(8, 8, 2, window_size=0)
    x = torch.randn(1, 6, 6, 8)
    with torch.no_grad():
        assert_close(block(x), by_hand(block, x, 6))


def test_the_position_term_has_the_specified_values() -> None:
    trunk = Hiera(1, 1, stages=(1, 1, 1, 1), window_pos_embed_bkg_spatial_size=(7, 7))
    with torch.no_grad():
        trunk.pos_embed.copy_((torch.arange(49.0) ** 2 / 100).reshape(1, 1, 7, 7))
        trunk.pos_embed_window.copy_((torch.arange(64.0) / 1000).reshape(1, 1, 8, 8))
        table = trunk.position_term(256, 256)[0, ..., 0]
    want = {
        (0, 0): -0.046824,
        (0, 255): 0.248289,
        (18, 200): 0.268598,
        (100, 37): 2.723354,
        (255, 255): 23.795311,
    }
    got = torch.stack([table[at] for at in want])
    assert_close(got, torch.tensor(list(want.values())), rtol=0, atol=2e-6)


def test_a_map_that_holds_no_whole_windows_is_refused() -> None:
    trunk = Hiera(8, 1, stages=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="a multiple of 8 patches, got 9x9"):
        trunk(torch.zeros(1, 3, 36, 36))


def test_every_stage_has_a_window() -> None:
    with pytest.raises(ValueError, match=r"window_spec must have one side a stage, got \[8, 4\]"):
        Hiera(8, 1, stages=(1, 1, 1, 1), window_spec=(8, 4))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="num_heads must divide the width 8, got 3"):
        Hiera(8, 3, stages=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="num_heads must be 1 or more, got 0"):
        Hiera(8, 0, stages=(1, 1, 1, 1))


LAYOUT: dict[str, Any] = {
    # first channels and heads, blocks a stage, windows of the stages, blocks without windows
    "t": (96, 1, (1, 2, 7, 2), (8, 4, 14, 7), (5, 7, 9)),
    "s": (96, 1, (1, 2, 11, 2), (8, 4, 14, 7), (7, 10, 13)),
    "b+": (112, 2, (2, 3, 16, 3), (8, 4, 14, 7), (12, 16, 20)),
    "l": (144, 2, (2, 6, 36, 4), (8, 4, 16, 8), (23, 33, 43)),
}


@pytest.mark.parametrize("size", LAYOUT)
def test_the_published_sizes_have_the_specified_blocks(size: str) -> None:
    dim, heads, stages, windows, whole = LAYOUT[size]
    with torch.device("meta"):
        model = build_sam2(f"configs/sam2.1/sam2.1_hiera_{size}.yaml", device="meta", mode="train")
    blocks = list(model.image_encoder.trunk.blocks)
    stage_of = [stage for stage, count in enumerate(stages) for _ in range(count)]
    assert len(blocks) == len(stage_of)
    for i, (block, stage) in enumerate(zip(blocks, stage_of, strict=True)):
        is_transition = i > 0 and stage != stage_of[i - 1]
        entered = stage - 1 if is_transition else stage  # a transition sees the stage it leaves
        assert block.window_size == (0 if i in whole else windows[entered]), i
        assert block.pool_query == is_transition, i
        assert block.attn.num_heads == heads * 2**stage, i
        assert block.attn.qkv.in_features == dim * 2**entered, i
        assert block.attn.proj.out_features == dim * 2**stage, i
        assert (block.proj is not None) == is_transition, i


@pytest.mark.parametrize("side", [32, 96])
def test_the_trunk_returns_the_last_map_of_each_stage(side: int) -> None:
    trunk = Hiera(8, 1, stages=(1, 2, 1, 1), window_spec=(8, 4, 4, 2), global_att_blocks=(3,))
    maps = trunk(torch.zeros(2, 3, side, side))
    assert [tuple(m.shape) for m in maps] == [
        (2, 8 * 2**i, side // 4 // 2**i, side // 4 // 2**i) for i in range(4)
    ]
    assert trunk.channel_list == [64, 32, 16, 8]


def test_stochastic_depth_rises_to_its_rate_and_acts_in_training_alone() -> None:
    trunk = Hiera(8, 1, 0.5, stages=(1, 1, 2, 1), window_spec=(8, 4, 4, 2), global_att_blocks=())
    rates = [block.drop_path.drop_prob for block in trunk.blocks]
    assert rates == pytest.approx([0, 0.125, 0.25, 0.375, 0.5])
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(trunk.eval()(x)[-1], trunk(x)[-1])
    torch.manual_seed(0)
    assert not torch.equal(trunk.train()(x)[-1], trunk(x)[-1])
