"""`sam2-hq everything`: all masks of one picture, without a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from sam2_hq.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2_hq.cli.files import check_not_read, read_picture_file, write_png
from sam2_hq.cli.options import (
    Checkpoint,
    Config,
    Device,
    DType,
    HQModeOption,
    Overlay,
    Override,
    Overwrite,
    model_spec,
)
from sam2_hq.data.atomic import write_json
from sam2_hq.data.masks import MAX_ID, write_id_map
from sam2_hq.ops.rle import rle_to_mask
from sam2_hq.visualization import overlay as paint

OUR_FILES = ("masks.png", "masks.json", "overlay.png")


def everything(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for masks.png (the id map; 16 bits above 255 masks), masks.json and "
            "overlay.png.",
            show_default=False,
        ),
    ],
    points_per_side: Annotated[int, typer.Option(help="Clicks along a side of the picture.")] = 32,
    points_per_batch: Annotated[int, typer.Option(help="Clicks decoded together.")] = 64,
    pred_iou_thresh: Annotated[
        float, typer.Option(help="Keep masks rated above this, 0 to 1.")
    ] = 0.8,
    stability_score_thresh: Annotated[
        float, typer.Option(help="Keep masks at least this stable, 0 to 1.")
    ] = 0.95,
    box_nms_thresh: Annotated[
        float, typer.Option(help="Drop the lower rated of two masks whose boxes overlap more.")
    ] = 0.7,
    crop_n_layers: Annotated[
        int, typer.Option(help="Layers of crops that are searched too, for small things.")
    ] = 0,
    min_mask_region_area: Annotated[
        int, typer.Option(help="Fill holes and drop islands smaller than this, in pixels.")
    ] = 0,
    checkpoint: Checkpoint = None,
    config: Config = None,
    override: Override = None,
    device: Device = None,
    dtype: DType = "float32",
    hq_mode: HQModeOption = None,
    overlay: Overlay = True,
    overwrite: Overwrite = False,
) -> None:
    """Find all masks of one picture, by clicking on a grid."""
    choice = model_spec(checkpoint, config, override, device, dtype, hq_mode)
    _check_folder(out, overwrite=overwrite)
    for name in OUR_FILES:
        check_not_read(out / name, image)
    picture = read_picture_file(image)
    predictor = choice.open()
    generator = SAM2AutomaticMaskGenerator(
        predictor,
        points_per_side=points_per_side,
        points_per_batch=points_per_batch,
        pred_iou_thresh=pred_iou_thresh,
        stability_score_thresh=stability_score_thresh,
        box_nms_thresh=box_nms_thresh,
        crop_n_layers=crop_n_layers,
        min_mask_region_area=min_mask_region_area,
        output_mode="coco_rle",
    )
    with choice.running_on(predictor.device):
        records = generator.generate(picture)
    _write(out, image, picture, records, overlay=overlay)
    if not records:
        typer.echo(
            "sam2-hq: no mask was sure enough; lower --pred-iou-thresh or --stability-score-thresh",
            err=True,
        )
    typer.echo(f"{len(records)} masks in {out}")


def paint_ids(records: list[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """[height, width] uint16: number k, from 1, where `records[k - 1]` is the smallest mask."""
    id_map = np.zeros(size, dtype=np.uint16)
    for index in sorted(range(len(records)), key=lambda k: records[k]["area"], reverse=True):
        id_map[rle_to_mask(records[index]["segmentation"])] = index + 1
    return id_map


def _check_folder(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, {out} is a file")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"--out {out} is not empty; --overwrite replaces what is there")


def _write(
    out: Path, image: Path, picture: np.ndarray, records: list[dict[str, Any]], *, overlay: bool
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in OUR_FILES:
        (out / name).unlink(missing_ok=True)
    id_map = paint_ids(records, picture.shape[:2])
    if len(records) <= MAX_ID:
        write_id_map(out / "masks.png", id_map.astype(np.uint8))
    else:
        write_png(out / "masks.png", id_map)
    if overlay:
        write_png(out / "overlay.png", paint(picture, id_map))
    write_json(out / "masks.json", {"version": 1, "image": image.name, "masks": records})
