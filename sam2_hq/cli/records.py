"""One tracked frame as files and numbers: id map, masks of each object, scores, run lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sam2_hq.data.masks import merge_masks, write_id_map, write_object_masks
from sam2_hq.evaluation.clicks import box_around
from sam2_hq.ops.rle import coco_encode_rle, mask_to_rle_pytorch
from sam2_hq.structures import ObjectScores, TrackedFrame


def write_frame_masks(tracked: TrackedFrame, path: Path, objects: Path | None) -> None:
    """Write the id map of a frame to `path`, and into the folder `objects` one mask an object.

    An object's own mask is whole, also where the id map shows another object in front.
    """
    logits = dict(zip(tracked.obj_ids, tracked.masks[:, 0].cpu().numpy(), strict=True))
    if objects is not None:
        masks = {key: own > 0 for key, own in logits.items()}
        write_object_masks(objects, path.stem, masks)
    write_id_map(path, merge_masks(logits))


def frame_record(tracked: TrackedFrame, name: str, *, with_rle: bool) -> dict[str, Any]:
    """Scores, areas and boxes of a frame as JSON values, and the run lengths under `rle`."""
    masks = tracked.masks[:, 0] > 0
    objects = dict(zip(tracked.obj_ids, masks.cpu().numpy(), strict=True))
    record: dict[str, Any] = {
        "index": tracked.frame_idx,
        "name": name,
        "objects": {
            str(key): _scores(tracked.scores[key]) | area_and_box(mask)
            for key, mask in objects.items()
        },
    }
    if with_rle:
        lengths = [coco_encode_rle(rle) for rle in mask_to_rle_pytorch(masks)]
        record["rle"] = {str(key): rle for key, rle in zip(objects, lengths, strict=True)}
    return record


def area_and_box(mask: np.ndarray) -> dict[str, Any]:
    """Area and COCO's `bbox` (x, y, width, height; null if empty) of a mask [H, W], in pixels."""
    if not mask.any():
        return {"area": 0, "bbox": None}
    x0, y0, x1, y1 = box_around(mask)
    return {"area": int(mask.sum()), "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1]}


def _scores(scores: ObjectScores) -> dict[str, Any]:
    return {"present": scores.object_score > 0} | scores._asdict()
