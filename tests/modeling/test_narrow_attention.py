"""Attention over narrow values: the same numbers as the fused kernel on wide ones."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_hq.modeling.sam import narrow_attention as module
from sam2_hq.modeling.sam.narrow_attention import (
    MIN_QUERIES,
    is_narrow_faster,
    narrow_attention,
)
from sam2_hq.modeling.sam.transformer import RoPEAttention

SIDE = 33  # 1,089 queries


@settings(max_examples=40)
@given(
    st.integers(1, 50), st.integers(1, 60), st.integers(1, 8), st.integers(1, 900), st.integers(0)
)
def test_it_is_softmax_attention_whatever_the_buffer(
    num_queries: int, num_keys: int, width: int, max_scores: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**31)
    q = 4 * torch.randn(1, num_queries, 16, generator=generator)
    k = 4 * torch.randn(1, num_keys, 16, generator=generator)
    values = torch.randn(1, num_keys, width, generator=generator)
    expected = (q.double() @ k.double().mT / 4).softmax(-1) @ values.double()
    # float32 scores of up to about 100 carry errors of 1e-5 into the exponential
    with mock.patch.object(module, "MAX_SCORES", max_scores):
        result = narrow_attention(q, k, values)
    torch.testing.assert_close(result, expected.float(), atol=1e-4, rtol=1e-4)


def cross_attention() -> RoPEAttention:
    torch.manual_seed(0)
    attention = RoPEAttention(32, 1, kv_in_dim=8, rope_k_repeat=True, feat_sizes=(SIDE, SIDE))
    return attention.eval()


def memory_of(num_objects: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(num_objects, SIDE**2, 32, generator=generator)
    memory = torch.randn(num_objects, 2 * SIDE**2 + 3, 8, generator=generator)
    return queries, memory


@torch.no_grad()
def test_one_object_alone_gets_what_it_gets_in_a_batch() -> None:
    # A batch takes the fused kernel, one object the narrow way.
    attention = cross_attention()
    queries, memory = memory_of(2)
    both = attention(queries, memory, memory, 3)
    for i in range(2):
        alone = attention(queries[i : i + 1], memory[i : i + 1], memory[i : i + 1], 3)
        torch.testing.assert_close(alone, both[i : i + 1], atol=1e-6, rtol=1e-5)


def test_gradients_do_not_change_the_numbers_and_keep_no_scores() -> None:
    attention = cross_attention()
    queries, memory = memory_of(1)
    with torch.no_grad():
        quick = attention(queries, memory, memory, 3)
    learned = attention(queries, memory, memory, 3)
    torch.testing.assert_close(quick, learned.detach(), atol=1e-6, rtol=1e-5)
    learned.sum().backward()
    assert attention.k_proj.weight.grad is not None


@torch.no_grad()
def test_training_without_gradients_still_drops_out() -> None:
    attention = cross_attention().train()
    attention.dropout = 0.5
    queries, memory = memory_of(1)
    first, second = (attention(queries, memory, memory, 3) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("q", "values"),
    [
        (torch.zeros(2, MIN_QUERIES, 8), torch.zeros(2, 5, 2)),
        (torch.zeros(1, MIN_QUERIES - 1, 8), torch.zeros(1, 5, 2)),
        (torch.zeros(1, MIN_QUERIES, 8), torch.zeros(1, 5, 5)),
        (torch.zeros(1, MIN_QUERIES, 8, dtype=torch.bfloat16), torch.zeros(1, 5, 2)),
        (torch.zeros(1, MIN_QUERIES, 8, device="meta"), torch.zeros(1, 5, 2)),
    ],
    ids=["batch", "small map", "wide values", "half precision", "other device"],
)
@torch.no_grad()
def test_it_is_left_out_where_it_does_not_pay(q: torch.Tensor, values: torch.Tensor) -> None:
    assert not is_narrow_faster(q, values)
    assert is_narrow_faster(torch.zeros(1, MIN_QUERIES, 8), torch.zeros(1, 5, 4))


@torch.no_grad()
def test_values_may_come_after_the_mean() -> None:
    queries, memory = memory_of(1)
    attention = cross_attention()
    keys = attention.k_proj(memory)
    q = attention.q_proj(queries)
    fused = F.scaled_dot_product_attention(q, keys, attention.v_proj(memory))
    folded = attention.v_proj(narrow_attention(q, keys, memory))
    torch.testing.assert_close(folded, fused, atol=1e-6, rtol=1e-5)
