"""`sam2-hq segment`: cut objects out of one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer

from sam2_hq.cli.files import check_not_read, read_picture_file, write_png
from sam2_hq.cli.options import (
    Boxes,
    Checkpoint,
    Config,
    Device,
    DType,
    HQModeOption,
    Masks,
    Overlay,
    Override,
    Overwrite,
    Points,
    PromptsFile,
    model_spec,
)
from sam2_hq.cli.prompt_text import gather_prompts
from sam2_hq.cli.prompts import ObjectPrompt, PaintedMask, check_prompts
from sam2_hq.cli.records import area_and_box
from sam2_hq.data.atomic import write_json
from sam2_hq.data.masks import merge_masks, write_id_map
from sam2_hq.ops.masks import certain_logits
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.visualization import overlay as paint


def segment(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The mask PNG, ids in the DAVIS palette; NAME.json with the scores and "
            "NAME_overlay.png stand beside it.",
            show_default=False,
        ),
    ],
    point: Points = None,
    box: Boxes = None,
    mask: Masks = None,
    prompts: PromptsFile = None,
    multimask: Annotated[
        bool,
        typer.Option(
            "--multimask/--single-mask",
            help="Let the model propose three masks an object and take the one it rates best.",
        ),
    ] = False,
    checkpoint: Checkpoint = None,
    config: Config = None,
    override: Override = None,
    device: Device = None,
    dtype: DType = "float32",
    hq_mode: HQModeOption = None,
    overlay: Overlay = True,
    overwrite: Overwrite = False,
) -> None:
    """Cut objects out of one picture.

    From clicks, boxes or masks in its pixels. A mask is a first guess that the model improves.
    Clicks and a box of one object may be combined.
    """
    choice = model_spec(checkpoint, config, override, device, dtype, hq_mode)
    said = gather_prompts(point, box, mask, prompts)
    paths = _paths(out, overwrite=overwrite)
    for path in paths.values():
        check_not_read(path, image, prompts)
    picture = read_picture_file(image)
    check_prompts(said, 1, picture.shape[:2])
    predictor = SAM2ImagePredictor(choice.open())
    with choice.running_on(predictor.device):
        predictor.set_image(picture)
        answers = {p.object_id: _ask(predictor, p, multimask) for p in said}
    id_map = merge_masks({key: logits for key, (logits, _) in answers.items()})
    out.parent.mkdir(parents=True, exist_ok=True)
    if overlay:
        write_png(paths["overlay"], paint(picture, id_map))
    else:
        paths["overlay"].unlink(missing_ok=True)  # of the mask that is replaced
    write_json(paths["scores"], _scores(image, answers))
    write_id_map(out, id_map)
    typer.echo(f"{len(answers)} objects in {out}")


def _paths(out: Path, *, overwrite: bool) -> dict[str, Path]:
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out must be a .png file, got {out}")
    paths = {
        "mask": out,
        "scores": out.with_suffix(".json"),
        "overlay": out.with_name(f"{out.stem}_overlay.png"),
    }
    for path in paths.values():
        if path.is_dir():
            raise ValueError(f"cannot write '{path}': it is a folder")
    there = [path for path in paths.values() if path.exists()]
    if there and not overwrite:
        raise ValueError(f"{there[0]} is already there; --overwrite replaces it")
    return paths


def _ask(
    predictor: SAM2ImagePredictor, prompt: ObjectPrompt, multimask: bool
) -> tuple[np.ndarray, list[float]]:
    """Logits [H, W] of the best mask, and the predicted IoU of every candidate, best first."""
    if isinstance(prompt, PaintedMask):
        said: dict[str, Any] = {"mask_input": _as_logits(prompt.mask, predictor)}
    else:
        said = {
            "point_coords": np.array(prompt.points) if prompt.points else None,
            "point_labels": np.array(prompt.labels) if prompt.points else None,
            "box": None if prompt.box is None else np.array(prompt.box),
        }
    logits, iou, _ = predictor.predict(**said, multimask_output=multimask, return_logits=True)
    order = np.argsort(-iou)
    return logits[order[0]], iou[order].tolist()


def _as_logits(mask: np.ndarray, predictor: SAM2ImagePredictor) -> np.ndarray:
    """A painted mask as the low-resolution logits that the model takes, [1, S/4, S/4]."""
    side = predictor.model.image_size // 4
    values = torch.from_numpy(mask)[None, None].float()
    small = F.interpolate(values, (side, side), mode="bilinear", antialias=True)[0]
    return certain_logits(small).numpy()  # as for a mask prompt in a video


def _scores(image: Path, answers: dict[int, tuple[np.ndarray, list[float]]]) -> dict[str, Any]:
    objects = {
        str(object_id): {"iou": iou[0], "candidates": iou} | area_and_box(logits > 0)
        for object_id, (logits, iou) in answers.items()
    }
    return {"version": 1, "image": image.name, "objects": objects}
