"""Which model to open and how to run it, as plain data that can travel to other processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # Any: JSON values

import torch

from sam2_hq.build_sam import DEFAULT_WEIGHTS, load, locate
from sam2_hq.checkpoint import local_file, sha256_of
from sam2_hq.compose import compose_tree
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
        """Run the model in the chosen precision; results stay float32."""
        dtype = DTYPES[self.dtype]
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            yield

    def identity(self) -> dict[str, Any]:
        """What decides the masks, as JSON values: files by their content, and not the device.

        A named checkpoint that is not on this disk yet is fetched.

        Raises:
            ValueError, TypeError, FileNotFoundError: as `load`.
        """
        digest = None
        if self.checkpoint is not None or DEFAULT_WEIGHTS.is_file():  # else weights are random
            digest = sha256_of(local_file(locate(self.checkpoint)))
        return {
            "checkpoint": self.checkpoint and Path(self.checkpoint).name,
            "checkpoint_sha256": digest,
            "config": self.config and Path(self.config).name,
            "config_sha256": self.config and _sha256_of_tree(compose_tree(self.config)),
            "overrides": list(self.overrides),
            "dtype": self.dtype,
            "hq_mode": self.hq_mode,
            "postprocessing": self.postprocessing,
        }


def _sha256_of_tree(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
