"""`sam2-hq evaluate-stills`: pictures with one mask each, as HQ-SAM is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from sam2_hq.cli.files import check_free
from sam2_hq.cli.options import (
    BoundaryRatio,
    Checkpoint,
    Config,
    Device,
    DType,
    HQModesOption,
    Override,
    Overwrite,
    hq_modes,
    model_spec,
)
from sam2_hq.data.atomic import write_json
from sam2_hq.evaluation.metrics import BOUNDARY_IOU_RATIO
from sam2_hq.evaluation.mode_tables import side_by_side
from sam2_hq.evaluation.still_scores import find_stills, score_stills
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor


def evaluate_stills(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder of pictures.")],
    masks: Annotated[
        Path,
        typer.Argument(
            metavar="MASKS", help="A folder with NAME.png for each: foreground above 128, or 1."
        ),
    ],
    hq_mode: HQModesOption = None,
    boundary_ratio: BoundaryRatio = BOUNDARY_IOU_RATIO,
    checkpoint: Checkpoint = None,
    config: Config = None,
    override: Override = None,
    device: Device = None,
    dtype: DType = "float32",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all scores here, from 0 to 1.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Segment each picture from the box of its mask: mIoU and mBIoU, by HQ mode."""
    choice = model_spec(checkpoint, config, override, device, dtype, None)
    stills = find_stills(images, masks)
    if json_file is not None:
        check_free(json_file, overwrite=overwrite)
    model = choice.open()
    modes = hq_modes(hq_mode, model)
    with choice.running_on(model.device):
        scores = score_stills(
            SAM2ImagePredictor(model),
            tqdm(stills, desc="segmenting", unit="picture"),
            modes,
            ratio=boundary_ratio,
        )
    report = scores.to_json()
    typer.echo(side_by_side("hq mode", report["means"]))
    for mode in modes[1:]:
        for name, gain in report["gains"][mode].items():
            typer.echo(
                f"{mode} over {modes[0]}: {name} {100 * gain['mean']:+.2f} "
                f"(95 % between {100 * gain['low']:+.2f} and {100 * gain['high']:+.2f})"
            )
    if scores.empty:
        typer.echo(f"sam2-hq: without foreground, left out: {', '.join(scores.empty)}", err=True)
    if json_file is not None:
        write_json(json_file, {"boundary_ratio": boundary_ratio, **report})
