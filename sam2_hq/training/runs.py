"""From a recipe to a trainer: the model, the step, the batches of a stage."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sam2_hq.build_sam import build_sam2_video_predictor
from sam2_hq.device import Device
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.training.answers import Judge
from sam2_hq.training.batch import BatchSource, ClipMaker
from sam2_hq.training.clip_readers import FrameFolders, SavFolder, open_clips
from sam2_hq.training.config import DataOptions, PackOptions, Recipe, TrainingConfig, pack_path
from sam2_hq.training.feature_cache import FeatureCache
from sam2_hq.training.gallery import Gallery
from sam2_hq.training.hq_step import HQStep
from sam2_hq.training.image_step import ImageStep
from sam2_hq.training.mixtures import ClipsAndStills, WithObjects
from sam2_hq.training.packs import read_backgrounds, read_clips, read_cutouts, read_photos
from sam2_hq.training.reader_source import ClipSource, StillSource
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.stage import PackSource
from sam2_hq.training.still_readers import StillFolder, read_hqseg
from sam2_hq.training.trainer import Stage, Trainer
from sam2_hq.training.video_step import VideoStep
from sam2_hq.training.warmup_step import WarmupStep, prefer_near_places
from sam2_hq.training.world import World

MakerOf = Callable[[int, int], ClipMaker]  # by side and number of frames


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
    make_clips = _makers(train.data, SampleLog() if log is None else log)

    def build(side: int) -> SAM2Base:
        return _build(recipe, side, device)

    def source(side: int) -> BatchSource:
        return _of_stage(train, make_clips, side)

    stage = Stage(train.stage, build, lambda model: make_step(train, model), source)
    return Trainer(stage, train.trainer, out, world)


def _build(recipe: Recipe, side: int, device: Device | None) -> SAM2Base:
    train = recipe.train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.trainer.seed)
        model = build_sam2_video_predictor(
            recipe.model,
            train.checkpoint,
            device=device,
            mode="train",
            hydra_overrides_extra=[f"++model.image_size={side}"],
            apply_postprocessing=False,
            allow_missing_hq=train.stage == "hq",
        )
    if train.checkpoint is None:
        prefer_near_places(model)
    return model


def make_step(train: TrainingConfig, model: SAM2Base) -> nn.Module:
    """The forward pass of a stage around a model."""
    judge = Judge(train.trainer.weights, train.loss_stride)
    if train.stage == "warmup":
        return WarmupStep(model, judge=judge)
    if train.stage == "image":
        return ImageStep(model, mix=train.image, judge=judge)
    if train.stage == "hq":
        data = train.data
        cache = (
            FeatureCache(max_pictures=data.cache, folder=data.cache_folder) if data.cache else None
        )
        return HQStep(model, mix=train.hq, cache=cache)
    assert isinstance(model, SAM2VideoPredictor)  # built as one
    return VideoStep(model, mix=train.video, judge=judge, policy=model.memory_policy)


def _of_stage(train: TrainingConfig, make: MakerOf, side: int) -> BatchSource:
    if train.stage != "video":
        return WithObjects(make(side, 1))
    clips = WithObjects(make(side, train.data.num_frames))
    if not train.data.still_share:
        return clips
    return ClipsAndStills(clips, WithObjects(make(side, 1)), train.data.still_share)


def _makers(data: DataOptions, log: SampleLog) -> MakerOf:
    if data.packs is not None:
        return _of_packs(data, data.packs, log)
    stills, clips = _readers(data, log)

    def make(side: int, num_frames: int) -> ClipMaker:
        if clips and num_frames > 1:
            return ClipSource(
                clips, side=side, num_frames=num_frames, max_objects=data.max_objects, log=log
            )
        return StillSource(
            stills, side=side, num_frames=num_frames, max_objects=data.max_objects, log=log
        )

    return make


def _of_packs(data: DataOptions, packs: PackOptions, log: SampleLog) -> MakerOf:
    def read(kind: str, reader: Callable[..., Gallery]) -> Gallery | None:
        name = getattr(packs, kind)
        return reader(pack_path(packs, name), allow=packs.allow, log=log) if name else None

    photos, cutouts = read("photos", read_photos), read("cutouts", read_cutouts)
    backgrounds, clips = read("backgrounds", read_backgrounds), read("clips", read_clips)

    def make(side: int, num_frames: int) -> ClipMaker:
        # A still has no place for a real clip.
        options = data.scene if num_frames > 1 else replace(data.scene, clips=0.0)
        return PackSource(
            side=side,
            num_frames=num_frames,
            max_objects=data.max_objects,
            options=options,
            photos=photos,
            cutouts=cutouts,
            backgrounds=backgrounds,
            clips=clips,
        )

    return make


def _readers(
    data: DataOptions, log: SampleLog
) -> tuple[list[StillFolder], list[FrameFolders | SavFolder]]:
    stills: list[StillFolder] = []
    clips: list[FrameFolders | SavFolder] = []
    for folder in data.folders:
        root = Path(folder.root).expanduser()
        if folder.layout == "images_masks":
            stills.append(StillFolder(root / "images", root / "masks", log=log))
        elif folder.layout == "hqseg44k":
            stills += read_hqseg(root, log=log)
        elif folder.layout in ("davis", "youtube_vos", "mose", "sav"):
            clips.append(open_clips(root, log=log))
        else:
            known = "images_masks, hqseg44k, davis, youtube_vos, mose or sav"
            raise ValueError(f"train.data.folders: layout must be {known}, got {folder.layout!r}")
    return stills, clips
