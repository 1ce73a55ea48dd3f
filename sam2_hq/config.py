"""Typed configs, and the way from a composed config tree to them. No hydra here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CoreConfig:
    """What decides parameters and numbers of the core model. Names are the published config keys.

    Sizes in model pixels. `hq` says whether the mask decoder owns the HQ token.
    The `sam_*` fields have one value in all published models; smaller models change them.
    """

    hq: bool = False
    image_size: int = 512
    backbone_stride: int = 16
    num_maskmem: int = 7
    sigmoid_scale_for_mem_enc: float = 1.0
    sigmoid_bias_for_mem_enc: float = 0.0
    use_mask_input_as_output_without_sam: bool = False
    directly_add_no_mem_embed: bool = False
    use_high_res_features_in_sam: bool = False
    multimask_output_in_sam: bool = False
    multimask_min_pt_num: int = 1
    multimask_max_pt_num: int = 1
    multimask_output_for_tracking: bool = False
    use_multimask_token_for_obj_ptr: bool = False
    iou_prediction_use_sigmoid: bool = False
    use_obj_ptrs_in_encoder: bool = False
    add_tpos_enc_to_obj_ptrs: bool = True
    proj_tpos_enc_in_obj_ptrs: bool = False
    pred_obj_scores: bool = False
    pred_obj_scores_mlp: bool = False
    fixed_no_obj_ptr: bool = False
    soft_no_obj_ptr: bool = False
    use_mlp_for_obj_ptr_proj: bool = False
    no_obj_embed_spatial: bool = False
    dynamic_multimask_via_stability: bool = False
    dynamic_multimask_stability_delta: float = 0.05
    dynamic_multimask_stability_thresh: float = 0.98
    sam_transformer_depth: int = 2
    sam_transformer_heads: int = 8
    sam_transformer_mlp_dim: int = 2048
    sam_iou_head_depth: int = 3
    sam_iou_head_hidden_dim: int = 256
    sam_mask_in_chans: int = 16


@dataclass(frozen=True)
class MemoryPolicy:
    """Which memories a frame attends to, and how many are kept. Counts are frames.

    Published keys, and one of ours: `max_memory_frames` is None (keep everything, as published) or the
    number of past unprompted frames whose memories stay; at least `num_maskmem - 1` times the stride are
    needed for the published result. Prompted frames are always kept.
    """

    num_maskmem: int = 7
    max_cond_frames_in_attn: int = -1
    memory_temporal_stride_for_eval: int = 1
    max_obj_ptrs_in_encoder: int = 16
    only_obj_ptrs_in_the_past_for_eval: bool = False
    use_signed_tpos_enc_to_obj_ptrs: bool = False
    max_memory_frames: int | None = None


@dataclass(frozen=True)
class PredictorOptions:
    """Rules of the video predictor beside the network. Areas in pixels of the S/4 map."""

    fill_hole_area: int = 0
    non_overlap_masks: bool = False
    non_overlap_masks_for_mem_enc: bool = False
    binarize_mask_from_pts_for_mem_enc: bool = False
    clear_non_cond_mem_around_input: bool = False
    add_all_frames_to_correct_as_cond: bool = False
    hq_mode: str | None = None  # None: "correct" for an HQ model, "off" for a plain one
    object_batch: int | None = None  # objects per pass; None: 1 on a CPU, all at once elsewhere
    feature_cache_frames: int = 8
