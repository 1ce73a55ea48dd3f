"""The packaged configs compose to the published values, written down here as tables."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sam2_hq.compose import compose_tree, config_dir, config_names

MODELING = "sam2_hq.modeling"
FLAGS = {
    "num_maskmem": 7,
    "image_size": 1024,
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "use_high_res_features_in_sam": True,
    "multimask_output_in_sam": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "use_mlp_for_obj_ptr_proj": True,
    "compile_image_encoder": False,
}
GENERATIONS = {
    "sam2": {"add_tpos_enc_to_obj_ptrs": False},
    "sam2.1": {
        "add_tpos_enc_to_obj_ptrs": True,
        "proj_tpos_enc_in_obj_ptrs": True,
        "use_signed_tpos_enc_to_obj_ptrs": True,
        "no_obj_embed_spatial": True,
    },
}
TRUNKS = {
    "t": {
        "embed_dim": 96,
        "num_heads": 1,
        "stages": [1, 2, 7, 2],
        "global_att_blocks": [5, 7, 9],
        "window_pos_embed_bkg_spatial_size": [7, 7],
    },
    "s": {
        "embed_dim": 96,
        "num_heads": 1,
        "stages": [1, 2, 11, 2],
        "global_att_blocks": [7, 10, 13],
        "window_pos_embed_bkg_spatial_size": [7, 7],
    },
    "b+": {"embed_dim": 112, "num_heads": 2},
    "l": {
        "embed_dim": 144,
        "num_heads": 2,
        "stages": [2, 6, 36, 4],
        "global_att_blocks": [23, 33, 43],
        "window_pos_embed_bkg_spatial_size": [7, 7],
        "window_spec": [8, 4, 16, 8],
    },
}
CHANNELS = {
    "t": [768, 384, 192, 96],
    "s": [768, 384, 192, 96],
    "b+": [896, 448, 224, 112],
    "l": [1152, 576, 288, 144],
}


def sine(features: int) -> dict:
    return {
        "_target_": f"{MODELING}.position_encoding.PositionEmbeddingSine",
        "num_pos_feats": features,
        "normalize": True,
        "scale": None,
        "temperature": 10000,
    }


def rope(**extra) -> dict:
    return {
        "_target_": f"{MODELING}.sam.transformer.RoPEAttention",
        "rope_theta": 10000.0,
        "feat_sizes": [64, 64],
        "embedding_dim": 256,
        "num_heads": 1,
        "downsample_rate": 1,
        "dropout": 0.1,
        **extra,
    }


def image_encoder(size: str) -> dict:
    return {
        "_target_": f"{MODELING}.backbones.image_encoder.ImageEncoder",
        "scalp": 1,
        "trunk": {"_target_": f"{MODELING}.backbones.hieradet.Hiera", **TRUNKS[size]},
        "neck": {
            "_target_": f"{MODELING}.backbones.image_encoder.FpnNeck",
            "position_encoding": sine(256),
            "d_model": 256,
            "backbone_channel_list": CHANNELS[size],
            "fpn_top_down_levels": [2, 3],
            "fpn_interp_model": "nearest",
        },
    }


MEMORY_ATTENTION = {
    "_target_": f"{MODELING}.memory_attention.MemoryAttention",
    "d_model": 256,
    "pos_enc_at_input": True,
    "num_layers": 4,
    "layer": {
        "_target_": f"{MODELING}.memory_attention.MemoryAttentionLayer",
        "activation": "relu",
        "dim_feedforward": 2048,
        "dropout": 0.1,
        "d_model": 256,
        "pos_enc_at_attn": False,
        "pos_enc_at_cross_attn_keys": True,
        "pos_enc_at_cross_attn_queries": False,
        "self_attention": rope(),
        "cross_attention": rope(rope_k_repeat=True, kv_in_dim=64),
    },
}
MEMORY_ENCODER = {
    "_target_": f"{MODELING}.memory_encoder.MemoryEncoder",
    "out_dim": 64,
    "position_encoding": sine(64),
    "mask_downsampler": {
        "_target_": f"{MODELING}.memory_encoder.MaskDownSampler",
        "kernel_size": 3,
        "stride": 2,
        "padding": 1,
    },
    "fuser": {
        "_target_": f"{MODELING}.memory_encoder.Fuser",
        "num_layers": 2,
        "layer": {
            "_target_": f"{MODELING}.memory_encoder.CXBlock",
            "dim": 256,
            "kernel_size": 7,
            "padding": 3,
            "layer_scale_init_value": 1e-6,
            "use_dwconv": True,
        },
    },
}


def published(generation: str, size: str, *, hq: bool) -> dict:
    core = "sam2_hq_base.SAM2HQBase" if hq else "sam2_base.SAM2Base"
    return {
        "model": {
            "_target_": f"{MODELING}.{core}",
            "image_encoder": image_encoder(size),
            "memory_attention": MEMORY_ATTENTION,
            "memory_encoder": MEMORY_ENCODER,
            **FLAGS,
            **GENERATIONS[generation],
        }
    }


PUBLISHED = {
    **{f"sam2/sam2_hiera_{size}": published("sam2", size, hq=False) for size in TRUNKS},
    **{f"sam2.1/sam2.1_hiera_{size}": published("sam2.1", size, hq=False) for size in TRUNKS},
    **{f"sam2.1/sam2.1_hq_hiera_{size}": published("sam2.1", size, hq=True) for size in TRUNKS},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_packaged_config_composes_to_the_published_values(name):
    assert compose_tree(f"configs/{name}.yaml") == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_plain_hydra_composes_the_same_tree(name):
    with initialize_config_dir(str(config_dir()), version_base="1.2"):
        assert OmegaConf.to_container(compose(name), resolve=True) == PUBLISHED[name]


def test_nothing_else_is_packaged_but_nano_and_the_published_training_example():
    names = {name.removeprefix("configs/").removesuffix(".yaml") for name in config_names()}
    ours = {"sam2.1/sam2.1_hiera_n", "sam2.1/sam2.1_hq_hiera_n"}
    assert names == {*PUBLISHED, *ours, "sam2.1_training/sam2.1_hiera_b+_MOSE_finetune"}
