"""What a frame takes from its memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sam2_hq.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2_hq.modeling.sam.transformer import RoPEAttention

DIM, MEM, SIDE = 16, 8, 3
GRID = SIDE * SIDE


def attention(side: int = SIDE, *, pos_enc_at_input: bool = True, **flags: Any) -> MemoryAttention:
    torch.manual_seed(0)
    flags = {
        "activation": "relu",
        "pos_enc_at_attn": False,
        "pos_enc_at_cross_attn_keys": True,
        "pos_enc_at_cross_attn_queries": False,
        **flags,
    }
    layer = MemoryAttentionLayer(
        cross_attention=RoPEAttention(
            DIM, 1, kv_in_dim=MEM, rope_k_repeat=True, feat_sizes=(side, side)
        ),
        self_attention=RoPEAttention(DIM, 1, feat_sizes=(side, side)),
        d_model=DIM,
        dim_feedforward=24,
        dropout=0.5,
        **flags,
    )
    made = MemoryAttention(DIM, pos_enc_at_input, layer, num_layers=2)
    return made.eval().requires_grad_(False)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.manual_seed(seed))


def frame(batch: int = 1) -> tuple[Tensor, Tensor]:
    return noise(batch, DIM, SIDE, SIDE), noise(1, DIM, SIDE, SIDE, seed=1)


def remembered(frames: int, pointers: int = 0, batch: int = 1) -> tuple[Tensor, Tensor]:
    length = frames * GRID + pointers
    return noise(batch, length, MEM, seed=2), noise(1, length, MEM, seed=3)


def test_the_order_of_memory_frames_does_not_matter() -> None:
    model, (memory, places) = attention(), remembered(3, pointers=4)

    def shuffled(x: Tensor) -> Tensor:
        blocks = x[:, : 3 * GRID].unflatten(1, (3, GRID))[:, [2, 0, 1]].flatten(1, 2)
        return torch.cat([blocks, x[:, 3 * GRID :]], dim=1)

    want = model(*frame(), memory, places, 4)
    assert_close(model(*frame(), shuffled(memory), shuffled(places), 4), want)
    assert want.shape == (1, DIM, SIDE, SIDE)


def test_the_order_of_pointers_does_not_matter_but_their_number_does() -> None:
    model, (memory, places) = attention(), remembered(1, pointers=GRID)
    flip = [*range(GRID), *reversed(range(GRID, 2 * GRID))]
    want = model(*frame(), memory, places, GRID)
    assert_close(model(*frame(), memory[:, flip], places[:, flip], GRID), want)
    as_frames = model(*frame(), memory, places, 0)  # the same tokens, but with places in a grid
    assert not torch.allclose(as_frames, want, atol=1e-3)


def test_where_a_memory_lies_in_its_grid_matters() -> None:
    model, (memory, places) = attention(), remembered(1)
    want = model(*frame(), memory, places)
    assert not torch.allclose(model(*frame(), memory.flip(1), places.flip(1)), want, atol=1e-3)


def test_objects_in_one_pass_get_what_they_get_alone() -> None:
    model, (memory, places) = attention(), remembered(2, pointers=4, batch=3)
    current, position = frame()
    together = model(current.expand(3, -1, -1, -1), position, memory, places, 4)
    alone = [model(current, position, memory[i : i + 1], places, 4) for i in range(3)]
    assert_close(together, torch.cat(alone))


def test_positions_reach_keys_and_input_but_not_values() -> None:
    model, (memory, places) = attention(), remembered(1)
    constant = memory[:, :1].expand(-1, GRID, -1)
    still = model(*frame(), constant, places)
    # Whatever the keys, equal values give equal answers.
    assert_close(model(*frame(), constant, -places), still)
    current, position = frame()
    elsewhere = model(current, -position, constant, places)
    assert not torch.allclose(elsewhere, still, atol=1e-3)
    unplaced = attention(pos_enc_at_input=False)
    assert_close(
        unplaced(current + 0.1 * position, position, memory, places),
        model(current, position, memory, places),
    )


@pytest.mark.parametrize(
    "flag", ["pos_enc_at_attn", "pos_enc_at_cross_attn_keys", "pos_enc_at_cross_attn_queries"]
)
def test_each_position_flag_changes_the_answer(flag: str) -> None:
    usual = {"pos_enc_at_cross_attn_keys": True}
    given = (*frame(), *remembered(2))
    want = attention()(*given)
    assert not torch.allclose(attention(**{flag: not usual.get(flag, False)})(*given), want)


def test_other_grids_than_the_expected_one_work() -> None:
    given = (*frame(), *remembered(2))
    assert_close(attention(side=5)(*given), attention(side=3)(*given))


def test_tables_are_no_part_of_a_checkpoint_and_move_with_the_model() -> None:
    model = attention()
    assert not any("rotation" in key for key in model.state_dict())
    assert model.to("meta").rotation_cos.device.type == "meta"


def test_dropout_acts_in_training_alone() -> None:
    model, given = attention(), (*frame(), *remembered(1))
    assert torch.equal(model(*given), model(*given))
    model.train()
    assert not torch.equal(model(*given), model(*given))


def test_published_options_that_have_one_meaning_are_checked() -> None:
    with pytest.raises(ValueError, match=r"activation must be one of \['gelu', 'relu'\]"):
        attention(activation="glu")
    layer = attention().layers[0]
    with pytest.raises(ValueError, match="batch_first must be true"):
        MemoryAttention(DIM, True, layer, 1, batch_first=False)
