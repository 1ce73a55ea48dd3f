"""One tracked frame as files and numbers: id map, masks of each object, scores, run lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2_hq.data.masks import write_id_map
from sam2_hq.ops.rle import encode
from sam2_hq.structures import ObjectScores, TrackedFrame


def strongest_ids(mask_logits: Tensor, object_ids: list[int]) -> np.ndarray:
    """[H, W] uint8 object ids of logits [O, H, W]; where objects overlap, the larger logit wins."""
    logits, winner = mask_logits.max(dim=0)
    ids = torch.tensor(object_ids, dtype=torch.uint8, device=logits.device)
    return torch.where(logits > 0, ids[winner], 0).cpu().numpy()


def write_frame_masks(
    tracked: TrackedFrame, path: Path, object_path: Callable[[int], Path] | None
) -> None:
    """Write the id map of a frame, and one mask an object where `object_path` says where.

    An object's own mask is whole, also where the id map shows another object in front.
    """
    if object_path is not None:
        for object_id, logits in zip(tracked.obj_ids, tracked.masks[:, 0], strict=True):
            target = object_path(object_id)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_id_map(target, (logits > 0).cpu().numpy().astype(np.uint8) * 255)
    write_id_map(path, strongest_ids(tracked.masks[:, 0], tracked.obj_ids))


def frame_record(tracked: TrackedFrame, name: str, *, with_rle: bool) -> dict[str, Any]:
    """Scores, areas and boxes of a frame as JSON values, and the run lengths under `rle`."""
    masks = (tracked.masks[:, 0] > 0).cpu().numpy()
    objects = dict(zip(tracked.obj_ids, masks, strict=True))
    record: dict[str, Any] = {
        "index": tracked.frame_idx,
        "name": name,
        "objects": {
            str(key): _scores(tracked.scores[key]) | area_and_box(mask)
            for key, mask in objects.items()
        },
    }
    if with_rle:
        record["rle"] = {str(key): encode(mask) for key, mask in objects.items()}
    return record


def area_and_box(mask: np.ndarray) -> dict[str, Any]:
    """Area and COCO's `bbox` (x, y, width, height; null if empty) of a mask [H, W], in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return {"area": 0, "bbox": None}
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
    return {"area": int(mask.sum()), "bbox": box}


def _scores(scores: ObjectScores) -> dict[str, Any]:
    return {"present": scores.object_score > 0} | scores._asdict()
