"""Typed configs, and the way from a composed config tree to them. No hydra here."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints  # Any: a YAML value

from sam2_hq.checks import check_counts, check_numbers, check_shares
from sam2_hq.structures import HQ_MODES
from sam2_hq.wording import did_you_mean

IMAGE_MULTIPLE = 32
"""Sides of model pictures are multiples of it: the stride of the coarsest map."""

MEMORY_DTYPES = ("bfloat16", "float16", "float32")


def check_zoom_in(ratio: float | None) -> None:
    """Check the side of windows, in sides of the object; None is one look.

    Raises:
        TypeError, ValueError: for what is no finite number of 1 or more.
    """
    if ratio is None:
        return
    check_numbers({"zoom_in": ratio}, least=1)
    if math.isinf(ratio):
        raise ValueError(f"zoom_in must be finite, or null for one look, got {ratio}")


@dataclass(frozen=True)
class CoreConfig:
    """What decides parameters and numbers of the core model. Names are the published config keys.

    Sizes in model pixels. `hq` says whether the mask decoder owns the HQ token.
    `hq_mode` is the mode to begin with; None is "correct" with the HQ token, "off" without.
    `zoom_in` (ours) is the side of the windows in which prompts are answered again, in larger sides
    of the object; None is one look, as published.
    The `sam_*` fields have one value in all published models; smaller models change them.
    """

    hq: bool = False
    hq_mode: str | None = None
    zoom_in: float | None = None
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

    def __post_init__(self) -> None:
        if self.image_size <= 0 or self.image_size % IMAGE_MULTIPLE:
            raise ValueError(
                f"image_size must be a multiple of {IMAGE_MULTIPLE}, got {self.image_size}"
            )
        if self.hq_mode is not None and self.hq_mode not in HQ_MODES:
            raise ValueError(f"hq_mode must be one of {HQ_MODES}, got {self.hq_mode!r}")
        check_zoom_in(self.zoom_in)


@dataclass(frozen=True)
class MemoryPolicy:
    """Which memories a frame attends to, and how many are kept. Counts are frames.

    Published keys, and two of ours. `max_memory_frames` is None (keep everything, as published)
    or the number of past unprompted frames whose memories stay; at least `num_maskmem - 1` times
    the stride are needed for the published result. Prompted frames are always kept.
    `min_memory_iou` is None (recall the last frames, as published) or a predicted IoU: the very
    last frame is recalled and, however long ago, the last ones that show the object with at least
    that IoU. A bound then counts recalled frames.

    Raises:
        ValueError: if a count is negative, the stride is 0, `max_cond_frames_in_attn` is neither -1
            (all) nor at least 2, or `min_memory_iou` is not between 0 and 1.
    """

    num_maskmem: int = 7
    max_cond_frames_in_attn: int = -1
    memory_temporal_stride_for_eval: int = 1
    max_obj_ptrs_in_encoder: int = 16
    only_obj_ptrs_in_the_past_for_eval: bool = False
    use_signed_tpos_enc_to_obj_ptrs: bool = False
    max_memory_frames: int | None = None
    min_memory_iou: float | None = None

    def __post_init__(self) -> None:
        seen = self.max_cond_frames_in_attn
        if seen != -1 and seen < 2:
            raise ValueError(f"max_cond_frames_in_attn must be -1 or at least 2, got {seen}")
        check_counts(vars(self), "num_maskmem", "max_obj_ptrs_in_encoder")
        if self.max_memory_frames is not None:
            check_counts(vars(self), "max_memory_frames")
        if self.min_memory_iou is not None:
            check_shares(vars(self), "min_memory_iou")
        check_counts(vars(self), "memory_temporal_stride_for_eval", least=1)


@dataclass(frozen=True)
class PredictorOptions:
    """Rules of the video predictor beside the network. Areas in pixels of the S/4 map.

    The first six are published keys, the others ours. `appearance_weight` is what the colours and
    features of an object, where the user showed it, count in its tracked masks; published is 0.
    `edge_reach` lets the masks of tracked frames follow the edges of the picture, within windows of
    so many square roots of the object's area; None returns them as decoded, as published.
    `reference_compatible` makes memories as the published predictors do: of a painted mask after it
    went through the S/4 map, and of a tracked mask before its holes were filled. Without it they
    are made of the painted mask itself, and of the tracked mask with its holes filled.
    """

    fill_hole_area: int = 0
    non_overlap_masks: bool = False
    non_overlap_masks_for_mem_enc: bool = False
    binarize_mask_from_pts_for_mem_enc: bool = False
    clear_non_cond_mem_around_input: bool = False
    add_all_frames_to_correct_as_cond: bool = False
    appearance_weight: float = 0.0
    edge_reach: float | None = None
    object_batch: int | None = None  # objects per pass; None: 1 on a CPU, all at once elsewhere
    feature_cache_frames: int = 8
    memory_dtype: str = "bfloat16"  # of stored memories; "float32" doubles their size
    reference_compatible: bool = True

    def __post_init__(self) -> None:
        check_counts(vars(self), "fill_hole_area")
        check_counts(vars(self), "feature_cache_frames", least=1)
        check_numbers(vars(self), "appearance_weight", least=0)
        if math.isinf(self.appearance_weight):
            raise ValueError(f"appearance_weight must be finite, got {self.appearance_weight}")
        if self.edge_reach is not None:
            check_shares(vars(self), "edge_reach")
            if self.edge_reach == 0:
                raise ValueError("edge_reach must be above 0, or null for masks as decoded, got 0")
        if self.object_batch is not None:
            check_counts(vars(self), "object_batch", least=1)
        if self.memory_dtype not in MEMORY_DTYPES:
            raise ValueError(
                f"memory_dtype must be one of {MEMORY_DTYPES}, got {self.memory_dtype!r}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """A `model:` tree, split by who reads it.

    image_encoder, memory_attention, memory_encoder: subtrees with a `_target_`.
    is_video: the tree names a video predictor.
    compile_image_encoder: published key; the builder wraps `image_encoder.forward`.
    """

    image_encoder: dict[str, Any]
    memory_attention: dict[str, Any]
    memory_encoder: dict[str, Any]
    core: CoreConfig
    policy: MemoryPolicy
    options: PredictorOptions
    is_video: bool = False
    compile_image_encoder: bool = False


class _CoreTarget(NamedTuple):
    hq: bool
    is_video: bool


_CORE_TARGETS = {
    "modeling.sam2_base.SAM2Base": _CoreTarget(hq=False, is_video=False),
    "modeling.sam2_hq_base.SAM2HQBase": _CoreTarget(hq=True, is_video=False),
    "sam2_video_predictor.SAM2VideoPredictor": _CoreTarget(hq=False, is_video=True),
    "sam2_video_predictor.SAM2VideoPredictorVOS": _CoreTarget(hq=False, is_video=True),
    "sam2_hq_video_predictor.SAM2HQVideoPredictor": _CoreTarget(hq=True, is_video=True),
}
_PARTS = ("image_encoder", "memory_attention", "memory_encoder")
_DECODER_ARGS = "sam_mask_decoder_extra_args"
_DYNAMIC_KEYS = (
    "dynamic_multimask_via_stability",
    "dynamic_multimask_stability_delta",
    "dynamic_multimask_stability_thresh",
)
# Accepted because published configs and overrides say it; objects are independent here anyway.
_WITHOUT_EFFECT = "clear_non_cond_mem_for_multi_obj"


def parse_model(tree: Mapping[str, Any]) -> ModelConfig:
    """Turn a composed and resolved `model:` tree with the published flat keys into typed configs.

    Raises:
        ValueError: names an unknown key and its nearest neighbour, a missing part, or a value that
            is out of range.
        TypeError: if a value has the wrong type.
    """
    if not isinstance(tree, Mapping):
        raise TypeError(f"config key model must be a mapping, got {type(tree).__name__}")
    flat = {key: value for key, value in tree.items() if key not in (*_PARTS, "_target_")}
    target = _core_target(tree)
    flat.setdefault("hq", target.hq)
    if flat.get("hq_mode") is False:
        flat["hq_mode"] = "off"  # which YAML reads as a boolean
    extra = flat.pop(_DECODER_ARGS, None) or {}
    check_keys(extra, _DYNAMIC_KEYS, f"model.{_DECODER_ARGS}")
    _check_flags(flat)
    flat |= extra
    return ModelConfig(
        **{part: _part(tree, part) for part in _PARTS},
        core=_typed(CoreConfig, flat),
        policy=_typed(MemoryPolicy, flat),
        options=_typed(PredictorOptions, flat),
        is_video=target.is_video,
        compile_image_encoder=_checked(
            flat.get("compile_image_encoder", False), bool, "compile_image_encoder"
        ),
    )


def strip_package(target: object, key: str) -> str:
    """Return a `_target_` without its package, `sam2` or `sam2_hq`.

    Raises:
        ValueError: if `target`, found at `key`, is not a dotted name in one of the two.
    """
    package, _, name = str(target).partition(".")
    if package not in ("sam2", "sam2_hq") or not name:
        raise ValueError(f"config key {key}._target_ must start with sam2_hq., got {target!r}")
    return name


def check_keys(given: Iterable[str], known: Collection[str], key: str) -> None:
    """Refuse the first of `given`, found under `key`, that is not `known`.

    Raises:
        ValueError: names the full key and its nearest neighbour.
    """
    for name in given:
        if name not in known:
            raise ValueError(f"unknown config key {key}.{name}{did_you_mean(str(name), known)}")


def _core_target(tree: Mapping[str, Any]) -> _CoreTarget:
    name = strip_package(tree.get("_target_", "sam2_hq.modeling.sam2_base.SAM2Base"), "model")
    if name not in _CORE_TARGETS:
        hint = did_you_mean(name, _CORE_TARGETS)
        raise ValueError(f"unknown config target model._target_ {tree['_target_']!r}{hint}")
    return _CORE_TARGETS[name]


def _part(tree: Mapping[str, Any], part: str) -> dict[str, Any]:
    node = tree.get(part)
    if not isinstance(node, Mapping):
        raise ValueError(f"config key model.{part} must be a mapping with a _target_, got {node!r}")
    return dict(node)


def _check_flags(flat: Mapping[str, Any]) -> None:
    configs = (CoreConfig, MemoryPolicy, PredictorOptions)
    known = {field.name for config in configs for field in fields(config)}
    known = known - set(_DYNAMIC_KEYS) | {"compile_image_encoder", _WITHOUT_EFFECT}
    check_keys(flat, known | {*_PARTS, _DECODER_ARGS}, "model")


_Typed = TypeVar("_Typed", CoreConfig, MemoryPolicy, PredictorOptions)


def _typed(config: type[_Typed], flat: Mapping[str, Any]) -> _Typed:
    wanted = get_type_hints(config)
    values = {key: _checked(flat[key], wanted[key], key) for key in wanted if key in flat}
    try:
        return config(**values)
    except ValueError as error:
        raise ValueError(f"config key model.{error}") from error


def _checked(value: Any, wanted: Any, key: str) -> Any:
    allowed = get_args(wanted) or (wanted,)
    if float in allowed and type(value) is int:
        return float(value)
    if type(value) not in allowed:  # bool is no int here
        names = " or ".join(kind.__name__.replace("NoneType", "null") for kind in allowed)
        raise TypeError(f"config key model.{key} must be {names}, got {value!r}")
    return value
