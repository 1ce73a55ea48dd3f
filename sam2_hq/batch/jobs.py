"""What a batch run is told: the model and the data set. Plain data that travels to workers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # Any: JSON values

import torch

from sam2_hq.build_sam import DEFAULT_WEIGHTS, load
from sam2_hq.evaluation.datasets import Dataset, VideoSequence, open_dataset
from sam2_hq.evaluation.semi_supervised import PromptKind, TrackingRules
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import HQ_MODES

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ModelSpec:
    """Which model to open and how to run it.

    checkpoint: a file, a published name or a hub id; None for the model of the package.
    config: a packaged name or a YAML file; None recognises it from the checkpoint.
    overrides: of the config, such as "++model.image_size=512".
    device: None takes CUDA, else MPS, else the CPU; several workers spread over all of a kind.
    dtype: "float32", or "bfloat16" and "float16" for autocast.
    hq_mode: None for the model's own.
    compiled: compile the verbs of the network.
    postprocessing: as of the builders: hole filling, steadier masks. Published scores are without.

    Raises:
        ValueError: for a `dtype` or `hq_mode` that does not exist.
    """

    checkpoint: str | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()
    device: str | None = None
    dtype: str = "float32"
    hq_mode: str | None = None
    compiled: bool = False
    postprocessing: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.hq_mode is not None and self.hq_mode not in HQ_MODES:
            raise ValueError(f"hq_mode must be one of {', '.join(HQ_MODES)}, got {self.hq_mode!r}")

    def open(self) -> SAM2VideoPredictor:
        """Build and load the model.

        Raises:
            ValueError, TypeError, FileNotFoundError: as `load`.
        """
        predictor = load(
            self.checkpoint,
            config=self.config,
            device=self.device,
            hydra_overrides_extra=self.overrides,
            apply_postprocessing=self.postprocessing,
            vos_optimized=self.compiled,
        )
        if self.hq_mode is not None:
            predictor.hq_mode = self.hq_mode  # type: ignore[assignment]  # checked by the setter
        return predictor

    @contextmanager
    def running_on(self, device: torch.device) -> Iterator[None]:
        """Inference in the chosen precision; results stay float32."""
        dtype = DTYPES[self.dtype]
        is_mixed = dtype != torch.float32
        with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=is_mixed):
            yield

    def identity(self) -> dict[str, Any]:
        """What decides the masks, as JSON values: a file by its content, and not the device."""
        file = DEFAULT_WEIGHTS if self.checkpoint is None else Path(self.checkpoint)
        return {
            "checkpoint": self.checkpoint,
            "checkpoint_sha256": _sha256(file) if file.is_file() else None,
            "config": self.config,
            "overrides": list(self.overrides),
            "dtype": self.dtype,
            "hq_mode": self.hq_mode,
            "postprocessing": self.postprocessing,
        }


@dataclass(frozen=True)
class DatasetJob:
    """Track every sequence of a data set from its own annotations, one result folder a sequence.

    root: holds the folders of `dataset`.
    out: gets one folder of masks a sequence, `manifest.jsonl` and `settings.json`.
    dataset: where frames and annotations are, whether objects appear late, and how results are
        written: one palette PNG a frame, or one PNG an object and frame that keeps overlaps.
    prompt, score_threshold: as of `TrackingRules`.
    every_mask: every annotation of an object is a prompt, not its first alone.
    names: these sequences alone; empty for all.
    sequence_list: a text file, one name a line; takes the place of the list of `dataset`.

    Raises:
        ValueError: if a name comes twice, or `prompt` does not exist.
    """

    root: Path
    out: Path
    dataset: Dataset
    model: ModelSpec = field(default_factory=ModelSpec)
    prompt: PromptKind = "mask"
    score_threshold: float = 0.0
    every_mask: bool = False
    names: tuple[str, ...] = ()
    sequence_list: Path | None = None

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise ValueError(f"names has '{twice[0]}' twice")
        _ = self.rules  # checks the prompt at the door
        # Workers start in other folders.
        object.__setattr__(self, "root", Path(self.root).absolute())
        object.__setattr__(self, "out", Path(self.out).absolute())

    @property
    def rules(self) -> TrackingRules:
        """How objects are prompted and cut out."""
        return TrackingRules(self.prompt, self.score_threshold, self.dataset.per_object)

    def sequences(self) -> list[VideoSequence]:
        """The sequences to track, in natural order of their names.

        Raises:
            ValueError: if a folder, the list or a sequence is missing, or a name comes twice.
        """
        found = open_dataset(
            self.root, self.dataset, sequence_list=self.sequence_list, names=self.names
        )
        for sequence in found:
            if sequence.name != Path(sequence.name).name:
                raise ValueError(f"sequence '{sequence.name}' must be the name of one folder")
            if sequence.frames is None or not sequence.frames.is_dir():
                raise ValueError(f"sequence '{sequence.name}' has no frames in '{sequence.frames}'")
        return found

    def settings(self) -> dict[str, Any]:
        """Everything that decides the masks of a sequence, as JSON values."""
        layout = self.dataset
        return {
            "root": str(self.root.resolve()),
            "frames": layout.frames,
            "annotations": layout.annotations,
            "per_object": layout.per_object,
            "late_objects": layout.late_objects,
            "void": layout.conventions.void,
            "is_binary": layout.conventions.is_binary,
            "prompt": self.prompt,
            "score_threshold": self.score_threshold,
            "every_mask": self.every_mask,
            **self.model.identity(),
        }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
