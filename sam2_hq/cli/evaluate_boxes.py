"""`sam2-hq evaluate-boxes`: masks from a detector's boxes, scored as COCO and LVIS do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from tqdm import tqdm

from sam2_hq.cli.files import check_all_free
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
from sam2_hq.data.pictures import read_picture
from sam2_hq.evaluation.coco_boxes import (
    Results,
    ScoreKind,
    Truth,
    picture_files,
    read_detections,
    read_truth,
    scored,
    segment_boxes,
)
from sam2_hq.evaluation.detection_ap import Precision, average_precision, check_pycocotools
from sam2_hq.evaluation.metrics import BOUNDARY_IOU_RATIO
from sam2_hq.evaluation.mode_tables import side_by_side
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.structures import HQMode


def evaluate_boxes(
    gt: Annotated[
        Path,
        typer.Argument(
            metavar="GT", help="Annotations: a JSON file in the format of COCO or LVIS."
        ),
    ],
    detections: Annotated[
        Path,
        typer.Argument(
            metavar="DETECTIONS",
            help="A detector's results: a JSON list of image_id, category_id, bbox (x, y, width, "
            "height in pixels) and score.",
        ),
    ],
    images: Annotated[Path, typer.Option(help="The folder of the pictures.", show_default=False)],
    hq_mode: HQModesOption = None,
    multimask: Annotated[
        bool,
        typer.Option(
            "--multimask/--single-mask",
            help="Let the model propose three masks a box and take the one it rates best.",
        ),
    ] = False,
    score: Annotated[
        str,
        typer.Option(
            help="What ranks the masks: detector (its score) or product (that times the IoU that "
            "the model expects)."
        ),
    ] = "detector",
    max_boxes: Annotated[
        int | None,
        typer.Option(
            help="The best so many boxes of a picture. Default: 100; for LVIS 300.",
            min=1,
            show_default=False,
        ),
    ] = None,
    class_agnostic: Annotated[
        bool, typer.Option("--class-agnostic", help="Score as if there were one category.")
    ] = False,
    boundary_ratio: BoundaryRatio = BOUNDARY_IOU_RATIO,
    checkpoint: Checkpoint = None,
    config: Config = None,
    override: Override = None,
    device: Device = None,
    dtype: DType = "float32",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all scores here, from 0 to 1.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="An existing folder for MODE.json: the masks as COCO tools read them.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a detector's boxes into masks and score them: AP and boundary AP, by HQ mode."""
    choice = model_spec(checkpoint, config, override, device, dtype, None)
    if score not in get_args(ScoreKind):
        raise ValueError(f"--score must be one of {', '.join(get_args(ScoreKind))}, got {score!r}")
    check_pycocotools()
    truth = read_truth(gt)
    boxes = read_detections(detections, truth, max_boxes=max_boxes)
    files = picture_files(truth, list(boxes), images)
    model = choice.open()
    modes = hq_modes(hq_mode, model)
    kept = {mode: results / f"{mode}.json" for mode in modes} if results is not None else {}
    check_all_free(
        {"--json": json_file, **{f"--results ({mode})": file for mode, file in kept.items()}},
        overwrite,
    )
    predictor = SAM2ImagePredictor(model)
    with choice.running_on(model.device):
        found = _segment(predictor, truth, boxes, files, modes, multimask)
    found = {mode: scored(masks, cast("ScoreKind", score)) for mode, masks in found.items()}
    for mode, file in kept.items():
        write_json(file, found[mode])
    report = {}
    for kind, ratio in (("mask", None), ("boundary", boundary_ratio)):
        precisions = {
            mode: average_precision(
                truth, masks, boundary_ratio=ratio, class_agnostic=class_agnostic
            )
            for mode, masks in found.items()
        }
        typer.echo(_table(kind, precisions))
        report[kind] = {mode: precision.to_json() for mode, precision in precisions.items()}
    if json_file is not None:
        asked = {
            "score": score,
            "multimask": multimask,
            "boundary_ratio": boundary_ratio,
            "class_agnostic": class_agnostic,
            "boxes": sum(map(len, boxes.values())),
        }
        write_json(json_file, {**asked, **report})


def _segment(
    predictor: SAM2ImagePredictor,
    truth: Truth,
    boxes: dict[int, Results],
    files: dict[int, Path],
    modes: Sequence[HQMode],
    multimask: bool,
) -> dict[HQMode, Results]:
    found: dict[HQMode, Results] = {mode: [] for mode in modes}
    images = truth.images
    for image_id, detections in tqdm(boxes.items(), desc="segmenting", unit="picture"):
        picture = read_picture(files[image_id], f"image '{files[image_id]}'")
        wanted = [images[image_id]["height"], images[image_id]["width"]]
        if list(picture.shape[:2]) != wanted:
            raise ValueError(
                f"image '{files[image_id]}' is {list(picture.shape[:2])}, "
                f"the annotations say {wanted} (height, width)"
            )
        masks = segment_boxes(predictor, picture, detections, hq_modes=modes, multimask=multimask)
        for mode in modes:
            found[mode] += masks[mode]
    return found


def _table(kind: str, precisions: dict[HQMode, Precision]) -> str:
    return side_by_side(
        f"{kind}, hq mode", {mode: precision.summary for mode, precision in precisions.items()}
    )
