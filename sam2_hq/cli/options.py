"""What several commands share: the words of their options, and the model that these name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam2_hq.model_spec import ModelSpec
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import HQMode

Checkpoint = Annotated[
    str | None,
    typer.Option(
        help="A .pt or .safetensors file, the name of a bundled or published checkpoint "
        "(sam2.1_hiera_tiny) or a Hugging Face id. Default: the model that comes with the package.",
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


def model_spec(
    checkpoint: str | None,
    config: str | None,
    override: list[str] | None,
    device: str | None,
    dtype: str,
    hq_mode: str | None,
) -> ModelSpec:
    """From the options as Typer hands them over; with post-processing, for people to look at."""
    overrides = tuple(override or ())
    return ModelSpec(checkpoint, config, overrides, device, dtype, hq_mode, postprocessing=True)


def hq_modes(text: str | None, model: SAM2VideoPredictor) -> list[HQMode]:
    """The modes that a comma-separated option names.

    Raises:
        ValueError: for a mode that does not exist, or that a plain model does not have.
    """
    if text is None:
        return ["off", "correct"] if model.is_hq else ["off"]
    names = dict.fromkeys(name.strip() for name in text.split(","))
    return [model.check_hq_mode(name) for name in names]  # type: ignore[arg-type]  # it checks
