"""Attention against formulas written out in complex numbers and double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sam2_hq.modeling.position_encoding import axial_rotation
from sam2_hq.modeling.sam.transformer import Attention, RoPEAttention, TwoWayTransformer

DIM, HEADS, GRID = 16, 2, 9  # a grid of 3 x 3 tokens


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.manual_seed(seed))


def softmax_attention(layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Projected q, k, v to the layer's output, head after head."""
    parts = []
    for a, b, c in zip(*(t.chunk(layer.num_heads, dim=-1) for t in (q, k, v)), strict=True):
        scores = torch.einsum("bnd,bld->bnl", a, b) / math.sqrt(a.shape[-1])
        parts.append(torch.einsum("bnl,bld->bnd", scores.softmax(dim=-1), c))
    return layer.out_proj(torch.cat(parts, dim=-1))


def turn(x: Tensor, num_heads: int, copies: int) -> Tensor:
    """Rotate tokens of `copies` grids as complex numbers."""
    cos, sin = axial_rotation(DIM // num_heads, 3, 3)
    table = torch.complex(cos, sin).repeat(copies, 1)
    heads = [
        torch.view_as_real(torch.view_as_complex(h.unflatten(-1, (-1, 2)).contiguous()) * table)
        for h in x.chunk(num_heads, dim=-1)
    ]
    return torch.cat([h.flatten(-2) for h in heads], dim=-1)


@pytest.mark.parametrize("rate", [1, 2])
def test_attention_is_softmax_attention(rate: int) -> None:
    layer = Attention(DIM, HEADS, rate, kv_in_dim=6)
    q, k, v = noise(2, 5, DIM), noise(2, 7, 6, seed=1), noise(2, 7, 6, seed=2)
    want = softmax_attention(layer, layer.q_proj(q), layer.k_proj(k), layer.v_proj(v))
    assert_close(layer(q, k, v), want)


def test_keys_and_values_of_one_image_serve_many_prompts() -> None:
    layer = Attention(DIM, HEADS)
    q, k, v = noise(3, 5, DIM), noise(1, 7, DIM, seed=1), noise(1, 7, DIM, seed=2)
    assert_close(layer(q, k, v), layer(q, k.repeat(3, 1, 1), v.repeat(3, 1, 1)))


def test_heads_must_divide_the_inner_width() -> None:
    with pytest.raises(ValueError, match="num_heads must divide 8"):
        Attention(DIM, 3, downsample_rate=2)
    with pytest.raises(ValueError, match="num_heads must be 1 or more, got 0"):
        Attention(DIM, 0)
    with pytest.raises(ValueError, match="downsample_rate must be 1 or more, got 0"):
        Attention(DIM, 2, downsample_rate=0)


@pytest.mark.parametrize("heads", [1, 2])
def test_queries_and_keys_are_rotated_as_complex_numbers(heads: int) -> None:
    layer = RoPEAttention(DIM, heads)
    q, v = noise(2, GRID, DIM), noise(2, GRID, DIM, seed=1)
    turned_q, turned_k = (turn(p(q), heads, 1) for p in (layer.q_proj, layer.k_proj))
    want = softmax_attention(layer, turned_q, turned_k, layer.v_proj(v))
    assert_close(layer(q, q, v), want)


@pytest.mark.parametrize("num_free", [0, 4])
def test_keys_of_several_grids_are_rotated_block_by_block_and_the_last_are_not(
    num_free: int,
) -> None:
    layer = RoPEAttention(DIM, HEADS, kv_in_dim=6, rope_k_repeat=True)
    q, k = noise(2, GRID, DIM), noise(2, 3 * GRID + num_free, 6, seed=1)
    keys = layer.k_proj(k)
    placed, free = keys[:, : 3 * GRID], keys[:, 3 * GRID :]
    turned = torch.cat([turn(placed, HEADS, 3), free], dim=1)
    want = softmax_attention(layer, turn(layer.q_proj(q), HEADS, 1), turned, layer.v_proj(k))
    assert_close(layer(q, k, k, num_k_exclude_rope=num_free), want)


def test_a_given_table_replaces_the_own_one() -> None:
    layer = RoPEAttention(DIM, 1)
    q = noise(1, GRID, DIM)
    table = layer.rotation(GRID, q.device)
    assert_close(layer(q, q, q, rotation=table), layer(q, q, q))
    still = (torch.ones_like(table[0]), torch.zeros_like(table[1]))
    plain = softmax_attention(layer, layer.q_proj(q), layer.k_proj(q), layer.v_proj(q))
    assert_close(layer(q, q, q, rotation=still), plain)


@pytest.mark.parametrize(("repeat", "num_keys"), [(False, 2 * GRID), (True, 2 * GRID + 1)])
def test_keys_that_are_no_whole_grids_are_refused(repeat: bool, num_keys: int) -> None:
    layer = RoPEAttention(DIM, 1, rope_k_repeat=repeat)
    q, k = noise(1, GRID, DIM), noise(1, num_keys, DIM)
    with pytest.raises(ValueError, match=f"{num_keys} keys do not fit a grid of 9 queries"):
        layer(q, k, k)


def test_queries_must_form_a_square() -> None:
    layer = RoPEAttention(DIM, 1)
    with pytest.raises(ValueError, match="square grid, got 8 tokens"):
        layer(*[noise(1, 8, DIM)] * 3)


@pytest.fixture
def two_way() -> TwoWayTransformer:
    torch.manual_seed(0)
    return TwoWayTransformer(depth=2, embedding_dim=DIM, num_heads=2, mlp_dim=24).eval()


def test_one_image_for_many_prompts_equals_repeating_it(two_way: TwoWayTransformer) -> None:
    image, place, tokens = (
        noise(1, DIM, 3, 4),
        noise(1, DIM, 3, 4, seed=1),
        noise(5, 6, DIM, seed=2),
    )
    shared = two_way(image, place, tokens)
    repeated = two_way(image.repeat(5, 1, 1, 1), place, tokens)
    assert shared[0].shape == (5, 6, DIM)
    assert shared[1].shape == (5, DIM, 3, 4)
    for a, b in zip(shared, repeated, strict=True):
        assert_close(a, b)


def test_the_order_of_prompt_tokens_does_not_matter(two_way: TwoWayTransformer) -> None:
    image, place, tokens = (
        noise(2, DIM, 3, 4),
        noise(1, DIM, 3, 4, seed=1),
        noise(2, 6, DIM, seed=2),
    )
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    answered, image_map = two_way(image, place, tokens)
    shuffled, same_map = two_way(image, place, tokens[:, order])
    assert_close(shuffled, answered[:, order])
    assert_close(same_map, image_map)


def test_the_first_layer_forgets_its_input_and_adds_no_position(
    two_way: TwoWayTransformer,
) -> None:
    block = two_way.layers[0]
    with torch.no_grad():
        block.self_attn.out_proj.weight.zero_()  # what is left of the tokens is a constant
    image, place = noise(1, 12, DIM), noise(1, 12, DIM, seed=1)
    nowhere = torch.zeros(1, 6, DIM)
    first, _ = block(noise(1, 6, DIM, seed=2), image, nowhere, place)
    second, _ = block(noise(1, 6, DIM, seed=3), image, nowhere, place)
    assert_close(first, second)
