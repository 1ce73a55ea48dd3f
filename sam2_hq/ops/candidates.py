"""The masks that the mask generator has accepted: join, sort out, clean, hand over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple  # Any: the published records

import numpy as np
import torch
from torch import Tensor

from sam2_hq.ops.crops import box_xyxy_to_xywh
from sam2_hq.ops.masks import masks_to_boxes, remove_small_regions
from sam2_hq.ops.rle import RLE, area_from_rle, coco_encode_rle, mask_to_rle_pytorch, rle_to_mask

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")
PIXELS_AT_ONCE = 2**26
"""Pixels of full-size masks in memory at a time: as logits 256 MiB."""


class Candidates(NamedTuple):
    """K masks of one picture, in its pixels.

    rles: K plain run lengths.
    boxes: [K, 4] float x0, y0, x1, y1, inclusive.
    iou: [K] predicted IoU.
    stability: [K].
    points: [K, 2] the click that gave each.
    crop_boxes: [K, 4] int64, the crop that each was found in.
    """

    rles: list[RLE]
    boxes: Tensor
    iou: Tensor
    stability: Tensor
    points: Tensor
    crop_boxes: Tensor

    def take(self, rows: Tensor) -> Candidates:
        """The rows of an index tensor, in its order."""
        rles = [self.rles[row] for row in rows.tolist()]
        return Candidates(rles, *(column[rows] for column in self[1:]))

    def without_duplicates(self, scores: Tensor, max_iou: float) -> Candidates:
        """Of masks whose boxes overlap by more than `max_iou` the best; best first."""
        return self.take(_nms(self.boxes, scores, max_iou))

    def without_crop_duplicates(self, max_iou: float) -> Candidates:
        """Of masks found in several crops, the one of the smallest crop; smallest crop first."""
        sides = box_xyxy_to_xywh(self.crop_boxes)[:, 2:].float()
        return self.without_duplicates(1.0 / sides.prod(dim=1), max_iou)

    def without_small_regions(self, min_area: int, max_iou: float) -> Candidates:
        """Holes and islands of less than `min_area` pixels removed, and new duplicates with them.

        Of duplicates those go first that the clean-up changed. The order stays.
        """
        if not self.rles:
            return self
        height, width = self.rles[0]["size"]
        at_once = max(1, PIXELS_AT_ONCE // (height * width))
        rles: list[RLE] = []
        boxes, changed = [], []
        for start in range(0, len(self.rles), at_once):
            decoded = [rle_to_mask(rle) for rle in self.rles[start : start + at_once]]
            masks = torch.from_numpy(np.stack(decoded)).to(self.boxes.device)
            cleaned = remove_small_regions(masks, min_area)
            rles += mask_to_rle_pytorch(cleaned)
            boxes.append(masks_to_boxes(cleaned).float())
            changed.append((cleaned != masks).flatten(1).any(dim=1))
        clean = self._replace(rles=rles, boxes=torch.cat(boxes))
        keep = _nms(clean.boxes, 1.0 - torch.cat(changed).float(), max_iou)
        return clean.take(keep.sort().values)

    def records(self, output_mode: str, coco_boxes: bool) -> Iterator[dict[str, Any]]:
        """One published record a mask; see `SAM2AutomaticMaskGenerator.generate`."""
        boxes = box_xyxy_to_xywh(self.boxes)
        crops = box_xyxy_to_xywh(self.crop_boxes).float()
        numbers = (boxes, self.iou, self.stability, self.points, crops)
        columns = (column.tolist() for column in numbers)
        for rle, box, iou, stability, point, crop in zip(self.rles, *columns, strict=True):
            area = area_from_rle(rle)
            extra = 1 if coco_boxes and area > 0 else 0
            yield {
                "segmentation": _segmentation(rle, output_mode),
                "area": area,
                "bbox": [box[0], box[1], box[2] + extra, box[3] + extra],
                "predicted_iou": iou,
                "point_coords": [point],
                "stability_score": stability,
                "crop_box": crop,
            }


def join(parts: Sequence[Candidates]) -> Candidates:
    """All rows of one or more parts."""
    rles = [rle for part in parts for rle in part.rles]
    return Candidates(rles, *map(torch.cat, zip(*(part[1:] for part in parts), strict=True)))


def _segmentation(rle: RLE, output_mode: str) -> np.ndarray | RLE:
    if output_mode == "binary_mask":
        return rle_to_mask(rle)
    return rle if output_mode == "uncompressed_rle" else coco_encode_rle(rle)


def _nms(boxes: Tensor, scores: Tensor, max_iou: float) -> Tensor:
    """`torchvision.ops.nms`, for which boxes of one pixel's width are no boxes without area."""
    from torchvision.ops import nms  # brings the compiler: a second of every other command

    corners, sides = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    wide = torch.cat([corners, corners + torch.where(sides == 0, 1.0, sides)], dim=1)
    return nms(wide, scores, max_iou)
