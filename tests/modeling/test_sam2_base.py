"""The five verbs, the variants of a config, and what `prepare` may and may not change."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from sam2_hq.assembly import assemble_core
from sam2_hq.compose import compose_tree
from sam2_hq.config import parse_model
from sam2_hq.modeling.sam2_base import MemoryTokens, SAM2Base
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import HQ_MODES, NO_OBJECT_LOGIT, FrameFeatures, MaskPrompt, PointPrompt
from tests.parity import weights
from tests.toy import SIDE, disc_centre, disc_mask, toy_clip, toy_predictor, toy_tree

DIM, MEM, GRID = 32, 16, SIDE // 16


@pytest.fixture(scope="module")
def model() -> SAM2VideoPredictor:
    return toy_predictor().requires_grad_(False)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.manual_seed(seed))


@pytest.fixture(scope="module")
def features(model: SAM2Base) -> FrameFeatures:
    return model.encode_image(noise(1, 3, SIDE, SIDE))


def memory(objects: int = 1, frames: int = 2, pointers: int = 3) -> MemoryTokens:
    return MemoryTokens(
        spatial=noise(objects, frames, MEM, GRID, GRID, seed=1),
        slots=list(range(6, 6 - frames, -1)),
        pointers=noise(objects, pointers, DIM, seed=2) if pointers else None,
        offsets=[i / 15 for i in range(pointers)],
    )


def clicks(objects: int = 1) -> PointPrompt:
    coords = torch.tensor([[20.0, 30.0], [100.0, 90.0]]).expand(objects, 2, 2)
    return PointPrompt(coords, torch.tensor([[1, 0]], dtype=torch.int32).expand(objects, 2))


def disc(present: bool = True) -> MaskPrompt:
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 30:70, 40:90] = float(present)
    return MaskPrompt(mask)


# -------------------------------------------------------------------- verbs


def test_a_picture_becomes_one_coarse_and_two_fine_maps(features: FrameFeatures) -> None:
    assert features.embedding.shape == (1, DIM, GRID, GRID)
    fine, middle = features.high_res
    assert fine.shape == (1, DIM // 8, 4 * GRID, 4 * GRID)
    assert middle.shape == (1, DIM // 4, 2 * GRID, 2 * GRID)


def test_the_published_form_of_the_features_has_a_position_map_for_each_map(model: Any) -> None:
    pixels = noise(2, 3, SIDE, SIDE)
    published = model.forward_image(pixels)
    ours = model.encode_image(pixels)
    assert torch.equal(published["vision_features"], ours.embedding)
    assert [m.shape[-1] for m in published["backbone_fpn"]] == [32, 16, 8]
    for m, place in zip(published["backbone_fpn"], published["vision_pos_enc"], strict=True):
        assert place.shape == (2, DIM, *m.shape[-2:])


def test_a_frame_without_memory_gets_the_learned_vector(model: Any, features: Any) -> None:
    embedding = model.condition(features, None)
    want = features.embedding + model.no_mem_embed.reshape(1, DIM, 1, 1)
    assert_close(embedding, want)


@pytest.mark.parametrize(("frames", "pointers"), [(1, 0), (1, 1), (7, 16)])
def test_memory_of_any_length_conditions_a_frame(
    model: Any, features: Any, frames: int, pointers: int
) -> None:
    embedding = model.condition(features, memory(2, frames, pointers))
    assert embedding.shape == (2, DIM, GRID, GRID)
    assert not torch.allclose(embedding, model.condition(features, None))


def test_the_slot_of_a_memory_and_the_age_of_a_pointer_matter(model: Any, features: Any) -> None:
    tokens = memory(frames=2, pointers=2)
    usual = model.condition(features, tokens)
    moved = MemoryTokens(tokens.spatial, [6, 0], tokens.pointers, tokens.offsets)
    older = MemoryTokens(tokens.spatial, tokens.slots, tokens.pointers, [0.5, 1.0])
    for other in (moved, older):
        assert not torch.allclose(model.condition(features, other), usual)


def test_frames_and_their_slots_may_be_given_in_any_order(model: Any, features: Any) -> None:
    tokens = memory(frames=3, pointers=2)
    order = [2, 0, 1]
    shuffled = MemoryTokens(
        tokens.spatial[:, order],
        [tokens.slots[i] for i in order],
        tokens.pointers.flip(1),
        list(tokens.offsets)[::-1],
    )
    assert_close(model.condition(features, shuffled), model.condition(features, tokens))


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("mode", HQ_MODES)
def test_an_object_is_decoded_to_one_mask(
    model: Any, features: Any, multimask: bool, mode: Any
) -> None:
    embedding = model.condition(features, memory(3))
    out = model.decode(
        embedding, features.high_res, points=clicks(3), multimask=multimask, hq_mode=mode
    )
    assert out.mask_logits.shape == (3, 1, 4 * GRID, 4 * GRID)
    assert out.iou.shape == out.object_score.shape == out.hq_disagreement.shape == (3, 1)
    assert out.pointer.shape == (3, DIM)


def test_a_frame_without_prompt_equals_two_padding_points(model: Any, features: Any) -> None:
    embedding = model.condition(features, memory())
    padding = PointPrompt(torch.zeros(1, 1, 2), torch.full((1, 1), -1))
    bare = model.decode(embedding, features.high_res)
    padded = model.decode(embedding, features.high_res, points=padding)
    assert_close(bare.mask_logits, padded.mask_logits)


def test_an_earlier_mask_of_another_size_is_resized_with_antialiasing(
    model: Any, features: Any
) -> None:
    embedding, logits = model.condition(features, None), 9 * noise(1, 1, SIDE, SIDE)
    small = F.interpolate(
        logits, (4 * GRID, 4 * GRID), mode="bilinear", align_corners=False, antialias=True
    )
    by_large, by_small = (
        model.decode(embedding, features.high_res, points=clicks(), mask_logits=m)
        for m in (logits, small)
    )
    assert_close(by_large.mask_logits, by_small.mask_logits)


def test_an_absent_object_has_no_mask_and_the_pointer_of_nothing() -> None:
    model = toy_predictor(object_bias=weights.ABSENT).requires_grad_(False)
    features = model.encode_image(noise(1, 3, SIDE, SIDE))
    out = model.decode(model.condition(features, None), features.high_res, points=clicks())
    assert (out.object_score < 0).all()
    assert (out.mask_logits == NO_OBJECT_LOGIT).all()
    assert_close(out.pointer, model.no_obj_ptr)


def test_an_adopted_mask_is_the_answer(model: Any, features: Any) -> None:
    out = model.adopt_mask(features, disc())
    want = F.avg_pool2d(disc().mask, 4)[0, 0]
    sure = (want == 0) | (want == 1)
    assert torch.equal((out.mask_logits[0, 0] > 0)[sure], want[sure] > 0)
    assert out.object_score.item() == 10
    assert out.iou.item() == 1
    absent = model.adopt_mask(features, disc(present=False))
    assert absent.object_score.item() == -10
    assert_close(absent.pointer, model.no_obj_ptr)


def test_a_trusted_mask_keeps_its_pointer_whatever_the_network_says() -> None:
    model = toy_predictor(object_bias=weights.ABSENT).requires_grad_(False)
    features = model.encode_image(noise(1, 3, SIDE, SIDE))
    published = model.adopt_mask(features, disc())
    trusted = model.adopt_mask(features, disc(), trust_mask=True)
    assert_close(published.pointer, model.no_obj_ptr)
    assert not torch.allclose(trusted.pointer, model.no_obj_ptr)


def test_memory_tells_present_from_absent_and_masks_from_each_other(
    model: Any, features: Any
) -> None:
    here, gone = torch.full((1, 1), 3.0), torch.full((1, 1), -3.0)
    logits = 20 * disc().mask - 10
    seen = model.encode_memory(features, logits, here)
    assert seen.shape == (1, MEM, GRID, GRID)
    lost = model.encode_memory(features, logits, gone)
    difference = model.no_obj_embed_spatial[..., None, None].expand_as(seen)
    assert_close(lost - seen, difference, rtol=0, atol=1e-5)
    assert not torch.allclose(model.encode_memory(features, -logits, here), seen)


def test_a_mask_is_brought_to_full_size_and_may_be_made_binary(model: Any, features: Any) -> None:
    here, small = torch.ones(1, 1), noise(1, 1, 4 * GRID, 4 * GRID, seed=4)
    full = F.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False)
    assert_close(
        model.encode_memory(features, small, here), model.encode_memory(features, full, here)
    )
    hard = model.encode_memory(features, full, here, binarize=True)
    certain = torch.where(full > 0, 99.0, -99.0)  # sigmoids of 1 and 0
    assert_close(hard, model.encode_memory(features, certain, here))


# ------------------------------------------------------------------ modes


def test_unknown_modes_and_hq_on_a_plain_model_are_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="hq_mode must be one of off, correct, only, auto, got 'o"):
        model.hq_mode = "on"
    plain = assemble_core(parse_model(toy_tree(hq=False)))
    assert plain.hq_mode == "off"
    assert plain.check_hq_mode("off") == "off"
    with pytest.raises(ValueError, match="hq_mode='correct' needs an HQ model"):
        plain.hq_mode = "correct"
    with pytest.raises(ValueError, match="hq_token_only needs an HQ model"):
        plain.check_hq_mode(None, hq_token_only=True)


def test_the_published_flag_and_another_mode_contradict_each_other(model: Any) -> None:
    assert model.check_hq_mode("only", hq_token_only=True) == "only"
    for mode in ("off", "correct", "auto"):
        assert model.check_hq_mode(mode, hq_token_only=False) == mode
        with pytest.raises(ValueError, match=f"hq_token_only=True .*'only', got hq_mode='{mode}'"):
            model.check_hq_mode(mode, hq_token_only=True)


@pytest.mark.parametrize(
    ("is_initial", "num_points", "want"),
    [(True, 1, True), (True, 0, True), (True, 2, False), (False, 0, True), (False, 3, False)],
)
def test_ambiguous_prompts_get_candidates(
    model: Any, is_initial: bool, num_points: int, want: bool
) -> None:
    assert model.use_multimask(is_initial=is_initial, num_points=num_points) == want


# --------------------------------------------------------------- variants

VARIANTS: dict[str, dict[str, Any]] = {
    "dummy_memory": {"directly_add_no_mem_embed": False},
    "no_pointers": {"use_obj_ptrs_in_encoder": False, "proj_tpos_enc_in_obj_ptrs": False},
    "no_memory": {"num_maskmem": 0},
    "one_memory": {"num_maskmem": 1},
    "no_high_res": {"use_high_res_features_in_sam": False},
    "soft_absence": {"soft_no_obj_ptr": True},
    "added_absence": {"fixed_no_obj_ptr": False},
    "mask_as_prompt": {"use_mask_input_as_output_without_sam": False},
    "no_times": {"add_tpos_enc_to_obj_ptrs": False, "proj_tpos_enc_in_obj_ptrs": False},
    "short_times": {"proj_tpos_enc_in_obj_ptrs": False},
    "no_scores": {"pred_obj_scores": False},
    "linear_heads": {"pred_obj_scores_mlp": False, "use_mlp_for_obj_ptr_proj": False},
    "no_spatial_absence": {"no_obj_embed_spatial": False},
    "never_multimask": {"multimask_output_in_sam": False},
    "dynamic": {
        "multimask_output_in_sam": False,
        "sam_mask_decoder_extra_args": {"dynamic_multimask_via_stability": True},
    },
    "plain": {"hq": False},
    "small": {"image_size": 96},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_the_config_tracks_a_clip_and_segments_a_picture(variant: str) -> None:
    predictor = toy_predictor(**VARIANTS[variant]).requires_grad_(False)
    state = predictor.init_state(toy_clip(4))
    predictor.add_new_points_or_box(state, 0, "click", points=[disc_centre()], labels=[1])
    predictor.add_new_mask(state, 1, "mask", disc_mask(1))
    predictor.add_new_points_or_box(state, 1, "late", box=[60, 8, 84, 34])
    frames = list(predictor.propagate_in_video(state))
    assert [f.frame_idx for f in frames] == [0, 1, 2, 3]
    assert all(torch.isfinite(f.masks).all() for f in frames)
    predictor.add_new_points_or_box(state, 2, "click", points=[disc_centre(2)], labels=[1])
    back = list(predictor.propagate_in_video(state, start_frame_idx=3, reverse=True))
    assert [f.frame_idx for f in back] == [3, 2, 1, 0]

    pictures = SAM2ImagePredictor(predictor)
    pictures.set_image(toy_clip(1)[0])
    masks, iou, _ = pictures.predict([disc_centre()], [1])
    assert masks.shape[0] == iou.shape[0] == 3


def test_times_of_pointers_need_a_code_before_a_projection() -> None:
    tree = toy_tree(add_tpos_enc_to_obj_ptrs=False, proj_tpos_enc_in_obj_ptrs=True)
    with pytest.raises(
        ValueError, match="proj_tpos_enc_in_obj_ptrs needs add_tpos_enc_to_obj_ptrs"
    ):
        assemble_core(parse_model(tree))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("backbone_stride=8", "backbone_stride must be 16, that of the coarsest map"),
        ("image_encoder.scalp=0", "backbone_stride must be 32"),
        ("image_encoder.scalp=4", "model.image_encoder: scalp must be 0 to 3, got 4"),
        ("image_encoder.trunk.q_pool=2", "fpn_top_down_levels must leave out 2: the next map"),
        ("image_encoder.trunk.q_pool=4", "model.image_encoder.trunk: q_pool must be 0 to 3"),
        ("image_encoder.trunk.global_att_blocks=[99]", r"global_att_blocks must lie in 0\.\.10"),
        ("image_encoder.neck.fpn_top_down_levels=[7]", r"fpn_top_down_levels must lie in 0\.\.3"),
        ("image_encoder.neck.position_encoding.num_pos_feats=64", "num_pos_feats must be 128"),
        ("memory_encoder.mask_downsampler.total_stride=4", "total_stride must be 16 in this"),
        ("memory_encoder.position_encoding.num_pos_feats=32", "num_pos_feats must be 64 in this"),
        ("memory_attention.d_model=64", "memory_attention.d_model must be 128 in this model"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_named(override: str, words: str) -> None:
    tree = compose_tree("sam2.1_hq_hiera_n", [f"model.{override}"])
    with torch.device("meta"), pytest.raises(ValueError, match=words):
        assemble_core(parse_model(tree["model"]))


# -------------------------------------------------------------- constants


def answers(model: SAM2Base) -> list[Tensor]:
    features = model.encode_image(noise(1, 3, SIDE, SIDE))
    embedding = model.condition(features, memory())
    out = model.decode(embedding, features.high_res, points=clicks())
    seen = model.encode_memory(features, out.mask_logits, out.object_score)
    adopted = model.adopt_mask(features, disc())
    return [*features.high_res, embedding, *out, seen, *adopted]


@torch.no_grad()
def test_prepared_constants_change_no_number_and_no_checkpoint() -> None:
    model = toy_predictor()
    keys = set(model.state_dict())
    prepared = answers(model)
    for weight in model.state_dict().values():
        weight.mul_(1)  # written to, so the tables are void
    assert set(model.state_dict()) == keys
    for a, b in zip(prepared, answers(model), strict=True):
        assert torch.equal(a, b)
    model.prepare()
    assert set(model.state_dict()) == keys
    model.load_state_dict(model.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("way", ["training", "written", "itself", "owner"])
def test_new_weights_are_used_although_old_constants_were_prepared(way: str) -> None:
    model, other = toy_predictor(seed=0), toy_predictor(seed=1)
    if way in ("training", "written"):
        model.train(way == "training")
        for mine, theirs in zip(*(m.state_dict().values() for m in (model, other)), strict=True):
            mine.copy_(theirs)
        model.eval()
    elif way == "owner":
        owner, its = nn.ModuleDict({"module": model}), nn.ModuleDict({"module": other})
        owner.load_state_dict(its.state_dict())
    else:
        model.load_state_dict(other.state_dict())
    for a, b in zip(answers(model), answers(other), strict=True):
        assert_close(a, b)


@torch.no_grad()
@pytest.mark.parametrize("way", ["loaded", "written"])
def test_a_copy_that_gets_other_weights_computes_with_them(way: str) -> None:
    model, other = toy_predictor(seed=0), toy_predictor(seed=1)
    model.load_state_dict(model.state_dict())
    model.prepare()  # of weights that were written to before
    copy = deepcopy(model)
    if way == "loaded":
        copy.load_state_dict(other.state_dict())
    else:
        for mine, theirs in zip(copy.parameters(), other.parameters(), strict=True):
            mine.copy_(theirs)
    pixels = noise(1, 3, SIDE, SIDE)
    for a, b in zip(copy.image_encoder(pixels), other.image_encoder(pixels), strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_a_compiled_encoder_that_is_loaded_anew_computes_with_the_new_weights() -> None:
    model, other = toy_predictor(seed=0), toy_predictor(seed=1)
    encode = torch.compile(model.image_encoder.forward, backend="eager")
    pixels = noise(1, 3, SIDE, SIDE)
    encode(pixels)
    model.load_state_dict(other.state_dict())
    for a, b in zip(encode(pixels), other.image_encoder(pixels), strict=True):
        assert_close(a, b)


def test_constants_go_with_a_model_that_is_cast() -> None:
    model = toy_predictor().double()
    assert model.image_encoder.trunk.kept_table() is None  # may learn
    with torch.no_grad():
        for part in (model.image_encoder.trunk, model.sam_prompt_encoder):
            table = part.kept_table()
            assert table is not None
            assert table.dtype == torch.float64


def test_a_prepared_model_that_learns_without_being_told_so_learns_its_places() -> None:
    trunk = toy_predictor().image_encoder.trunk
    assert not trunk.training
    trunk(noise(1, 3, SIDE, SIDE))[-1].sum().backward()
    assert trunk.pos_embed.grad is not None
    assert trunk.pos_embed_window.grad is not None


@torch.no_grad()
def test_a_part_uses_new_weights_of_its_own() -> None:
    model, other = toy_predictor(seed=0), toy_predictor(seed=1)
    for name in ("image_encoder", "sam_prompt_encoder"):
        getattr(model, name).load_state_dict(getattr(other, name).state_dict())
    pixels = noise(1, 3, SIDE, SIDE)
    for a, b in zip(model.image_encoder(pixels), other.image_encoder(pixels), strict=True):
        assert torch.equal(a, b)
    places = model.sam_prompt_encoder.get_dense_pe()
    assert torch.equal(places, other.sam_prompt_encoder.get_dense_pe())


@torch.no_grad()
def test_prepared_constants_follow_the_model() -> None:
    model = toy_predictor().to(torch.bfloat16)
    assert {b.dtype for b in model.buffers()} == {torch.bfloat16}
    assert {b.device.type for b in model.to("meta").buffers()} == {"meta"}


# ------------------------------------------------------------------ dtypes


@torch.no_grad()
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_half_precision_gives_nearly_the_same_answers(how: str) -> None:
    model = toy_predictor()
    exact = answers(model)
    if how == "weights":
        model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        half = answers(model)
    assert half[3].dtype == torch.float32  # mask logits, whatever the weights
    for a, b in zip(exact[:3], half[:3], strict=True):
        error = (a - b.float()).abs().mean() / a.abs().mean()
        assert error < 0.05  # bfloat16 keeps 8 bits; a dozen layers add up
    agree = ((exact[3] > 0) == (half[3] > 0)).float().mean()
    assert agree > 0.9


# --------------------------------------------------------------- gradients


def test_gradients_reach_every_parameter() -> None:
    predictor = toy_predictor(hq_mode="correct").train()
    pixels = noise(2, 3, SIDE, SIDE)
    features = predictor.encode_image(pixels)
    first = predictor.decode(
        predictor.condition(features, None),
        features.high_res,
        points=PointPrompt(
            SIDE * noise(2, 5, 2).sigmoid(), torch.tensor([[-1, 0, 1, 2, 3]] * 2, dtype=torch.int32)
        ),
        mask_logits=noise(2, 1, 4 * GRID, 4 * GRID),
    )
    painted = torch.cat([disc().mask, disc(present=False).mask])
    adopted = predictor.adopt_mask(features, MaskPrompt(painted))
    memories = [
        predictor.encode_memory(features, out.mask_logits, score)
        for out, score in ((first, first.object_score), (adopted, adopted.object_score))
    ]
    tokens = MemoryTokens(
        torch.stack(memories, dim=1).repeat(1, 4, 1, 1, 1)[:, :7],
        range(7),
        torch.stack([first.pointer, adopted.pointer], dim=1),
        [0.5, -0.5],
    )
    embedding = predictor.condition(features, tokens)
    every = predictor.decode_candidates(
        embedding, features.high_res, points=None, mask_logits=None, candidates="all"
    )
    masks = predictor.combine(every, "correct")
    outputs = [masks, every.iou, every.object_score, first.mask_logits, first.iou]
    outputs += [first.pointer, adopted.pointer]
    sum((x * noise(*x.shape, seed=i)).sum() for i, x in enumerate(outputs)).backward()
    missing = {
        name
        for name, p in predictor.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    }
    # The dummy token alone has a place of its own, and no published config uses it.
    assert missing == {"no_mem_pos_enc"}
