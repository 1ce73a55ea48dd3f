from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from sam2_hq.config import CoreConfig, MemoryPolicy, PredictorOptions, parse_model

PARTS = {
    part: {"_target_": f"sam2.{part}"}
    for part in ("image_encoder", "memory_attention", "memory_encoder")
}
BARE = {"_target_": "sam2.modeling.sam2_base.SAM2Base", **PARTS}


def test_a_bare_tree_has_the_defaults():
    config = parse_model(BARE)
    assert config.core == CoreConfig()
    assert config.policy == MemoryPolicy()
    assert config.options == PredictorOptions()
    assert config.image_encoder == {"_target_": "sam2.image_encoder"}
    assert not config.is_video
    assert not config.compile_image_encoder


def test_flat_keys_go_where_they_are_read():
    config = parse_model(
        {
            **BARE,
            "image_size": 384,
            "num_maskmem": 5,
            "max_obj_ptrs_in_encoder": 4,
            "fill_hole_area": 8,
            "compile_image_encoder": True,
            "clear_non_cond_mem_for_multi_obj": True,
            "sam_mask_decoder_extra_args": {"dynamic_multimask_stability_delta": 0.1},
        }
    )
    assert config.core == CoreConfig(
        image_size=384, num_maskmem=5, dynamic_multimask_stability_delta=0.1
    )
    assert config.policy == MemoryPolicy(num_maskmem=5, max_obj_ptrs_in_encoder=4)
    assert config.options == PredictorOptions(fill_hole_area=8)
    assert config.compile_image_encoder


def test_an_empty_decoder_mapping_is_none_at_all():
    assert parse_model({**BARE, "sam_mask_decoder_extra_args": None}).core == CoreConfig()


@pytest.mark.parametrize("package", ["sam2", "sam2_hq"])
@pytest.mark.parametrize(
    ("target", "hq", "is_video"),
    [
        ("modeling.sam2_base.SAM2Base", False, False),
        ("modeling.sam2_hq_base.SAM2HQBase", True, False),
        ("sam2_video_predictor.SAM2VideoPredictor", False, True),
        ("sam2_video_predictor.SAM2VideoPredictorVOS", False, True),
        ("sam2_hq_video_predictor.SAM2HQVideoPredictor", True, True),
    ],
)
def test_the_target_says_whether_the_model_is_hq(package, target, hq, is_video):
    config = parse_model({**BARE, "_target_": f"{package}.{target}"})
    assert (config.core.hq, config.is_video) == (hq, is_video)


def test_the_plain_key_hq_wins_over_the_target():
    assert parse_model({**BARE, "hq": True}).core.hq


def test_hq_mode_off_is_a_word_also_where_yaml_reads_a_boolean():
    assert yaml.safe_load("hq_mode: off") == {"hq_mode": False}
    assert parse_model({**BARE, "hq_mode": False}).core.hq_mode == "off"


def test_a_whole_number_is_a_float_where_a_float_is_wanted():
    value = parse_model({**BARE, "sigmoid_scale_for_mem_enc": 20}).core.sigmoid_scale_for_mem_enc
    assert value == 20.0
    assert isinstance(value, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fill_hole_are": 3}, "model.fill_hole_are; did you mean 'fill_hole_area'"),
        (
            {"sam_mask_decoder_extra_args": {"dynamic_multimask_via_stabilit": True}},
            "model.sam_mask_decoder_extra_args.dynamic_multimask_via_stabilit; did you mean",
        ),
        ({"dynamic_multimask_via_stability": True}, "unknown config key"),
        ({"_target_": "os.system"}, r"must start with sam2_hq\., got 'os.system'"),
        ({"_target_": "sam2.modeling.sam2_base.SAM2Bas"}, "did you mean 'modeling.sam2_base.SAM2B"),
        ({"image_encoder": 3}, "model.image_encoder must be a mapping with a _target_, got 3"),
        ({"image_size": 500}, "image_size must be a multiple of 32, got 500"),
        ({"image_size": 0}, "image_size must be a multiple of 32, got 0"),
        ({"hq_mode": "best"}, "hq_mode must be one of .*, got 'best'"),
        ({"fill_hole_area": -1}, "fill_hole_area must be 0 or more, got -1"),
        ({"object_batch": 0}, "object_batch must be 1 or more, got 0"),
        ({"memory_temporal_stride_for_eval": 0}, "model.memory_t.* must be 1 or more, got 0"),
        ({"max_cond_frames_in_attn": 1}, "model.max_cond_f.* must be -1 or at least 2, got 1"),
        ({"max_cond_frames_in_attn": -5}, "model.max_cond_f.* must be -1 or at least 2, got -5"),
        ({"max_obj_ptrs_in_encoder": -3}, "model.max_obj_ptrs.* must be 0 or more, got -3"),
        ({"max_memory_frames": -2}, "model.max_memory_frames must be 0 or more, got -2"),
        ({"min_memory_iou": 1.2}, "model.min_memory_iou must be between 0 and 1, got 1.2"),
        ({"num_maskmem": -1}, "model.num_maskmem must be 0 or more, got -1"),
    ],
)
def test_a_wrong_key_or_value_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        parse_model({**BARE, **change})


def test_a_policy_that_is_replaced_later_is_checked_too():
    with pytest.raises(ValueError, match=r"^max_cond_frames_in_attn must be -1 or at least 2, got"):
        replace(MemoryPolicy(), max_cond_frames_in_attn=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": "1024"}, "model.image_size must be int, got '1024'"),
        ({"image_size": True}, "model.image_size must be int, got True"),
        ({"pred_obj_scores": 1}, "model.pred_obj_scores must be bool, got 1"),
        ({"max_memory_frames": 1.5}, "must be int or null, got 1.5"),
        ({"compile_image_encoder": "yes"}, "compile_image_encoder must be bool"),
    ],
)
def test_a_value_of_another_type_is_refused(change, message):
    with pytest.raises(TypeError, match=message):
        parse_model({**BARE, **change})


def test_a_tree_must_be_a_mapping():
    with pytest.raises(TypeError, match="model must be a mapping, got list"):
        parse_model([])
