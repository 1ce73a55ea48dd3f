"""Models from configs and checkpoints: the published builders, and `load`, which needs no config.

`compose.py` finds and composes configs, `config.py` reads them, `assembly.py` makes the objects,
`checkpoint.py` reads weights. Here they meet.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar  # Any: refused arguments

import torch

from sam2_hq.assembly import assemble_core, assemble_video_predictor
from sam2_hq.checkpoint import (
    CheckpointPath,
    StateDict,
    checkpoints_in,
    load_checkpoint,
    path_manager,
    read_checkpoint,
    recognise,
)
from sam2_hq.compose import ConfigSource, compose_tree
from sam2_hq.config import ModelConfig, parse_model
from sam2_hq.device import Device, choose_device
from sam2_hq.hub import HF_MODEL_ID_TO_FILENAMES, PUBLISHED, download, fetch_from_hub
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.wording import did_you_mean

__all__ = [
    "HF_MODEL_ID_TO_FILENAMES",
    "build_sam2",
    "build_sam2_hf",
    "build_sam2_hq_video_predictor",
    "build_sam2_hq_video_predictor_hf",
    "build_sam2_video_predictor",
    "build_sam2_video_predictor_hf",
    "load",
]

logger = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=SAM2Base)

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "sam2.1_hq_hiera_nano.safetensors"
"""The default of every command; others may lie beside it, see `bundled_weights`."""

DEFAULT_CONFIG = "configs/sam2.1/sam2.1_hq_hiera_n.yaml"

RANDOM_WEIGHTS_NOTICE = (
    "the package has no trained checkpoint: the weights are random and the masks mean nothing; "
    "name a checkpoint, for example sam2.1_hiera_tiny"
)

_HQ_TARGET = ["++model._target_=sam2_hq.sam2_hq_video_predictor.SAM2HQVideoPredictor"]
_IMAGE_POSTPROCESSING = [
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
]
_VIDEO_POSTPROCESSING = [
    *_IMAGE_POSTPROCESSING,
    "++model.binarize_mask_from_pts_for_mem_enc=true",
    "++model.fill_hole_area=8",
]


def build_sam2(
    config_file: ConfigSource,
    ckpt_path: str | os.PathLike[str] | None = None,
    device: Device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    *,
    allow_missing_hq: bool = False,
    **unknown: Any,
) -> SAM2Base:
    """Build the model that a config names, plain or HQ, for images.

    Args:
        config_file: packaged name, path of a YAML file, or mapping.
        ckpt_path: checkpoint file; None keeps random initial weights.
        device: where the model goes; None takes CUDA, else MPS, else the CPU.
        mode: "eval" or "train".
        hydra_overrides_extra: overrides such as "++model.image_size=512"; they win over all others.
        apply_postprocessing: choose a steadier mask where the single mask is unstable.
        allow_missing_hq: start an HQ model from a plain SAM 2.1 checkpoint.

    Raises:
        ValueError, TypeError: if an argument, a config key, an override or the checkpoint is wrong;
            the message names it.
        FileNotFoundError: if there is no such checkpoint.
    """
    _refuse(unknown, build_sam2)
    overrides = _overrides(_IMAGE_POSTPROCESSING, apply_postprocessing, hydra_overrides_extra)
    config = _read_config(config_file, overrides)
    _check_mode(mode)
    target = choose_device(device)
    model = assemble_video_predictor(config) if config.is_video else assemble_core(config)
    _fill(model, ckpt_path, allow_missing_hq)
    return _settle(model, target, mode)


def build_sam2_video_predictor(
    config_file: ConfigSource,
    ckpt_path: str | os.PathLike[str] | None = None,
    device: Device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    *,
    allow_missing_hq: bool = False,
    **unknown: Any,
) -> SAM2VideoPredictor:
    """Build a video predictor, plain or HQ as the config says.

    Args:
        config_file, ckpt_path, device, mode, hydra_overrides_extra, allow_missing_hq: as in
            `build_sam2`.
        apply_postprocessing: also binarise the masks of prompted frames for the memory, and fill
            holes of up to 8 pixels of the low-resolution map.
        vos_optimized: compile the four verbs of the network with `torch.compile`.

    Raises:
        ValueError, TypeError, FileNotFoundError: as `build_sam2`.
    """
    _refuse(unknown, build_sam2_video_predictor)
    overrides = _overrides(_VIDEO_POSTPROCESSING, apply_postprocessing, hydra_overrides_extra)
    config = _read_config(config_file, overrides)
    _check_mode(mode)
    target = choose_device(device)
    predictor = assemble_video_predictor(config)
    _fill(predictor, ckpt_path, allow_missing_hq)
    _settle(predictor, target, mode)
    if vos_optimized:
        _compile_verbs(predictor)
    return predictor


def build_sam2_hq_video_predictor(
    config_file: ConfigSource,
    ckpt_path: str | os.PathLike[str] | None = None,
    device: Device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    *,
    vos_optimized: bool = False,
    allow_missing_hq: bool = False,
    **unknown: Any,
) -> SAM2VideoPredictor:
    """Build a video predictor with the HQ token, whatever the config says.

    Arguments and errors are those of `build_sam2_video_predictor`.
    """
    _refuse(unknown, build_sam2_hq_video_predictor)
    return build_sam2_video_predictor(
        config_file,
        ckpt_path,
        device,
        mode,
        _overrides(_HQ_TARGET, True, hydra_overrides_extra),
        apply_postprocessing,
        vos_optimized,
        allow_missing_hq=allow_missing_hq,
    )


def build_sam2_hf(model_id: str, **kwargs: Any) -> SAM2Base:
    """Build a hub repository's model for images; `kwargs` go to `build_sam2`."""
    return _from_hub(build_sam2, model_id, kwargs)


