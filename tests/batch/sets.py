"""A tiny data set in the layout of MOSE, and a toy model on disk, for workers to open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from safetensors.torch import save_file

from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.data.masks import write_id_map
from sam2_hq.evaluation.datasets import Dataset
from sam2_hq.model_spec import ModelSpec
from tests.toy import SIZE, disc_mask, toy_clip, toy_predictor, toy_tree

NUM_FRAMES = 6
Ids = np.ndarray[Any, Any]


def write_model(folder: Path) -> ModelSpec:
    """The toy model as a config and a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    config, checkpoint = folder / "toy.yaml", folder / "toy.safetensors"
    config.write_text(yaml.safe_dump({"model": toy_tree()}))
    save_file(toy_predictor().state_dict(), checkpoint)
    return ModelSpec(str(checkpoint), str(config), device="cpu")


def write_sequence(
    root: Path, name: str, *, num_frames: int = NUM_FRAMES, masks: Mapping[int, Ids] | None = None
) -> None:
    """A clip and its masks, of all frames or as given by frame. The name decides the clip."""
    seed = sum(name.encode())
    frames = root / "JPEGImages" / name
    frames.mkdir(parents=True)
    for index, picture in enumerate(toy_clip(num_frames, seed)):
        Image.fromarray(picture).save(frames / f"{index:05d}.jpg", quality=95)
    truth = root / "Annotations" / name
    truth.mkdir(parents=True)
    if masks is None:
        masks = {i: disc_ids(i, seed) for i in range(num_frames)}
    for index, ids in masks.items():
        write_id_map(truth / f"{index:05d}.png", ids)


def disc_ids(frame: int, seed: int) -> Ids:
    """The disc as object 1, the ground at the lower right as object 3."""
    ids = disc_mask(frame, seed).astype(np.uint8)
    ids[-16:, -20:][ids[-16:, -20:] == 0] = 3
    return ids


def corner(object_id: int, *, left: bool) -> Ids:
    """An object in a lower corner."""
    ids = np.zeros(SIZE, dtype=np.uint8)
    ids[-20:, :24] = object_id * left
    ids[-20:, -24:] = object_id * (not left)
    return ids


def job(root: Path, out: Path, model: ModelSpec, **changes: Any) -> DatasetJob:
    """Track all of a tiny data set."""
    dataset = changes.pop("dataset", Dataset())
    return DatasetJob(root, out, dataset, model, **changes)


def files(folder: Path) -> dict[str, bytes]:
    """All masks, by path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}
