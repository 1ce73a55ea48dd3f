"""A model small enough that a tracked frame takes milliseconds, and clips to run it on.

Its weights are random but sharp: they depend on position, prompt and memory, as real ones do, so
that a wrong memory or a lost prompt changes the masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sam2_hq.assembly import assemble_video_predictor
from sam2_hq.config import parse_model
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from tests.parity import inputs, weights

SIDE = 128  # model pixels
SIZE = (72, 96)  # height and width of the toy clips


def toy_tree(*, hq: bool = True, **flags: Any) -> dict[str, Any]:
    """A `model:` tree of SAM 2.1 with everything small."""
    dim, mem_dim = 32, 16
    attention = {"_target_": "sam2_hq.modeling.sam.transformer.RoPEAttention"}
    attention |= {"embedding_dim": dim, "num_heads": 1, "dropout": 0.1, "feat_sizes": [8, 8]}
    sine = {"_target_": "sam2_hq.modeling.position_encoding.PositionEmbeddingSine"}
    core = "sam2_hq_base.SAM2HQBase" if hq else "sam2_base.SAM2Base"
    return {
        "_target_": f"sam2_hq.modeling.{core}",
        "image_encoder": {
            "_target_": "sam2_hq.modeling.backbones.image_encoder.ImageEncoder",
            "scalp": 1,
            "trunk": {
                "_target_": "sam2_hq.modeling.backbones.hieradet.Hiera",
                "embed_dim": 8,
                "num_heads": 1,
                "stages": [1, 1, 2, 1],
                "global_att_blocks": [3],
                "window_spec": [8, 4, 4, 2],
                "window_pos_embed_bkg_spatial_size": [7, 7],
            },
            "neck": {
                "_target_": "sam2_hq.modeling.backbones.image_encoder.FpnNeck",
                "position_encoding": {**sine, "num_pos_feats": dim},
                "d_model": dim,
                "backbone_channel_list": [64, 32, 16, 8],
                "fpn_top_down_levels": [2, 3],
            },
        },
        "memory_attention": {
            "_target_": "sam2_hq.modeling.memory_attention.MemoryAttention",
            "d_model": dim,
            "pos_enc_at_input": True,
            "num_layers": 2,
            "layer": {
                "_target_": "sam2_hq.modeling.memory_attention.MemoryAttentionLayer",
                "activation": "relu",
                "d_model": dim,
                "dim_feedforward": 64,
                "dropout": 0.1,
                "pos_enc_at_attn": False,
                "pos_enc_at_cross_attn_keys": True,
                "pos_enc_at_cross_attn_queries": False,
                "self_attention": attention,
                "cross_attention": {**attention, "rope_k_repeat": True, "kv_in_dim": mem_dim},
            },
        },
        "memory_encoder": {
            "_target_": "sam2_hq.modeling.memory_encoder.MemoryEncoder",
            "out_dim": mem_dim,
            "in_dim": dim,
            "position_encoding": {**sine, "num_pos_feats": mem_dim},
            "mask_downsampler": {
                "_target_": "sam2_hq.modeling.memory_encoder.MaskDownSampler",
                "embed_dim": dim,
                "kernel_size": 3,
                "stride": 2,
                "padding": 1,
            },
            "fuser": {
                "_target_": "sam2_hq.modeling.memory_encoder.Fuser",
                "num_layers": 1,
                "layer": {"_target_": "sam2_hq.modeling.memory_encoder.CXBlock", "dim": dim},
            },
        },
        "image_size": SIDE,
        "num_maskmem": 7,
        "sigmoid_scale_for_mem_enc": 20.0,
        "sigmoid_bias_for_mem_enc": -10.0,
        "use_mask_input_as_output_without_sam": True,
        "directly_add_no_mem_embed": True,
        "use_high_res_features_in_sam": True,
        "multimask_output_in_sam": True,
        "multimask_min_pt_num": 0,
        "multimask_max_pt_num": 1,
        "multimask_output_for_tracking": True,
        "use_multimask_token_for_obj_ptr": True,
        "iou_prediction_use_sigmoid": True,
        "use_obj_ptrs_in_encoder": True,
        "add_tpos_enc_to_obj_ptrs": True,
        "proj_tpos_enc_in_obj_ptrs": True,
        "use_signed_tpos_enc_to_obj_ptrs": True,
        "only_obj_ptrs_in_the_past_for_eval": True,
        "pred_obj_scores": True,
        "pred_obj_scores_mlp": True,
        "fixed_no_obj_ptr": True,
        "use_mlp_for_obj_ptr_proj": True,
        "no_obj_embed_spatial": True,
        "sam_transformer_heads": 4,
        "sam_transformer_mlp_dim": 64,
        "sam_iou_head_hidden_dim": 32,
        **flags,
    }


def toy_predictor(
    *, hq: bool = True, seed: int = 0, object_bias: float = weights.PRESENT, **flags: Any
) -> SAM2VideoPredictor:
    """A ready toy model. `object_bias` shifts the presence score: 8 is always there, -8 never."""
    predictor = assemble_video_predictor(parse_model(toy_tree(hq=hq, **flags)))
    shapes = {name: list(value.shape) for name, value in predictor.state_dict().items()}
    predictor.load_state_dict(weights.make_state_dict(shapes, seed, object_bias))
    return predictor.eval().prepare()


def toy_clip(num_frames: int = 12, seed: int = 1) -> np.ndarray:
    """Moving disc and box on a moving ground: uint8 [T, H, W, 3]."""
    return np.stack(inputs.clip(num_frames, *SIZE, seed))


def disc_mask(frame: int = 0, seed: int = 1) -> np.ndarray:
    """Bool mask [H, W] of the disc."""
    return inputs.disc_mask(*SIZE, frame, seed)


def disc_centre(frame: int = 0, seed: int = 1) -> list[int]:
    """x, y inside the disc."""
    x, y, _ = inputs.disc_geometry(*SIZE, frame, seed)
    return [x, y]


def masks_by_frame(results: Any) -> dict[int, torch.Tensor]:
    """Frame -> masks of what a propagation yields."""
    return {result.frame_idx: result.masks for result in results}
