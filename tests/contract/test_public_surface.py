"""The published names, orders and defaults, written out: what code for `sam2` relies on.

Positional arguments are the published ones. What we add stands behind the star.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from sam2_hq.build_sam import HF_MODEL_ID_TO_FILENAMES
from sam2_hq.structures import ObjectScores, TrackedFrame
from tests.toy import toy_clip, toy_predictor

SIGNATURES = {
    "build_sam.build_sam2": (
        "(config_file, ckpt_path=None, device=None, mode='eval', hydra_overrides_extra=(), "
        "apply_postprocessing=True, *, allow_missing_hq=False, **unknown)"
    ),
    "build_sam.build_sam2_video_predictor": (
        "(config_file, ckpt_path=None, device=None, mode='eval', hydra_overrides_extra=(), "
        "apply_postprocessing=True, vos_optimized=False, *, allow_missing_hq=False, **unknown)"
    ),
    "build_sam.build_sam2_hq_video_predictor": (
        "(config_file, ckpt_path=None, device=None, mode='eval', hydra_overrides_extra=(), "
        "apply_postprocessing=True, *, vos_optimized=False, allow_missing_hq=False, **unknown)"
    ),
    "build_sam.build_sam2_hf": "(model_id, **kwargs)",
    "build_sam.build_sam2_video_predictor_hf": "(model_id, **kwargs)",
    "sam2_image_predictor.SAM2ImagePredictor": (
        "(sam_model, mask_threshold=0.0, max_hole_area=0.0, max_sprinkle_area=0.0)"
    ),
    "sam2_image_predictor.SAM2ImagePredictor.set_image": "(self, image)",
    "sam2_image_predictor.SAM2ImagePredictor.set_image_batch": "(self, image_list)",
    # The published packages disagree from the sixth argument on: `return_logits` in one,
    # `hq_token_only` in the other.
    "sam2_image_predictor.SAM2ImagePredictor.predict": (
        "(self, point_coords=None, point_labels=None, box=None, mask_input=None, "
        "multimask_output=True, *, hq_token_only=False, return_logits=False, "
        "normalize_coords=True, hq_mode=None, keep_prompt_axis=False)"
    ),
    "sam2_image_predictor.SAM2ImagePredictor.predict_batch": (
        "(self, point_coords_batch=None, point_labels_batch=None, box_batch=None, "
        "mask_input_batch=None, multimask_output=True, return_logits=False, "
        "normalize_coords=True, *, hq_token_only=False, hq_mode=None, keep_prompt_axis=False)"
    ),
    "sam2_image_predictor.SAM2ImagePredictor._predict": (
        "(self, point_coords, point_labels, boxes=None, mask_input=None, multimask_output=True, "
        "*, hq_token_only=False, return_logits=False, img_idx=-1, hq_mode=None)"
    ),
    "sam2_image_predictor.SAM2ImagePredictor.get_image_embedding": "(self)",
    "sam2_image_predictor.SAM2ImagePredictor.reset_predictor": "(self)",
    "sam2_video_predictor.SAM2VideoPredictor.init_state": (
        "(self, video_path, offload_video_to_cpu=False, offload_state_to_cpu=False, "
        "async_loading_frames=False)"
    ),
    "sam2_video_predictor.SAM2VideoPredictor.add_new_points_or_box": (
        "(self, inference_state, frame_idx, obj_id, points=None, labels=None, "
        "clear_old_points=True, normalize_coords=True, box=None, *, use_previous_mask=True)"
    ),
    "sam2_video_predictor.SAM2VideoPredictor.add_new_points": "(self, *args, **kwargs)",
    "sam2_video_predictor.SAM2VideoPredictor.add_new_mask": (
        "(self, inference_state, frame_idx, obj_id, mask)"
    ),
    "sam2_video_predictor.SAM2VideoPredictor.propagate_in_video_preflight": (
        "(self, inference_state)"
    ),
    "sam2_video_predictor.SAM2VideoPredictor.propagate_in_video": (
        "(self, inference_state, start_frame_idx=None, max_frame_num_to_track=None, "
        "reverse=False, *, num_frames=None, progress=False)"
    ),
    "sam2_video_predictor.SAM2VideoPredictor.clear_all_prompts_in_frame": (
        "(self, inference_state, frame_idx, obj_id, need_output=True)"
    ),
    "sam2_video_predictor.SAM2VideoPredictor.remove_object": (
        "(self, inference_state, obj_id, strict=False, need_output=True)"
    ),
    "sam2_video_predictor.SAM2VideoPredictor.reset_state": "(self, inference_state)",
    "automatic_mask_generator.SAM2AutomaticMaskGenerator": (
        "(model, points_per_side=32, points_per_batch=64, pred_iou_thresh=0.8, "
        "stability_score_thresh=0.95, stability_score_offset=1.0, mask_threshold=0.0, "
        "box_nms_thresh=0.7, crop_n_layers=0, crop_nms_thresh=0.7, "
        "crop_overlap_ratio=0.3413333333333333, crop_n_points_downscale_factor=1, "
        "point_grids=None, min_mask_region_area=0, output_mode='binary_mask', use_m2m=False, "
        "multimask_output=True, *, hq_mode=None, coco_boxes=False)"
    ),
    "automatic_mask_generator.SAM2AutomaticMaskGenerator.generate": (
        "(self, image, *, progress=None)"
    ),
    "automatic_mask_generator.SAM2AutomaticMaskGenerator.postprocess_small_regions": (
        "(mask_data, min_area, nms_thresh)"
    ),
    "ops.connected_components.get_connected_components": "(mask)",
}

SAME_ADDRESS = {
    "automatic_mask_generator": ["SAM2AutomaticMaskGenerator"],
    "build_sam": [
        "HF_MODEL_ID_TO_FILENAMES",
        "build_sam2",
        "build_sam2_hf",
        "build_sam2_hq_video_predictor",
        "build_sam2_video_predictor",
        "build_sam2_video_predictor_hf",
    ],
    "modeling.backbones.hieradet": ["Hiera", "MultiScaleAttention", "MultiScaleBlock"],
    "modeling.backbones.image_encoder": ["FpnNeck", "ImageEncoder"],
    "modeling.memory_attention": ["MemoryAttention", "MemoryAttentionLayer"],
    "modeling.memory_encoder": ["CXBlock", "Fuser", "MaskDownSampler", "MemoryEncoder"],
    "modeling.position_encoding": ["PositionEmbeddingRandom", "PositionEmbeddingSine"],
    "modeling.sam.mask_decoder": ["MaskDecoder"],
    "modeling.sam.mask_hq_decoder": ["MaskDecoderHQ"],
    "modeling.sam.prompt_encoder": ["PromptEncoder"],
    "modeling.sam.transformer": ["Attention", "RoPEAttention", "TwoWayTransformer"],
    "modeling.sam2_base": ["NO_OBJ_SCORE", "SAM2Base"],
    "modeling.sam2_hq_base": ["SAM2HQBase"],
    "sam2_hq_video_predictor": ["SAM2HQVideoPredictor"],
    "sam2_image_predictor": ["SAM2ImagePredictor"],
    "sam2_video_predictor": ["SAM2VideoPredictor"],
}
"""Names that stay where they are when `sam2` becomes `sam2_hq` in an import."""


def find(address: str) -> Any:
    """An object by its dotted address below the package."""
    module, _, rest = address.rpartition(".")
    while module:
        try:
            found = importlib.import_module(f"sam2_hq.{module}")
            break
        except ModuleNotFoundError:
            module, _, part = module.rpartition(".")
            rest = f"{part}.{rest}"
    for name in rest.split("."):
        found = getattr(found, name)
    return found


def plain(signature: inspect.Signature) -> str:
    """A signature without annotations."""
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


@pytest.mark.parametrize("address", SIGNATURES)
def test_arguments_have_the_published_order_and_defaults(address):
    assert plain(inspect.signature(find(address))) == SIGNATURES[address]


@pytest.mark.parametrize("module", SAME_ADDRESS)
def test_an_import_works_after_the_package_is_renamed(module):
    for name in SAME_ADDRESS[module]:
        assert find(f"{module}.{name}") is not None


def test_the_hq_names_are_the_plain_classes():
    assert find("modeling.sam2_hq_base.SAM2HQBase") is find("modeling.sam2_base.SAM2Base")
    assert find("modeling.sam.mask_hq_decoder.MaskDecoderHQ") is find(
        "modeling.sam.mask_decoder.MaskDecoder"
    )
    assert find("sam2_hq_video_predictor.SAM2HQVideoPredictor") is find(
        "sam2_video_predictor.SAM2VideoPredictor"
    )


def test_the_hub_table_has_the_published_rows_and_hq():
    assert HF_MODEL_ID_TO_FILENAMES == {
        "facebook/sam2-hiera-tiny": ("configs/sam2/sam2_hiera_t.yaml", "sam2_hiera_tiny.pt"),
        "facebook/sam2-hiera-small": ("configs/sam2/sam2_hiera_s.yaml", "sam2_hiera_small.pt"),
        "facebook/sam2-hiera-base-plus": (
            "configs/sam2/sam2_hiera_b+.yaml",
            "sam2_hiera_base_plus.pt",
        ),
        "facebook/sam2-hiera-large": ("configs/sam2/sam2_hiera_l.yaml", "sam2_hiera_large.pt"),
        "facebook/sam2.1-hiera-tiny": (
            "configs/sam2.1/sam2.1_hiera_t.yaml",
            "sam2.1_hiera_tiny.pt",
        ),
        "facebook/sam2.1-hiera-small": (
            "configs/sam2.1/sam2.1_hiera_s.yaml",
            "sam2.1_hiera_small.pt",
        ),
        "facebook/sam2.1-hiera-base-plus": (
            "configs/sam2.1/sam2.1_hiera_b+.yaml",
            "sam2.1_hiera_base_plus.pt",
        ),
        "facebook/sam2.1-hiera-large": (
            "configs/sam2.1/sam2.1_hiera_l.yaml",
            "sam2.1_hiera_large.pt",
        ),
        "lkeab/hq-sam": ("configs/sam2.1/sam2.1_hq_hiera_l.yaml", "sam2.1_hq_hiera_large.pt"),
    }


@pytest.mark.parametrize(
    "address",
    [
        "sam2_image_predictor.SAM2ImagePredictor",
        "sam2_video_predictor.SAM2VideoPredictor",
        "sam2_hq_video_predictor.SAM2HQVideoPredictor",
        "automatic_mask_generator.SAM2AutomaticMaskGenerator",
    ],
)
def test_every_class_has_a_way_from_the_hub(address):
    from_pretrained = find(address).from_pretrained
    first, *_, last = inspect.signature(from_pretrained).parameters.values()
    assert first.name == "model_id"
    assert last.kind is last.VAR_KEYWORD
    with pytest.raises(ValueError, match=r"unknown hub id .*facebook/sam2\.1-hiera-tiny"):
        from_pretrained("facebook/sam2.1-hiera-tyni")


def test_constants_have_the_published_values():
    assert find("modeling.sam2_base.NO_OBJ_SCORE") == -1024.0


def test_attributes_that_scripts_read_are_there():
    model = toy_predictor()
    predictor = find("sam2_image_predictor.SAM2ImagePredictor")(model)
    predictor.set_image(toy_clip(1)[0])
    assert predictor.model is model
    assert predictor.device == model.device
    assert predictor.mask_threshold == 0.0
    assert set(predictor._features) == {"image_embed", "high_res_feats"}
    assert predictor._orig_hw == [toy_clip(1).shape[1:3]]
    assert (predictor._is_image_set, predictor._is_batch) == (True, False)
    assert predictor._bb_feat_sizes == [(32, 32), (16, 16), (8, 8)]
    assert predictor._transforms.resolution == 128


def test_a_session_answers_to_the_published_keys():
    predictor = toy_predictor()
    state = predictor.init_state(toy_clip(3))
    predictor.add_new_points_or_box(state, 0, "ball", [[20, 20]], [1])
    list(predictor.propagate_in_video(state))
    assert {key: state[key] for key in state} == {
        "num_frames": 3,
        "video_height": toy_clip(1).shape[1],
        "video_width": toy_clip(1).shape[2],
        "device": predictor.device,
        "storage_device": predictor.device,
        "offload_state_to_cpu": False,
        "obj_ids": ["ball"],
        "obj_id_to_idx": {"ball": 0},
        "obj_idx_to_id": {0: "ball"},
        "frames_tracked_per_obj": {0: {frame: {"reverse": False} for frame in range(3)}},
    }


def test_tracking_yields_what_unpacks_into_three():
    assert TrackedFrame._fields == ("frame_idx", "obj_ids", "masks")
    assert ObjectScores._fields == ("object_score", "iou", "hq_disagreement")
