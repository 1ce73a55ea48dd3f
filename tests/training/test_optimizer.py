"""Rates, decay, freezing and the average of the weights."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sam2_hq.training.optimizer import (
    Average,
    OptimizerOptions,
    build_optimizer,
    freeze,
    schedule,
    set_rate,
)
from tests.training.scenes import needs_muon, toy_model


def rates(model, optimizer) -> dict[str, tuple[float, float]]:
    by_id = {
        id(p): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    return {name: by_id[id(p)] for name, p in model.named_parameters() if id(p) in by_id}


def test_every_parameter_is_in_exactly_one_group() -> None:
    model = toy_model()
    optimizer = build_optimizer(model, OptimizerOptions(layer_decay=0.8))
    members = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters())


@needs_muon
def test_muon_takes_the_hidden_matrices_and_adamw_the_rest_at_the_same_rates() -> None:
    model = toy_model()
    plain = rates(model, build_optimizer(model, OptimizerOptions(layer_decay=0.8)))
    optimizer = build_optimizer(model, OptimizerOptions(layer_decay=0.8, muon=True))
    assert rates(model, optimizer) == plain
    names = {id(p): name for name, p in model.named_parameters()}
    groups = optimizer.members["Muon"].param_groups
    matrices = {names[id(p)] for group in groups for p in group["params"]}
    assert "image_encoder.trunk.blocks.4.attn.qkv.weight" in matrices
    assert "memory_attention.layers.0.linear1.weight" in matrices
    crossing = "sam_mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight"
    assert crossing in matrices
    others = ("image_encoder.neck.convs.0.conv.weight", "sam_mask_decoder.mask_tokens.weight")
    heads = ("sam_mask_decoder.iou_prediction_head.layers.2.weight", "obj_ptr_proj.layers.0.bias")
    assert set(plain) > matrices
    assert not matrices & {*others, *heads}


@needs_muon
def test_a_regression_is_learned_with_muon_as_with_adamw_alone() -> None:
    torch.manual_seed(0)
    data, truth = torch.randn(256, 16), torch.randn(16, 16)
    wanted = data @ truth
    for muon in (False, True):
        torch.manual_seed(1)
        model = torch.nn.Linear(16, 16)
        optimizer = build_optimizer(model, OptimizerOptions(lr=0.1, weight_decay=0, muon=muon))
        for step in range(200):
            set_rate(optimizer, schedule(step / 200, OptimizerOptions()))
            cost = (model(data) - wanted).square().mean()
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        assert float(cost.detach()) < 0.01 * float(wanted.square().mean()), muon


def test_torch_without_muon_is_named(monkeypatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match=r"optimizer.muon needs torch 2.9 or newer, got \d"):
        build_optimizer(toy_model(), OptimizerOptions(muon=True))


@needs_muon
def test_the_state_of_other_optimizers_is_refused() -> None:
    model = toy_model()
    state = build_optimizer(model, OptimizerOptions()).state_dict()
    with pytest.raises(ValueError, match=r"\['AdamW', 'Muon'\], got \['AdamW'\]"):
        build_optimizer(model, OptimizerOptions(muon=True)).load_state_dict(state)


def test_layer_decay_follows_the_published_rule() -> None:
    model = toy_model()  # five trunk blocks
    options = OptimizerOptions(lr=1.0, encoder_lr=0.5, layer_decay=0.9)
    found = rates(model, build_optimizer(model, options))
    trunk = "image_encoder.trunk."
    assert found[f"{trunk}patch_embed.proj.weight"][0] == pytest.approx(0.5 * 0.9**6)
    assert found[f"{trunk}blocks.0.attn.qkv.weight"][0] == pytest.approx(0.5 * 0.9**5)
    assert found[f"{trunk}blocks.4.attn.qkv.weight"][0] == pytest.approx(0.5 * 0.9)
    assert found[f"{trunk}pos_embed"][0] == 0.5
    assert found["image_encoder.neck.convs.0.conv.weight"][0] == 0.5
    assert found["sam_mask_decoder.iou_token.weight"][0] == 1.0


def test_biases_norms_and_tokens_do_not_decay() -> None:
    model = toy_model()
    found = rates(model, build_optimizer(model, OptimizerOptions(weight_decay=0.3)))
    assert found["sam_mask_decoder.mask_tokens.weight"][1] == 0
    assert found["sam_prompt_encoder.point_embeddings.0.weight"][1] == 0
    assert found["image_encoder.trunk.pos_embed"][1] == 0
    assert found["memory_attention.norm.weight"][1] == 0
    assert found["obj_ptr_proj.layers.0.bias"][1] == 0
    assert found["obj_ptr_proj.layers.0.weight"][1] == 0.3
    assert found["image_encoder.trunk.patch_embed.proj.weight"][1] == 0.3
    attention = "sam_mask_decoder.transformer.layers.0.cross_attn_image_to_token"
    assert found[f"{attention}.v_proj.weight"][1] == 0.3


@pytest.mark.parametrize("changed", [{"lr": 2.0}, {"weight_decay": 0.0}, {"layer_decay": 1.0}])
def test_a_run_goes_on_with_other_rates_and_decays(changed: dict[str, float]) -> None:
    model = toy_model()
    began = OptimizerOptions(lr=1.0, encoder_lr=2.0, weight_decay=0.3, layer_decay=0.9)
    state = build_optimizer(model, began).state_dict()
    wanted = replace(began, **changed)
    resumed = build_optimizer(model, wanted)
    resumed.load_state_dict(state)
    assert rates(model, resumed) == rates(model, build_optimizer(model, wanted))


def test_a_run_goes_on_only_with_as_many_parameters_as_it_began_with() -> None:
    model = toy_model()
    state = build_optimizer(model, OptimizerOptions()).state_dict()
    freeze(model, ["image_encoder.*"])
    with pytest.raises(
        ValueError, match=r"AdamW must be of the parameters that learn.* go on with"
    ):
        build_optimizer(model, OptimizerOptions()).load_state_dict(state)


def test_a_run_goes_on_only_with_the_parameters_that_it_began_with() -> None:
    model = toy_model()
    freeze(model, ["*hf_mlp.layers.0.bias"])
    state = build_optimizer(model, OptimizerOptions()).state_dict()
    freeze(model, ["*hf_mlp.layers.1.bias"])  # of the same size
    with pytest.raises(ValueError, match=r"AdamW must be of .*hf_mlp\.layers\.0\.bias"):
        build_optimizer(model, OptimizerOptions()).load_state_dict(state)


def test_frozen_parameters_do_not_learn_and_a_wrong_pattern_is_named() -> None:
    model = toy_model()
    freeze(model, ["image_encoder.*"])
    names = rates(model, build_optimizer(model, OptimizerOptions()))
    assert not any(name.startswith("image_encoder.") for name in names)
    with pytest.raises(ValueError, match="'image_encodr"):
        freeze(model, ["image_encodr.*"])
    with pytest.raises(ValueError, match="something to learn"):
        freeze(model, ["*"])


@given(st.floats(0, 1))
def test_the_schedule_stays_between_nothing_and_the_peak(progress: float) -> None:
    share = schedule(progress, OptimizerOptions(warmup=0.1, final=0.2))
    assert 0 < share <= 1
    if progress >= 0.1:
        assert share >= 0.2 - 1e-9


def test_the_schedule_warms_up_and_falls_as_a_cosine() -> None:
    options = OptimizerOptions(warmup=0.2, final=0.1)
    assert schedule(0.1, options) == pytest.approx(0.5)
    assert schedule(0.2, options) == pytest.approx(1.0)
    assert schedule(0.6, options) == pytest.approx(0.55)
    assert schedule(0.8, options) == pytest.approx(0.1 + 0.9 * (1 + math.cos(0.75 * math.pi)) / 2)
    assert schedule(1.0, options) == pytest.approx(0.1)


def test_rates_are_set_as_shares_of_their_peaks() -> None:
    model = toy_model()
    optimizer = build_optimizer(model, OptimizerOptions(lr=1.0, encoder_lr=0.5))
    set_rate(optimizer, 0.1)
    assert {round(group["lr"], 6) for group in optimizer.param_groups} == {0.1, 0.05}


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"start_share must be between 0 and 1, got 2.0"):
        OptimizerOptions(start_share=2.0)


def test_the_average_is_that_of_the_recurrence_and_goes_on_after_a_restore() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 0.0)
    average = Average(model, 0.5)
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, 4.0], start=1):
        torch.nn.init.constant_(model.weight, value)
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(average.tensors["weight"]) == pytest.approx(expected)
    other = Average(model, 0.5)
    other.load_state_dict(average.state_dict())
    for one in (average, other):
        one.update(model)
    assert torch.equal(average.tensors["weight"], other.tensors["weight"])
