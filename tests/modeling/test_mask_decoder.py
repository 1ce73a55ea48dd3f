"""The mask decoder: which token means what, which mask is chosen, and what the HQ token adds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from sam2_hq.modeling.layers import LayerNorm2d
from sam2_hq.modeling.sam.mask_decoder import DecoderOutput, MaskDecoder
from sam2_hq.modeling.sam.transformer import TwoWayTransformer

DIM, GRID = 32, 4


class Mirror(nn.Module):
    """In place of the transformer: tokens and image come back as they are."""

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        self.tokens = tokens
        return tokens, image.expand(tokens.shape[0], -1, -1, -1)


def decoder(transformer: nn.Module | None = None, **options: Any) -> MaskDecoder:
    torch.manual_seed(0)
    options = {
        "pred_obj_scores": True,
        "pred_obj_scores_mlp": True,
        "use_high_res_features": True,
        "use_multimask_token_for_obj_ptr": True,
        "iou_prediction_use_sigmoid": True,
        "iou_head_hidden_dim": 16,
        **options,
    }
    made = MaskDecoder(
        transformer_dim=DIM,
        transformer=transformer or TwoWayTransformer(2, DIM, 4, 48),  # type: ignore[arg-type]
        **options,
    )
    made.eval().requires_grad_(False)
    last = made.iou_prediction_head.layers[-1]
    last.weight.mul_(50.0)  # so that prompts differ in which candidate is the best
    last.bias.zero_()
    return made


def inputs(batch: int = 3, images: int = 1, num_tokens: int = 2) -> dict[str, Any]:
    generator = torch.manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "image": noise(images, DIM, GRID, GRID),
        "image_pe": noise(1, DIM, GRID, GRID),
        "sparse": 3 * noise(batch, num_tokens, DIM),
        "dense": noise(1, DIM, 1, 1),
        "high_res": (
            noise(images, DIM // 8, 4 * GRID, 4 * GRID),
            noise(images, DIM // 4, 2 * GRID, 2 * GRID),
        ),
    }


def same(a: DecoderOutput, b: DecoderOutput) -> None:
    for x, y in zip(a, b, strict=True):
        assert_close(x, y)


# ------------------------------------------------------------------- tokens


@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("hq", [True, False])
@pytest.mark.parametrize("num_tokens", [0, 3])
def test_learned_tokens_come_first_and_each_is_read_as_itself(
    scores: bool, hq: bool, num_tokens: int
) -> None:
    mirror = Mirror()
    model = decoder(mirror, pred_obj_scores=scores, hq=hq)
    given = inputs(2, num_tokens=num_tokens)
    out = model(**given, candidates="all")
    own = [model.obj_score_token] if scores else []
    own += [model.iou_token, model.mask_tokens] + ([model.hf_token] if hq else [])
    want = torch.cat([e.weight for e in own])
    assert_close(mirror.tokens[:, : len(want)], want.expand(2, -1, -1))
    assert torch.equal(mirror.tokens[:, len(want) :], given["sparse"])

    assert_close(out.tokens[0], model.mask_tokens.weight[1:])
    assert_close(out.iou[:1], model.iou_prediction_head(model.iou_token.weight)[:, 1:])
    if scores:
        wanted_score = model.pred_obj_score_head(model.obj_score_token.weight)
        assert_close(out.object_score, wanted_score.expand(2, 1))
    else:
        assert torch.equal(out.object_score, torch.full((2, 1), 10.0))
    assert (out.hq_logits is not None) == hq


@pytest.mark.parametrize("mlp", [True, False])
def test_presence_is_read_by_an_mlp_or_a_linear_layer(mlp: bool) -> None:
    model = decoder(pred_obj_scores_mlp=mlp)
    assert isinstance(model.pred_obj_score_head, nn.Linear) != mlp
    assert model(**inputs(), candidates="single").object_score.shape == (3, 1)


def test_shapes_are_those_of_the_candidates_asked_for() -> None:
    model, given = decoder(hq=True), inputs()
    for candidates, count in (("single", 1), ("best", 1), ("all", 3)):
        out = model(**given, candidates=candidates)
        assert out.sam_logits.shape == (3, count, 4 * GRID, 4 * GRID)
        assert out.iou.shape == (3, count)
        assert out.tokens.shape == (3, count, DIM)
        assert out.hq_logits.shape == (3, 1, 4 * GRID, 4 * GRID)


def test_pointers_of_candidates_may_come_from_the_single_token() -> None:
    model, given = decoder(use_multimask_token_for_obj_ptr=False), inputs()
    single = model(**given, candidates="single").tokens
    for candidates in ("best", "all"):
        assert torch.equal(model(**given, candidates=candidates).tokens, single)


def test_reading_a_pointer_alone_gives_the_token_of_the_single_mask() -> None:
    model, given = decoder(hq=True), inputs()
    out = model(**given, candidates="single")
    given.pop("high_res")
    token, score = model.read_pointer(**given)
    assert_close(token, out.tokens[:, 0])
    assert_close(score, out.object_score)


# -------------------------------------------------------------------- masks


def channel_norm(norm: LayerNorm2d, x: Tensor) -> Tensor:
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    scaled = (x - mean) / (var + 1e-6).sqrt()
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


def upscaled(model: MaskDecoder, image: Tensor, high_res: tuple[Tensor, ...]) -> Tensor:
    up1, norm, act, up2, _ = model.output_upscaling
    fine, middle = high_res or (0.0, 0.0)
    return act(up2(act(channel_norm(norm, up1(image) + middle))) + fine)


@pytest.mark.parametrize("with_high_res", [True, False])
def test_each_mask_is_its_own_network_on_the_upscaled_image(with_high_res: bool) -> None:
    model = decoder(Mirror(), use_high_res_features=with_high_res)
    given = inputs(1)
    given["high_res"] = given["high_res"] if with_high_res else ()
    features = upscaled(model, given["image"] + given["dense"], given["high_res"])
    masks = []
    for token, mlp in zip(model.mask_tokens.weight, model.output_hypernetworks_mlps, strict=True):
        masks.append(torch.einsum("c,bchw->bhw", mlp(token), features))
    assert_close(model(**given, candidates="single").sam_logits[:, 0], masks[0])
    assert_close(model(**given, candidates="all").sam_logits, torch.stack(masks[1:], dim=1))


def test_the_best_mask_is_the_candidate_with_the_highest_iou() -> None:
    model, given = decoder(hq=True), inputs(8)
    every, best = (model(**given, candidates=c) for c in ("all", "best"))
    index = every.iou.argmax(dim=1)
    assert len(index.unique()) > 1  # otherwise nothing is chosen
    rows = torch.arange(8)
    assert_close(best.sam_logits[:, 0], every.sam_logits[rows, index])
    assert_close(best.iou[:, 0], every.iou[rows, index])
    assert_close(best.tokens[:, 0], every.tokens[rows, index])
    assert_close(best.hq_logits, every.hq_logits)


def test_one_image_for_many_prompts_equals_repeating_it() -> None:
    model, given = decoder(hq=True), inputs(4)
    repeated = given | {
        "image": given["image"].repeat(4, 1, 1, 1),
        "dense": given["dense"].expand(4, DIM, GRID, GRID),
        "high_res": tuple(x.repeat(4, 1, 1, 1) for x in given["high_res"]),
    }
    for candidates in ("single", "best", "all"):
        same(model(**given, candidates=candidates), model(**repeated, candidates=candidates))


def test_objects_do_not_disturb_each_other() -> None:
    model, given = decoder(hq=True, dynamic_multimask_via_stability=True), inputs(4)
    together = model(**given, candidates="single")
    alone = [
        model(**(given | {"sparse": row[None]}), candidates="single") for row in given["sparse"]
    ]
    same(together, DecoderOutput(*(torch.cat(parts) for parts in zip(*alone, strict=True))))


# ------------------------------------------------------------- dynamic rule


def stability(logits: Tensor, delta: float) -> Tensor:
    return (logits > delta).sum(dim=(1, 2, 3)) / (logits > -delta).sum(dim=(1, 2, 3))


def test_an_unstable_single_mask_gives_way_to_the_best_candidate_and_a_stable_one_stays() -> None:
    delta, given = 0.02, inputs(8)
    plain = decoder()
    single, best = (plain(**given, candidates=c) for c in ("single", "best"))
    scores = stability(single.sam_logits, delta)
    threshold = float(scores.median())
    stable = scores >= threshold
    assert 0 < stable.sum() < 8  # both outcomes in one batch
    dynamic = decoder(
        dynamic_multimask_via_stability=True,
        dynamic_multimask_stability_delta=delta,
        dynamic_multimask_stability_thresh=threshold,
    )
    out = dynamic(**given, candidates="single")
    where = stable[:, None]
    assert_close(
        out.sam_logits,
        torch.where(where[..., None, None], single.sam_logits, best.sam_logits),
    )
    assert_close(out.iou, torch.where(where, single.iou, best.iou))
    assert_close(out.tokens, single.tokens)  # the pointer stays that of the single mask
    same(dynamic(**given, candidates="all"), plain(**given, candidates="all"))
    same(dynamic.train()(**given, candidates="single"), single)


@pytest.mark.parametrize(("logit", "is_kept"), [(-5.0, True), (0.0, False), (5.0, True)])
def test_an_empty_mask_is_stable_and_an_undecided_one_is_not(logit: float, is_kept: bool) -> None:
    model = decoder(Mirror(), dynamic_multimask_via_stability=True)
    last = model.output_hypernetworks_mlps[0].layers[2]
    last.weight.zero_()
    last.bias.fill_(logit)
    model.output_upscaling[3].weight.zero_()
    model.output_upscaling[3].bias.fill_(1.0)
    given = inputs(1)
    given["high_res"] = tuple(torch.zeros_like(x) for x in given["high_res"])
    out = model(**given, candidates="single")
    best = model(**given, candidates="best")
    assert torch.equal(out.iou, best.iou) != is_kept
    assert (out.sam_logits.sign() == torch.tensor(logit).sign()).all() == is_kept


# ----------------------------------------------------------------------- HQ


def test_hq_logits_are_the_unfolded_convolution_read_by_the_hq_token() -> None:
    model, given = decoder(hq=True), inputs(3)
    seen: dict[str, Tensor] = {}
    model.output_upscaling[4].register_forward_hook(lambda *a: seen.update(features=a[2]))
    model.hf_mlp.register_forward_hook(lambda *a: seen.update(vector=a[2]))
    out = model(**given, candidates="single")
    features = model.embedding_maskfeature(seen["features"])
    want = torch.einsum("bc,bchw->bhw", seen["vector"], features)[:, None]
    assert seen["features"].shape[0] == 3
    assert_close(out.hq_logits, want, rtol=1e-5, atol=1e-5)  # float32: another order of sums


def test_one_pass_answers_for_sam_and_for_hq() -> None:
    model, given = decoder(hq=True), inputs()
    out = {c: model(**given, candidates=c) for c in ("single", "all")}
    assert_close(out["single"].hq_logits, out["all"].hq_logits)
    assert not torch.equal(out["single"].sam_logits, out["single"].hq_logits)


def test_a_plain_decoder_has_no_hq_parameter() -> None:
    plain, hq = decoder(), decoder(hq=True)
    assert not plain.is_hq
    assert hq.is_hq
    added = set(hq.state_dict()) - set(plain.state_dict())
    assert len(added) == 13
    assert {key.split(".")[0] for key in added} == {"hf_token", "hf_mlp", "embedding_maskfeature"}
