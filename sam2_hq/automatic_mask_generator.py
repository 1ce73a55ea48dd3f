"""Everything in a picture: a grid of clicks, and of their masks the good ones, each once.

`sam2_image_predictor.py` decodes, `ops/` crops, measures and encodes. A mask lives as run lengths
from the moment it is accepted; only one batch of masks at a time has pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any  # pictures, records, arguments passed on

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sam2_hq.checks import check_counts, check_numbers
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.ops.candidates import OUTPUT_MODES, PIXELS_AT_ONCE, Candidates, join
from sam2_hq.ops.crops import (
    Box,
    build_all_layer_point_grids,
    generate_crop_boxes,
    is_box_near_crop_edge,
    uncrop_boxes_xyxy,
    uncrop_masks,
    uncrop_points,
)
from sam2_hq.ops.masks import PROMPT_LOGIT_LIMIT, masks_to_boxes, stability_score
from sam2_hq.ops.rle import mask_to_rle_pytorch
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.structures import HQMode
from sam2_hq.transforms import to_rgb_array
from sam2_hq.wording import did_you_mean


class SAM2AutomaticMaskGenerator:
    """Masks of everything in a picture. Holds settings and a predictor, no result.

    Args:
        model: an HQ-SAM 2, SAM 2.1 or SAM 2 model.
        points_per_side: side of the grid of clicks; None with `point_grids`.
        points_per_batch: clicks decoded together.
        pred_iou_thresh: masks stay whose predicted IoU is above; 0 keeps all.
        stability_score_thresh: masks stay whose stability is at least this; 0 keeps all.
        stability_score_offset: logit shift of the stability score.
        mask_threshold: logits above it are foreground.
        box_nms_thresh: box IoU from which the lower-rated mask of a crop is a duplicate.
        crop_n_layers: further looks at 2^i x 2^i crops for i = 1 to this.
        crop_nms_thresh: box IoU from which the mask of the larger crop is a duplicate.
        crop_overlap_ratio: overlap of the crops of layer 1, as a part of the short side, below 1.
        crop_n_points_downscale_factor: the grid side is divided by it from layer to layer.
        point_grids: instead of `points_per_side`, [K, 2] points in 0..1 for each layer.
        min_mask_region_area: holes and islands with fewer image pixels are removed; 0 leaves all.
        output_mode: "binary_mask", "uncompressed_rle" or "coco_rle".
        use_m2m: decode each mask once more with itself as the prompt.
        multimask_output: three masks a click instead of one.
        hq_mode: "off", "correct", "only" or "auto"; None for the model's own.
        coco_boxes: widths and heights count pixels; published ones are one smaller.

    Raises:
        ValueError, TypeError: for an argument that does not fit; the message names it.
    """

    def __init__(
        self,
        model: SAM2Base,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.8,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        mask_threshold: float = 0.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[ArrayLike] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
        use_m2m: bool = False,
        multimask_output: bool = True,
        *,
        hq_mode: HQMode | None = None,
        coco_boxes: bool = False,
    ) -> None:
        if output_mode not in OUTPUT_MODES:
            raise ValueError(f"output_mode must be one of {OUTPUT_MODES}, got {output_mode!r}")
        check_counts({"points_per_batch": points_per_batch}, least=1)
        check_counts({"crop_n_layers": crop_n_layers})
        check_numbers(
            {
                "pred_iou_thresh": pred_iou_thresh,
                "stability_score_thresh": stability_score_thresh,
                "stability_score_offset": stability_score_offset,
                "box_nms_thresh": box_nms_thresh,
                "crop_nms_thresh": crop_nms_thresh,
            }
        )
        check_numbers(
            {
                "crop_overlap_ratio": crop_overlap_ratio,
                "min_mask_region_area": min_mask_region_area,
            },
            least=0,
        )
        if crop_overlap_ratio >= 1:
            raise ValueError(f"crop_overlap_ratio must be below 1, got {crop_overlap_ratio}")
        self.predictor = SAM2ImagePredictor(model, mask_threshold)
        self.predictor.model.check_hq_mode(hq_mode)
        self.hq_mode = hq_mode
        self.point_grids = _point_grids(
            points_per_side, point_grids, crop_n_layers, crop_n_points_downscale_factor
        )
        self.points_per_batch = int(points_per_batch)  # torch splits by nothing else
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.mask_threshold = mask_threshold
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.use_m2m = use_m2m
        self.multimask_output = multimask_output
        self.coco_boxes = coco_boxes

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2AutomaticMaskGenerator:
        """Download a model from the Hugging Face hub.

        `kwargs` that this class does not know go to `build_sam2`.

        Raises:
            TypeError: before the download, for an argument that neither knows.
        """
        # Only this way in needs configs and downloads.
        from sam2_hq.build_sam import build_sam2, build_sam2_hf

        names = inspect.signature(cls).parameters
        known = [*names, *inspect.signature(build_sam2).parameters]
        for name in kwargs:
            if name not in known:
                raise TypeError(
                    f"from_pretrained got an unknown argument {name!r}{did_you_mean(name, known)}"
                )
        own = {name: value for name, value in kwargs.items() if name in names}
        rest = {name: value for name, value in kwargs.items() if name not in names}
        return cls(build_sam2_hf(model_id, **rest), **own)

    @torch.no_grad()
    def generate(
        self, image: Any, *, progress: Callable[[int, int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Find the masks of a picture, best first; with crops those of smaller crops first.

        Args:
            image: RGB uint8 [H, W, 3], a PIL image, or what `to_rgb_array` takes.
            progress: called with the number of clicks decoded and to be decoded.

        Returns:
            One record a mask, none if nothing is found:

            * segmentation: [H, W] bool array, or run lengths as `output_mode` says;
            * area: pixels;
            * bbox: x, y, width, height in image pixels; see `coco_boxes`;
            * predicted_iou, stability_score: 0 to 1;
            * point_coords: [[x, y]] of the click in image pixels;
            * crop_box: x, y, width, height of the crop that the mask was found in.

        Raises:
            TypeError, ValueError: if `image` is no picture.
        """
        candidates = self._find(to_rgb_array(image), progress)
        if self.min_mask_region_area > 0:
            candidates = self.postprocess_small_regions(
                candidates,
                self.min_mask_region_area,
                max(self.box_nms_thresh, self.crop_nms_thresh),
            )
        return list(candidates.records(self.output_mode, self.coco_boxes))

    @staticmethod
    def postprocess_small_regions(
        mask_data: Candidates, min_area: int, nms_thresh: float
    ) -> Candidates:
        """Fill holes and drop islands of less than `min_area` image pixels; see `Candidates`."""
        return mask_data.without_small_regions(min_area, nms_thresh)

    def _find(
        self, image: NDArray[np.uint8], progress: Callable[[int, int], None] | None
    ) -> Candidates:
        size = image.shape[:2]
        crops, layers = generate_crop_boxes(size, self.crop_n_layers, self.crop_overlap_ratio)
        total = sum(len(self.point_grids[layer]) for layer in layers)
        done, found = 0, []
        try:
            for crop, layer in zip(crops, layers, strict=True):
                self.predictor.set_image(image[crop[1] : crop[3], crop[0] : crop[2]])
                parts: list[Candidates] = []
                for grid in self._click_batches(layer):
                    parts += self._decode_clicks(grid, crop, size)
                    done += len(grid)
                    if progress:
                        progress(done, total)
                in_crop = join(parts)
                found.append(in_crop.without_duplicates(in_crop.iou, self.box_nms_thresh))
        finally:
            self.predictor.reset_predictor()
        if len(found) == 1:
            return found[0]
        return join(found).without_crop_duplicates(self.crop_nms_thresh)

    def _mode(self) -> HQMode:
        return self.predictor.model.check_hq_mode(self.hq_mode)

    def _click_batches(self, layer: int) -> Iterator[Tensor]:
        points = torch.as_tensor(
            self.point_grids[layer], dtype=torch.float32, device=self.predictor.device
        )
        yield from points.split(self.points_per_batch)

    def _decode_clicks(
        self, grid: Tensor, crop: Box, image_size: tuple[int, ...]
    ) -> Iterator[Candidates]:
        """Accepted masks of clicks [P, 2] in 0..1 of the crop."""
        clicks = grid * self.predictor.model.image_size
        labels = torch.ones(len(clicks), dtype=torch.int32, device=clicks.device)
        low_res, iou = self.predictor._decode(
            clicks[:, None], labels[:, None], None, None, self.multimask_output, self._mode(), -1
        )
        num_masks = iou.shape[1]
        low_res, iou = low_res.flatten(0, 1), iou.flatten()
        clicks, labels, grid = (t.repeat_interleave(num_masks, 0) for t in (clicks, labels, grid))
        if self.use_m2m:
            low_res, iou = self.refine_with_m2m(clicks, labels, low_res, self.points_per_batch)
        if self.pred_iou_thresh > 0:
            keep = iou > self.pred_iou_thresh
            low_res, iou, grid = low_res[keep], iou[keep], grid[keep]
        at_once = max(1, PIXELS_AT_ONCE // (image_size[0] * image_size[1]))
        chunks = (low_res.split(at_once), iou.split(at_once), grid.split(at_once))
        for logits, ious, points in zip(*chunks, strict=True):
            yield self._accept(logits, ious, points, crop, image_size)

    def refine_with_m2m(
        self,
        points: Tensor,
        point_labels: Tensor,
        low_res_masks: Tensor,
        points_per_batch: int,
    ) -> tuple[Tensor, Tensor]:
        """Decode each click again, together with its own mask.

        Args:
            points: [K, 2] in model pixels.
            point_labels: [K].
            low_res_masks: [K, 4g, 4g] logits.
            points_per_batch: clicks decoded together.

        Returns:
            New logits [K, 4g, 4g] and predicted IoUs [K].
        """
        prompts = (points[:, None], point_labels[:, None], low_res_masks[:, None])
        refined = [
            self.predictor._decode(
                clicks,
                labels,
                None,
                mask.clamp(-PROMPT_LOGIT_LIMIT, PROMPT_LOGIT_LIMIT),
                False,
                self._mode(),
                -1,
            )
            for clicks, labels, mask in zip(
                *(t.split(int(points_per_batch)) for t in prompts), strict=True
            )
        ]
        low_res, iou = map(torch.cat, zip(*refined, strict=True))
        return low_res[:, 0], iou[:, 0]

    def _accept(
        self, low_res: Tensor, iou: Tensor, grid: Tensor, crop: Box, image_size: tuple[int, ...]
    ) -> Candidates:
        """Of logits [K, 4g, 4g], the masks that are stable and not cut off by the crop."""
        height, width = image_size
        crop_size = (crop[3] - crop[1], crop[2] - crop[0])
        transforms = self.predictor._transforms
        logits = transforms.postprocess_masks(low_res[:, None], crop_size)[:, 0]
        stability = stability_score(
            logits, self.mask_threshold, self.stability_score_offset, if_empty=0.0
        )
        masks = logits > self.mask_threshold
        boxes = masks_to_boxes(masks)
        keep = ~is_box_near_crop_edge(boxes, crop, [0, 0, width, height])
        if self.stability_score_thresh > 0:
            keep &= stability >= self.stability_score_thresh
        points = grid[keep] * grid.new_tensor([crop_size[1], crop_size[0]])
        return Candidates(
            rles=mask_to_rle_pytorch(uncrop_masks(masks[keep], crop, height, width)),
            boxes=uncrop_boxes_xyxy(boxes[keep], crop).float(),
            iou=iou[keep],
            stability=stability[keep],
            points=uncrop_points(points, crop),
            crop_boxes=boxes.new_tensor(crop).expand(len(points), 4),
        )


def _point_grids(
    points_per_side: int | None,
    point_grids: Sequence[ArrayLike] | None,
    num_layers: int,
    downscale_factor: int,
) -> list[NDArray[np.float64]]:
    """One [K, 2] grid for the whole image and for each layer of crops."""
    if (points_per_side is None) == (point_grids is None):
        raise ValueError(
            "exactly one of points_per_side and point_grids must be given, "
            f"got {'none' if point_grids is None else 'both'}"
        )
    if point_grids is None:
        assert points_per_side is not None
        check_counts(
            {
                "points_per_side": points_per_side,
                "crop_n_points_downscale_factor": downscale_factor,
            },
            least=1,
        )
        return build_all_layer_point_grids(points_per_side, num_layers, downscale_factor)
    grids = [np.asarray(grid, dtype=np.float64) for grid in point_grids]
    if len(grids) <= num_layers:
        raise ValueError(f"point_grids must hold {num_layers + 1} grids, got {len(grids)}")
    for grid in grids:
        if grid.ndim != 2 or grid.shape[1] != 2 or not len(grid):
            raise ValueError(f"point_grids must hold [K, 2] grids, got {list(grid.shape)}")
        if not ((grid >= 0) & (grid <= 1)).all():
            raise ValueError("point_grids must lie in 0..1")
    return grids
