"""Parameter names of `transformers`' SAM 2 video model, from ours.

Written from the two lists of parameter names and shapes alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Applied in order, each wherever it matches: (pattern of ours, what it becomes).
RULES = (
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv([12])\.", r".pointwise_conv\1."),
    (r"\.gamma$", ".scale"),
    (r"mask_downsampler\.encoder\.12\.", "mask_downsampler.final_conv."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"pe_layer\.positional_encoding_gaussian_matrix$", "shared_embedding.positional_embedding"),
    (r"norm_final_attn\.", "layer_norm_final_attn."),
    (r"\.norm(\d?)\.", r".layer_norm\1."),
    (r"(attn\w*|token_to_image|image_to_token)\.out_proj\.", r"\1.o_proj."),
)  # fmt: skip

# Perceptrons: their first and last layer have names there, those between are counted from 0.
PERCEPTRON = re.compile(
    r"(?P<stem>.*(?:\.mlp|_head|mlps\.\d+|^object_pointer_proj))\.layers\.(?P<layer>\d+)\.(?P<kind>\w+)"
)
# Pairs of convolution and norm, an activation after each.
DOWNSAMPLER = re.compile(r"(?P<stem>.*mask_downsampler)\.encoder\.(?P<place>\d+)\.(?P<kind>\w+)")


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a plain SAM 2.1 model; a tensor may be shared, none is copied."""
    depths: dict[str, int] = {}
    renamed: dict[str, Tensor] = {}
    points = [n for n in weights if ".point_embeddings." in n]
    for name, value in weights.items():
        if name not in points:
            for pattern, replacement in RULES:
                name = re.sub(pattern, replacement, name)
            if match := PERCEPTRON.fullmatch(name):
                stem, layer = match["stem"], int(match["layer"])
                depths[stem] = max(depths.get(stem, 0), layer)
            renamed[name] = value
    renamed = {_layer_name(name, depths): value for name, value in renamed.items()}
    renamed["prompt_encoder.point_embed.weight"] = torch.cat([weights[n] for n in sorted(points)])
    renamed["shared_image_embedding.positional_embedding"] = renamed[
        "prompt_encoder.shared_embedding.positional_embedding"
    ]
    return renamed


def _layer_name(name: str, depths: Mapping[str, int]) -> str:
    if match := PERCEPTRON.fullmatch(name):
        stem, layer, kind = match["stem"], int(match["layer"]), match["kind"]
        if layer in (0, depths[stem]):
            return f"{stem}.{'proj_out' if layer else 'proj_in'}.{kind}"
        return f"{stem}.layers.{layer - 1}.{kind}"
    if match := DOWNSAMPLER.fullmatch(name):
        stage, part = divmod(int(match["place"]), 3)
        return f"{match['stem']}.layers.{stage}.{('conv', 'layer_norm')[part]}.{match['kind']}"
    return name
