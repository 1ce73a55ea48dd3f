"""From typed configs to objects. What a config may name is in a table; nothing else is run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MethodType
from typing import Any, get_type_hints  # Any: a config value

import torch
from torch import nn

from sam2_hq.config import ModelConfig, check_keys, strip_package
from sam2_hq.modeling.backbones.hieradet import Hiera
from sam2_hq.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2_hq.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2_hq.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2_hq.modeling.position_encoding import PositionEmbeddingSine
from sam2_hq.modeling.sam.transformer import RoPEAttention
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.wording import did_you_mean

_TARGETS: dict[str, type[nn.Module]] = {
    "modeling.backbones.hieradet.Hiera": Hiera,
    "modeling.backbones.image_encoder.ImageEncoder": ImageEncoder,
    "modeling.backbones.image_encoder.FpnNeck": FpnNeck,
    "modeling.position_encoding.PositionEmbeddingSine": PositionEmbeddingSine,
    "modeling.memory_attention.MemoryAttention": MemoryAttention,
    "modeling.memory_attention.MemoryAttentionLayer": MemoryAttentionLayer,
    "modeling.sam.transformer.RoPEAttention": RoPEAttention,
    "modeling.memory_encoder.MemoryEncoder": MemoryEncoder,
    "modeling.memory_encoder.MaskDownSampler": MaskDownSampler,
    "modeling.memory_encoder.Fuser": Fuser,
    "modeling.memory_encoder.CXBlock": CXBlock,
}


def assemble_core(config: ModelConfig) -> SAM2Base:
    """Make the network, with random initial weights.

    Raises:
        ValueError, TypeError: if a target or a key below a part is unknown or has a value that the
            part refuses; the message has the full key.
    """
    return SAM2Base(*_parts(config), config.core)


def assemble_video_predictor(config: ModelConfig) -> SAM2VideoPredictor:
    """Make the network with the video predictor around it; see `assemble_core`."""
    return SAM2VideoPredictor(
        *_parts(config), config.core, policy=config.policy, options=config.options
    )


def _parts(config: ModelConfig) -> tuple[ImageEncoder, MemoryAttention, MemoryEncoder]:
    encoder = _made(config.image_encoder, "model.image_encoder", ImageEncoder)
    attention = _made(config.memory_attention, "model.memory_attention", MemoryAttention)
    memory_encoder = _made(config.memory_encoder, "model.memory_encoder", MemoryEncoder)
    if config.compile_image_encoder:
        compiled = torch.compile(type(encoder).forward, dynamic=False)
        encoder.forward = MethodType(compiled, encoder)  # a copy of the model gets its own
    return encoder, attention, memory_encoder


def _made(node: Mapping[str, Any], key: str, wanted: Any) -> Any:
    target = _target(node, key)
    if isinstance(wanted, type) and not issubclass(target, wanted):
        raise ValueError(f"config key {key} must be a {wanted.__name__}, got {target.__name__}")
    given = {name: value for name, value in node.items() if name != "_target_"}
    check_keys(given, inspect.signature(target).parameters, key)
    wanted_parts = get_type_hints(target.__init__)
    for name, value in given.items():
        if isinstance(value, Mapping):
            given[name] = _made(value, f"{key}.{name}", wanted_parts[name])
    try:
        return target(**given)
    except TypeError as error:
        raise TypeError(f"config key {key}: {error}") from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"config key {key}: {error}") from error


def _target(node: Mapping[str, Any], key: str) -> type[nn.Module]:
    name = strip_package(node.get("_target_"), key)
    if name not in _TARGETS:
        hint = did_you_mean(name, _TARGETS)
        raise ValueError(f"unknown config target {key}._target_ {node['_target_']!r}{hint}")
    return _TARGETS[name]