def build_sam2_video_predictor_hf(model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
    """Build a hub repository's video predictor, plain or HQ; see `build_sam2_video_predictor`."""
    return _from_hub(build_sam2_video_predictor, model_id, kwargs)


def build_sam2_hq_video_predictor_hf(model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
    """Build a hub repository's HQ video predictor; see `build_sam2_hq_video_predictor`."""
    return _from_hub(build_sam2_hq_video_predictor, model_id, kwargs)


def load(
    path_or_name: str | os.PathLike[str] | None = None,
    *,
    config: ConfigSource | None = None,
    device: Device | None = None,
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    allow_missing_hq: bool = False,
) -> SAM2VideoPredictor:
    """Load a checkpoint and build the model that it needs, ready to predict.

    Generation, size and HQ are told from the checkpoint's keys and shapes.

    Args:
        path_or_name: a `.pt` or `.safetensors` file or a folder with one; the name of a checkpoint
            of the package (`sam2.1_hq_hiera_nano`) or of a published one (`sam2.1_hiera_tiny`),
            fetched if need be; a hub id (`lkeab/hq-sam`); or None for the package's default. If the
            package has none, the smallest model gets random weights, always the same, and a warning
            is logged.
        config: takes the place of the recognised config.
        device: as in `build_sam2`.
        hydra_overrides_extra: as in `build_sam2`.
        apply_postprocessing, vos_optimized: as in `build_sam2_video_predictor`.
        allow_missing_hq: give a plain SAM 2.1 checkpoint an untrained HQ token.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the name is unknown or the checkpoint is none of ours.
    """
    overrides = _overrides(_VIDEO_POSTPROCESSING, apply_postprocessing, hydra_overrides_extra)
    target = choose_device(device)
    predictor = _settle(_load(path_or_name, config, overrides, allow_missing_hq), target, "eval")
    if vos_optimized:
        _compile_verbs(predictor)
    return predictor


def _load(
    path_or_name: str | os.PathLike[str] | None,
    config: ConfigSource | None,
    overrides: Sequence[str],
    allow_missing_hq: bool,
) -> SAM2VideoPredictor:
    if path_or_name is None and not DEFAULT_WEIGHTS.is_file():
        logger.warning(RANDOM_WEIGHTS_NOTICE)
        return _with_random_weights(_read_config(config or DEFAULT_CONFIG, overrides))
    # What is wrong with a config is said before a download.
    given = _read_config(config, overrides) if config else None
    weights = read_checkpoint(locate(path_or_name))
    own = given or _read_config(_config_of(weights, allow_missing_hq), overrides)
    predictor = assemble_video_predictor(own)
    load_checkpoint(predictor, weights, allow_missing_hq=allow_missing_hq)
    return predictor


def _read_config(config: ConfigSource, overrides: Sequence[str]) -> ModelConfig:
    return parse_model(compose_tree(config, overrides)["model"])


def _overrides(ours: Sequence[str], apply_ours: bool, extra: Sequence[str]) -> list[str]:
    if isinstance(extra, str) or not isinstance(extra, Sequence):
        raise TypeError(f"hydra_overrides_extra must be a list of strings, got {extra!r}")
    return [*(ours if apply_ours else ()), *extra]


def _refuse(unknown: Iterable[str], builder: Callable[..., Any]) -> None:
    for name in unknown:
        hint = did_you_mean(name, _named_arguments(builder))
        raise TypeError(f"{builder.__name__} got an unknown argument {name!r}{hint}")


def _named_arguments(builder: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(builder).parameters.values()
    return [one.name for one in parameters if one.kind != one.VAR_KEYWORD]


def _from_hub(builder: Callable[..., _Model], model_id: str, kwargs: Mapping[str, Any]) -> _Model:
    """Fetch and build; what is wrong with the arguments is said before hundreds of megabytes."""
    for name in kwargs.keys() & {"config_file", "ckpt_path"}:
        raise TypeError(f"{name} is what the hub id stands for, got {kwargs[name]!r} beside it")
    _refuse([name for name in kwargs if name not in _named_arguments(builder)], builder)
    overrides = _overrides(
        _IMAGE_POSTPROCESSING if builder is build_sam2 else _VIDEO_POSTPROCESSING,
        kwargs.get("apply_postprocessing", True),
        kwargs.get("hydra_overrides_extra", ()),
    )
    _check_mode(kwargs.get("mode", "eval"))
    choose_device(kwargs.get("device"))
    if model_id in HF_MODEL_ID_TO_FILENAMES:
        _read_config(HF_MODEL_ID_TO_FILENAMES[model_id][0], overrides)
    config, path = fetch_from_hub(model_id)
    return builder(config, path, **kwargs)


def _check_mode(mode: str) -> None:
    if mode not in ("eval", "train"):
        raise ValueError(f"mode must be 'eval' or 'train', got {mode!r}")


def _fill(
    model: SAM2Base, ckpt_path: str | os.PathLike[str] | None, allow_missing_hq: bool
) -> None:
    if ckpt_path is None:
        return
    load_checkpoint(model, read_checkpoint(ckpt_path), allow_missing_hq=allow_missing_hq)
    logger.info("loaded %s", os.fspath(ckpt_path))


def _settle(model: _Model, device: torch.device, mode: str) -> _Model:
    model.to(device).train(mode == "train")
    if mode == "eval":
        model.prepare()
    return model


def _with_random_weights(config: ModelConfig) -> SAM2VideoPredictor:
    """The same weights in every process, and the caller's random numbers as if nothing happened."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        return assemble_video_predictor(config)


def bundled_weights() -> dict[str, Path]:
    """Checkpoints that come with the package, by name."""
    return {file.stem: file for file in sorted(DEFAULT_WEIGHTS.parent.glob("*.safetensors"))}


def locate(path_or_name: CheckpointPath | None) -> CheckpointPath:
    """Find a checkpoint, fetched if need be.

    Args:
        path_or_name: as of `load`.

    Returns:
        The path of a file, or of a folder with one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the name is unknown.
    """
    if path_or_name is None:
        return DEFAULT_WEIGHTS
    if not isinstance(path_or_name, str):
        return path_or_name
    if path_manager.exists(path_or_name) and not _hides_a_name(path_or_name):
        return path_or_name
    if path_or_name in bundled_weights():
        return bundled_weights()[path_or_name]
    if path_or_name in HF_MODEL_ID_TO_FILENAMES:
        return fetch_from_hub(path_or_name)[1]
    if path_or_name.removesuffix(".pt") in PUBLISHED:
        return download(path_or_name)
    if path_or_name.endswith((".pt", ".safetensors")):
        raise FileNotFoundError(f"there is no checkpoint {path_or_name}")
    hint = did_you_mean(path_or_name, checkpoint_names())
    raise ValueError(f"no checkpoint file, published name or hub id: {path_or_name!r}{hint}")


def checkpoint_names() -> list[str]:
    """Names and hub ids that `load` knows."""
    return [*bundled_weights(), *PUBLISHED, *HF_MODEL_ID_TO_FILENAMES]


def _hides_a_name(name: str) -> bool:
    """Whether it is a folder without checkpoints, say of results, that is called like one."""
    folder = Path(name)
    return name in checkpoint_names() and folder.is_dir() and not checkpoints_in(folder)


def _config_of(weights: StateDict, with_hq: bool) -> str:
    kind = recognise(weights)
    if with_hq and not kind.hq:
        if kind.generation != "2.1":
            raise ValueError(
                "allow_missing_hq needs a checkpoint of SAM 2.1, which HQ models start from, "
                f"got one of SAM {kind.generation}"
            )
        kind = replace(kind, hq=True)
    return kind.config


def _compile_verbs(model: SAM2Base) -> None:
    # The number of memories changes from frame to frame, so only `condition` sees many shapes.
    for verb, dynamic in (
        ("encode_image", False),
        ("condition", True),
        ("decode", False),
        ("encode_memory", False),
    ):
        compiled = torch.compile(getattr(type(model), verb), dynamic=dynamic)
        setattr(model, verb, MethodType(compiled, model))  # a copy of the model gets its own
