"""From a recipe to a trainer: the model, the step, the batches of a stage."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from sam2_hq.build_sam import build_sam2_video_predictor
from sam2_hq.checkpoint import HQ_TENSORS, load_checkpoint, read_checkpoint
from sam2_hq.device import Device, choose_device
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.training.answers import Judge
from sam2_hq.training.batch import BatchSource
from sam2_hq.training.config import DataOptions, Recipe, TrainingConfig
from sam2_hq.training.data_sets import MakerOf, open_data
from sam2_hq.training.feature_cache import FeatureCache, encoder_key
from sam2_hq.training.fresh_weights import prepare_fresh
from sam2_hq.training.hq_step import HQStep
from sam2_hq.training.image_step import ImageStep
from sam2_hq.training.licenses import license_metadata
from sam2_hq.training.memory_step import MemoryStep
from sam2_hq.training.mixtures import ClipsAndStills, FixedPool, WithObjects
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.scores_step import ScoresStep
from sam2_hq.training.trainer import Phase, Stage, Trainer
from sam2_hq.training.validate import make_validation
from sam2_hq.training.video_step import VideoStep
from sam2_hq.training.warmup_step import WarmupStep
from sam2_hq.training.world import World


def make_trainer(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    device: Device | None = None,
    world: World | None = None,
    log: SampleLog | None = None,
) -> Trainer:
    """Make the trainer of a recipe; it goes on from what it finds in `out`.

    Args:
        recipe: of `read_recipe`.
        out: folder of checkpoints and logs.
        device: where the model learns; None takes CUDA, else MPS, else the CPU.
        world: our place among several processes.
        log: where bad samples are counted.

    Raises:
        ValueError: if the data or the checkpoint does not fit the stage.
    """
    train = recipe.train
    log = SampleLog() if log is None else log
    world = world or World()
    own_device = world.own(choose_device(device))
    make_clips = open_data(train.data, device=own_device, log=log)
    is_watched = train.trainer.validate_steps > 0 and world.is_first

    def build(side: int) -> SAM2Base:
        return _build(recipe, side, own_device)

    def start(model: SAM2Base) -> None:
        if train.checkpoint is not None:
            weights = read_checkpoint(train.checkpoint)
            load_checkpoint(model, weights, allow_missing_hq=train.stage == "hq")
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.trainer.seed + 1)  # the seed itself gave the fresh weights
            prepare_fresh(model)

    def source(phase: Phase) -> BatchSource:
        return _of_stage(train, make_clips, phase)

    stage = Stage(
        train.stage,
        build,
        lambda model: make_step(train, model),
        source,
        make_validation(train, log) if is_watched else None,
        start,
        license_metadata(train, _earlier(train, Path(out))),
        HQ_TENSORS if train.stage == "hq" else frozenset(),
    )
    return Trainer(stage, train.trainer, out, world)


def _earlier(train: TrainingConfig, out: Path) -> list[Path]:
    """The checkpoint that a run goes on from: its own of the last time, or what it begins with."""
    own = out / f"{train.stage}.pt"
    if own.is_file():
        return [own]
    return [] if train.checkpoint is None else [Path(train.checkpoint)]


def _build(recipe: Recipe, side: int, device: torch.device) -> SAM2Base:
    train = recipe.train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.trainer.seed)
        return build_sam2_video_predictor(
            recipe.model,
            device=device,
            mode="train",
            hydra_overrides_extra=[f"++model.image_size={side}"],
            apply_postprocessing=False,
        )


def make_step(train: TrainingConfig, model: SAM2Base) -> nn.Module:
    """The forward pass of a stage around a model."""
    judge = Judge(train.trainer.weights, train.loss_stride)
    if train.stage == "warmup":
        return WarmupStep(model, judge=judge)
    if train.stage == "image":
        return ImageStep(model, mix=train.image, judge=judge)
    assert isinstance(model, SAM2VideoPredictor)  # built as one
    if train.stage == "hq":
        cache = _cache(train.data, model)
        return HQStep(model, mix=train.hq, judge=judge, policy=model.memory_policy, cache=cache)
    kinds = {"video": VideoStep, "scores": ScoresStep, "memory": MemoryStep}
    return kinds[train.stage](model, mix=train.video, judge=judge, policy=model.memory_policy)


def _cache(data: DataOptions, model: SAM2Base) -> FeatureCache | None:
    if not data.cache:
        return None
    # In memory there are features of this model alone.
    encoder = "" if data.cache_folder is None else encoder_key(model)
    return FeatureCache(max_pictures=data.cache, folder=data.cache_folder, encoder=encoder)


def _of_stage(train: TrainingConfig, make: MakerOf, phase: Phase) -> BatchSource:
    side = phase.image_size
    num_frames = train.num_frames(phase)
    if train.stage in ("warmup", "image") or num_frames == 1:
        return _stills(train, make, side)
    clips = WithObjects(make(side, num_frames))
    if not train.data.still_share:
        return clips
    return ClipsAndStills(clips, _stills(train, make, side), train.data.still_share)


def _stills(train: TrainingConfig, make: MakerOf, side: int) -> WithObjects:
    """Stills without end, or where features are kept as many as that."""
    maker = make(side, 1)
    if train.stage == "hq" and train.data.cache:
        maker = FixedPool(maker, train.data.cache)
    return WithObjects(maker)
