"""Masks on a still picture, from clicks, boxes and earlier masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sam2_hq import prompts
from sam2_hq.checks import check_numbers
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.ops.masks import PROMPT_LOGIT_LIMIT
from sam2_hq.structures import FrameFeatures, HQMode, PointPrompt
from sam2_hq.transforms import SAM2Transforms, to_rgb_array
from sam2_hq.zoom_in import look_again, low_res_with

ENCODER_BATCH = 8  # pictures a pass of the encoder


class SAM2ImagePredictor:
    """Set a picture once, then ask for masks as often as you like.

    Args:
        sam_model: an HQ-SAM 2, SAM 2.1 or SAM 2 model (a video predictor is one, too).
        mask_threshold: logits above it are foreground.
        max_hole_area: holes up to this many pixels of the S/4 map are filled; 0 leaves all.
        max_sprinkle_area: islands up to this many pixels of the S/4 map are dropped; 0 leaves all.
    """

    _features: dict[str, Any]  # the published layout, see `_encode`
    _orig_hw: list[tuple[int, int]]
    _images: list[np.ndarray]  # none where the model looks once
    _is_image_set: bool
    _is_batch: bool
    _num_loads: int  # of weights, when the picture was encoded

    def __init__(
        self,
        sam_model: SAM2Base,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
    ) -> None:
        if isinstance(sam_model, DistributedDataParallel):
            sam_model = sam_model.module
        if not isinstance(sam_model, SAM2Base):
            raise TypeError(f"sam_model must be a SAM2Base, got {type(sam_model).__name__}")
        _check_options(mask_threshold, max_hole_area, max_sprinkle_area)
        self.model = sam_model
        self.mask_threshold = mask_threshold
        self._transforms = SAM2Transforms(
            sam_model.image_size, mask_threshold, max_hole_area, max_sprinkle_area
        )
        grid = sam_model.grid_size
        self._bb_feat_sizes = [(4 * grid, 4 * grid), (2 * grid, 2 * grid), (grid, grid)]
        self.reset_predictor()

    @classmethod
    def from_pretrained(
        cls,
        model_id: str,
        *,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        **kwargs: Any,
    ) -> SAM2ImagePredictor:
        """Download a model from the Hugging Face hub; `kwargs` go to `build_sam2`."""
        _check_options(mask_threshold, max_hole_area, max_sprinkle_area)  # before the download
        from sam2_hq.build_sam import build_sam2_hf  # the builder stands above this file

        model = build_sam2_hf(model_id, **kwargs)
        return cls(model, mask_threshold, max_hole_area, max_sprinkle_area)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    # ------------------------------------------------------------ pictures

    def set_image(self, image: Any) -> None:
        """Encode one picture: RGB uint8 [H, W, 3], a PIL image, or what `to_rgb_array` takes.

        Raises:
            TypeError, ValueError: if it is no picture; then no picture is set.
        """
        self.reset_predictor()
        self._encode([to_rgb_array(image)])
        self._is_image_set = True

    def set_image_batch(self, image_list: Sequence[Any]) -> None:
        """Encode several pictures, of any sizes, for `predict_batch`."""
        self.reset_predictor()
        if not isinstance(image_list, (list, tuple)) or not image_list:
            raise ValueError("image_list must be a list of one or more pictures")
        self._encode([to_rgb_array(image) for image in image_list])
        self._is_image_set = self._is_batch = True

    @torch.no_grad()
    def _encode(self, images: list[np.ndarray]) -> None:
        parts = []
        for start in range(0, len(images), ENCODER_BATCH):
            pixels = self._transforms.forward_batch(
                images[start : start + ENCODER_BATCH], self.device
            )
            features = self.model.encode_image(pixels)
            parts.append((self.model.condition_still(features), *features.high_res))
        embedding, *high_res = (torch.cat(maps) for maps in zip(*parts, strict=True))
        self._features = {"image_embed": embedding, "high_res_feats": high_res}
        self._orig_hw = [(image.shape[0], image.shape[1]) for image in images]
        self._images = images if self.model.zoom_in is not None else []
        self._num_loads = self.model.num_loads

    def get_image_embedding(self) -> Tensor:
        """Embedding [B, C, g, g] of the picture or pictures set."""
        self._check_image_set()
        return self._features["image_embed"]

    def reset_predictor(self) -> None:
        """Forget the pictures."""
        self._features = {}
        self._orig_hw = []
        self._images = []
        self._is_image_set = False
        self._is_batch = False
        self._num_loads = self.model.num_loads

    def _check_image_set(self) -> None:
        if not self._is_image_set:
            raise RuntimeError("no image is set: call set_image or set_image_batch first")
        if self._num_loads != self.model.num_loads:
            raise RuntimeError("the model got other weights since: set the image again")

    # ---------------------------------------------------------- prediction

    def predict(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        box: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        *,
        hq_token_only: bool = False,
        return_logits: bool = False,
        normalize_coords: bool = True,
        hq_mode: HQMode | None = None,
        keep_prompt_axis: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks for one prompt, or for N prompts at once.

        The two published packages disagree on the sixth positional argument, so from there on all
        are keyword-only.

        Args:
            point_coords: [P, 2] or [N, P, 2] x, y in pixels of the picture.
            point_labels: [P] or [N, P]; 1 foreground, 0 background, -1 padding.
            box: (4,) or [N, 4] x0, y0, x1, y1 in pixels of the picture.
            mask_input: [1, 4g, 4g] or [N, 1, 4g, 4g] logits returned by an earlier call.
            multimask_output: three candidates for an ambiguous prompt instead of one.
            hq_token_only: the published name of `hq_mode="only"`.
            return_logits: logits instead of bool masks.
            normalize_coords: coordinates are in pixels; False: in 0..1.
            hq_mode: "off", "correct", "only" or "auto"; None for the model's own.
            keep_prompt_axis: keep the axis of prompts also when there is one prompt.

        Returns:
            masks: [M, H, W] (N prompts: [N, M, H, W]) bool, or float32 logits.
            iou: [M] predicted IoU of the SAM masks, as the first look gave it.
            low_res: [M, 4g, 4g] logits in -32..32, to be fed back as `mask_input`.

        Raises:
            RuntimeError: if no picture is set, or the model got other weights since.
            ValueError: for a prompt that does not fit; the message names it.
        """
        self._check_image_set()
        if self._is_batch:
            raise RuntimeError("a batch of images is set: use predict_batch, or set_image")
        return self._predict_arrays(
            (point_coords, point_labels, box, mask_input),
            0,
            multimask_output=multimask_output,
            hq_mode=self.model.check_hq_mode(hq_mode, hq_token_only),
            return_logits=return_logits,
            normalize_coords=normalize_coords,
            keep_prompt_axis=keep_prompt_axis,
        )

    def predict_batch(
        self,
        point_coords_batch: Iterable[Any] | None = None,
        point_labels_batch: Iterable[Any] | None = None,
        box_batch: Iterable[Any] | None = None,
        mask_input_batch: Iterable[Any] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
        *,
        hq_token_only: bool = False,
        hq_mode: HQMode | None = None,
        keep_prompt_axis: bool = False,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """`predict` for every picture of `set_image_batch`, one entry of each list a picture."""
        self._check_image_set()
        if not self._is_batch:
            raise RuntimeError("one image is set: use predict, or set_image_batch")
        mode = self.model.check_hq_mode(hq_mode, hq_token_only)
        given = {
            "point_coords_batch": point_coords_batch,
            "point_labels_batch": point_labels_batch,
            "box_batch": box_batch,
            "mask_input_batch": mask_input_batch,
        }
        count = len(self._orig_hw)
        columns = [_one_a_picture(name, values, count) for name, values in given.items()]
        results = [
            self._predict_arrays(
                prompt,
                i,
                multimask_output=multimask_output,
                hq_mode=mode,
                return_logits=return_logits,
                normalize_coords=normalize_coords,
                keep_prompt_axis=keep_prompt_axis,
            )
            for i, prompt in enumerate(zip(*columns, strict=True))
        ]
        masks, ious, low_res = zip(*results, strict=True)
        return list(masks), list(ious), list(low_res)

    def _predict_arrays(
        self,
        prompt: tuple[Any, Any, Any, Any],
        img_idx: int,
        *,
        multimask_output: bool,
        hq_mode: HQMode,
        return_logits: bool,
        normalize_coords: bool,
        keep_prompt_axis: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mask_input, coords, labels, corners = self._prep_prompts(*prompt, normalize_coords, img_idx)
        masks, iou, low_res = self._predict(
            coords,
            labels,
            corners,
            mask_input,
            multimask_output,
            return_logits=True,
            img_idx=img_idx,
            hq_mode=hq_mode,
        )
        if self.model.zoom_in is not None:
            if not self._images:
                raise RuntimeError("the model zooms in since: set the image again")
            points = _as_point_prompt(coords, labels, corners)
            self._look_again(masks, iou, low_res, points, self.model.zoom_in, hq_mode, img_idx)
        if not return_logits:
            masks = masks > self.mask_threshold
        results = [r.cpu().numpy() for r in (masks, iou, low_res)]
        if len(masks) == 1 and not keep_prompt_axis:
            results = [r[0] for r in results]
        return results[0], results[1], results[2]

    def _prep_prompts(
        self,
        point_coords: Any,
        point_labels: Any,
        box: Any,
        mask_input: Any,
        normalize_coords: bool,
        img_idx: int = -1,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Check a prompt and scale it: mask input, points [B, P, 2], labels, corners [B, 2, 2]."""
        size = self._orig_hw[img_idx]
        frame = size if normalize_coords else (1.0, 1.0)
        coords = labels = corners = None
        if point_coords is not None or point_labels is not None:
            coords, labels = prompts.points_and_labels(point_coords, point_labels, frame)
            coords = self._transforms.transform_coords(
                coords.to(self.device), normalize_coords, size
            )
            labels = labels.to(self.device)
        if box is not None:
            corners = self._transforms.transform_coords(
                prompts.boxes(box, frame).to(self.device), normalize_coords, size
            )
        if coords is not None and corners is not None and len(coords) != len(corners):
            raise ValueError(
                "box and point_coords must hold equally many prompts, "
                f"got {len(corners)} boxes and {len(coords)} rows of points; use [N, P, 2] points"
            )
        if mask_input is None:
            return None, coords, labels, corners
        side = 4 * self.model.grid_size
        logits = prompts.earlier_logits(mask_input, side).to(self.device)
        points = corners if coords is None else coords
        if points is not None and len(logits) not in (1, len(points)):
            raise ValueError(
                f"mask_input must hold 1 or {len(points)} masks to fit the prompts, "
                f"got {len(logits)}"
            )
        return logits, coords, labels, corners

    @torch.no_grad()
    def _predict(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        *,
        hq_token_only: bool = False,
        return_logits: bool = False,
        img_idx: int = -1,
        hq_mode: HQMode | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One look of `predict`, on tensors in model pixels, without checks.

        Args:
            point_coords: [B, P, 2].
            point_labels: [B, P].
            boxes: [B, 4] or corners [B, 2, 2].
            mask_input: [B or 1, 1, 4g, 4g].
            multimask_output: three candidates instead of one.
            hq_token_only: the published name of `hq_mode="only"`.
            return_logits: logits instead of bool masks.
            img_idx: which picture of the batch.
            hq_mode: None for the model's own.

        Returns:
            Masks [B, M, H, W], predicted IoUs [B, M], clamped low-resolution logits [B, M, 4g, 4g].
        """
        self._check_image_set()
        mode = self.model.check_hq_mode(hq_mode, hq_token_only)
        low_res, iou = self._decode(
            point_coords, point_labels, boxes, mask_input, multimask_output, mode, img_idx
        )
        masks = self._transforms.postprocess_masks(low_res, self._orig_hw[img_idx])
        if not return_logits:
            masks = masks > self.mask_threshold
        return masks, iou, low_res.clamp(-PROMPT_LOGIT_LIMIT, PROMPT_LOGIT_LIMIT)

    @torch.no_grad()
    def _look_again(
        self,
        masks: Tensor,
        iou: Tensor,
        low_res: Tensor,
        points: PointPrompt | None,
        ratio: float,
        hq_mode: HQMode,
        img_idx: int,
    ) -> None:
        """Look again at the best of an answer's logits [B, M, H, W], for its low_res too."""
        best = iou.argmax(dim=1)
        shown = masks[torch.arange(len(best), device=best.device), best]
        seen = look_again(
            self.model,
            self._images[img_idx],
            shown,
            points,
            iou=iou.amax(dim=1),
            ratio=ratio,
            hq_mode=hq_mode,
            enlarge=self._transforms.postprocess_masks,
            threshold=self.mask_threshold,
        )
        for row, (logits, windows) in enumerate(zip(*seen, strict=True)):
            masks[row, best[row]] = logits
            small = low_res[row, best[row]]
            small.copy_(low_res_with(small, logits, windows, self.mask_threshold))

    @torch.no_grad()
    def _decode(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None,
        mask_input: Tensor | None,
        multimask_output: bool,
        hq_mode: HQMode,
        img_idx: int,
    ) -> tuple[Tensor, Tensor]:
        """Unclamped low-resolution logits [B, M, 4g, 4g] and predicted IoUs [B, M], in float32."""
        features = self._image_features(img_idx)
        points = _as_point_prompt(point_coords, point_labels, boxes)
        batch = 1 if points is None else points.coords.shape[0]
        if mask_input is not None and points is not None:
            mask_input = mask_input.expand(batch, -1, -1, -1)
        out = self.model.decode_candidates(
            features.embedding,
            features.high_res,
            points=points,
            mask_logits=mask_input,
            candidates="all" if multimask_output else "single",
            pad_empty=False,
            with_hq=hq_mode != "off",
        )
        return self.model.combine(out, hq_mode).float(), out.iou.float()

    def _image_features(self, img_idx: int) -> FrameFeatures:
        index = range(len(self._orig_hw))[img_idx]
        one = slice(index, index + 1)
        return FrameFeatures(
            self._features["image_embed"][one],
            tuple(level[one] for level in self._features["high_res_feats"]),
        )


def _check_options(mask_threshold: float, max_hole_area: float, max_sprinkle_area: float) -> None:
    check_numbers({"mask_threshold": mask_threshold})
    check_numbers({"max_hole_area": max_hole_area, "max_sprinkle_area": max_sprinkle_area}, least=0)


def _as_point_prompt(
    coords: Tensor | None, labels: Tensor | None, boxes: Tensor | None
) -> PointPrompt | None:
    """Boxes become two labelled points in front of the clicks."""
    parts = []
    if boxes is not None:
        corners = boxes.reshape(-1, 2, 2)
        parts.append((corners, prompts.corner_labels(len(corners), corners.device)))
    if coords is not None and labels is not None:
        parts.append((coords, labels.to(torch.int32)))
    if not parts:
        return None
    all_coords, all_labels = zip(*parts, strict=True)
    return PointPrompt(torch.cat(all_coords, dim=1), torch.cat(all_labels, dim=1))


def _one_a_picture(name: str, values: Iterable[Any] | None, count: int) -> list[Any]:
    if values is None:
        return [None] * count
    try:
        listed = list(values)
    except TypeError as error:
        raise TypeError(
            f"{name} must be a list with one entry a picture, got {values!r}"
        ) from error
    if len(listed) != count:
        raise ValueError(f"{name} must have one entry a picture ({count}), got {len(listed)}")
    return listed
