"""What several commands share: the words of their options, and how a model is opened from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from sam2_hq.build_sam import load
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import HQ_MODES, HQMode

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Checkpoint = Annotated[
    str | None,
    typer.Option(
        help="A .pt or .safetensors file, a published name (sam2.1_hiera_tiny) or a Hugging Face "
        "id. Default: the model that comes with the package.",
        show_default=False,
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        help="A packaged config (sam2.1_hq_hiera_l) or a YAML file. Default: recognised from the "
        "checkpoint.",
        show_default=False,
    ),
]
Override = Annotated[
    list[str] | None,
    typer.Option(help="A config override such as ++model.image_size=512. Repeatable."),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:1 or mps. Default: CUDA if there is one, else MPS, else the CPU.",
        show_default=False,
    ),
]
DType = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16 (autocast).")]
HQModeOption = Annotated[
    str | None,
    typer.Option(
        "--hq-mode",
        help="off: the SAM mask; correct: SAM + HQ; only: the HQ mask; auto: the better of off and "
        "correct for each object. Default: correct for an HQ model, off for a plain one.",
        show_default=False,
    ),
]
HQModesOption = Annotated[
    str | None,
    typer.Option(
        "--hq-mode",
        help="One or more of off, correct, only and auto, such as off,correct; all are scored in "
        "one run and compared with the first. Default: off,correct for an HQ model, off for a "
        "plain one.",
        show_default=False,
    ),
]
BoundaryRatio = Annotated[
    float,
    typer.Option(
        help="Width of the band of boundary IoU, as a share of the picture's diagonal.", min=1e-4
    ),
]
Points = Annotated[
    list[str] | None,
    typer.Option(
        "--point",
        help="A click, [ID][@FRAME]:x,y[,label] in pixels, label 1 on the object, 0 beside it. "
        "Without ID: object 1; without FRAME: frame 0. Example: 2@10:320,200. Repeatable.",
    ),
]
Boxes = Annotated[
    list[str] | None,
    typer.Option(
        "--box",
        help="A box around an object, [ID][@FRAME]:x0,y0,x1,y1 in pixels. Repeatable.",
    ),
]
Masks = Annotated[
    list[str] | None,
    typer.Option(
        "--mask",
        help="A PNG of object ids, PATH or PATH@FRAME; every id becomes an object. A black and "
        "white picture is a mask of object 1. Repeatable.",
    ),
]
PromptsFile = Annotated[
    Path | None,
    typer.Option("--prompts", help="A JSON file of prompts (docs/prompts.md).", show_default=False),
]
Overlay = Annotated[
    bool,
    typer.Option("--overlay/--no-overlay", help="Also write the masks painted over the input."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run wrote.")]


@dataclass(frozen=True)
class ModelChoice:
    """Which model to open and how to run it.

    Raises:
        ValueError: for a `dtype` or `hq_mode` that does not exist.
    """

    checkpoint: str | None
    config: str | None
    overrides: tuple[str, ...]
    device: str | None
    dtype: str
    hq_mode: str | None

    @classmethod
    def of(
        cls,
        checkpoint: str | None,
        config: str | None,
        override: list[str] | None,
        device: str | None,
        dtype: str,
        hq_mode: str | None,
    ) -> ModelChoice:
        """From the options as Typer hands them over."""
        return cls(checkpoint, config, tuple(override or ()), device, dtype, hq_mode)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.hq_mode is not None and self.hq_mode not in HQ_MODES:
            raise ValueError(
                f"--hq-mode must be one of {', '.join(HQ_MODES)}, got {self.hq_mode!r}"
            )


def open_model(choice: ModelChoice, *, vos_optimized: bool = False) -> SAM2VideoPredictor:
    """Build and load the chosen model; `vos_optimized` compiles it.

    Raises:
        ValueError: if the checkpoint, config, override, device or HQ mode cannot be had.
    """
    predictor = load(
        choice.checkpoint,
        config=choice.config,
        device=choice.device,
        hydra_overrides_extra=list(choice.overrides),
        vos_optimized=vos_optimized,
    )
    if choice.hq_mode is not None:
        predictor.hq_mode = choice.hq_mode  # type: ignore[assignment]  # checked by the setter
    return predictor


def hq_modes(text: str | None, model: SAM2VideoPredictor) -> list[HQMode]:
    """The modes that a comma-separated option names.

    Raises:
        ValueError: for a mode that does not exist, or that a plain model does not have.
    """
    if text is None:
        return ["off", "correct"] if model.is_hq else ["off"]
    names = dict.fromkeys(name.strip() for name in text.split(","))
    return [model.check_hq_mode(name) for name in names]  # type: ignore[arg-type]  # it checks


@contextmanager
def running_in(choice: ModelChoice, device: torch.device) -> Iterator[None]:
    """Run the model in the chosen precision; results stay float32."""
    dtype = DTYPES[choice.dtype]
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        yield
