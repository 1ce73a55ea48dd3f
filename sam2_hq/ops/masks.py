"""Pure functions on mask logits: clean-up, overlap, boxes, scores, and the choice of the HQ mask.

Batched, on the device of their input, without data-dependent control flow: they can be traced.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_hq.ops.connected_components import connected_components
from sam2_hq.structures import HQ_MODES, HQMode

OVERLAP_LOGIT = -10.0
"""The most that an object keeps where another one wins the pixel."""

PROMPT_LOGIT_LIMIT = 32.0
"""Low-resolution logits are returned, and enter a new prompt, clamped to this magnitude."""


def enlarge(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps [N, C, h, w] in another height and width, by bilinear interpolation."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def fill_holes(mask_logits: Tensor, max_area: int, value: float = 0.1) -> Tensor:
    """Raise small background islands above the threshold.

    A hole is an 8-connected region with logits <= 0 of at most `max_area` pixels; it may touch the
    border.

    Args:
        mask_logits: [N, 1, H, W] float, foreground where > 0.
        max_area: largest hole filled, in pixels of this map; 0 fills none.
        value: logit written into a hole.

    Returns:
        [N, 1, H, W]; the input is not changed.

    Raises:
        ValueError: if `max_area` is negative.

    Source: post-processing of SAM 2 (Ravi et al., 2024).
    """
    _check_area("max_area", max_area)
    if max_area == 0:
        return mask_logits
    return torch.where(_small_regions(mask_logits <= 0, max_area), value, mask_logits)


def clean_small_regions(
    mask_logits: Tensor,
    max_hole_area: float = 0.0,
    max_sprinkle_area: float = 0.0,
    threshold: float = 0.0,
) -> Tensor:
    """Fill small holes with `threshold + 10` and remove small islands with `threshold - 10`.

    Holes and islands are 8-connected regions of the logits as given; an area of 0 switches
    that half off.

    Args:
        mask_logits: [B, M, H, W] float, foreground where > `threshold`.
        max_hole_area: largest hole filled, in pixels of this map.
        max_sprinkle_area: largest island removed, in pixels of this map.
        threshold: logit between background and foreground.

    Returns:
        [B, M, H, W]; the input is not changed.

    Raises:
        ValueError: if an area is negative.
    """
    _check_area("max_hole_area", max_hole_area)
    _check_area("max_sprinkle_area", max_sprinkle_area)
    foreground = mask_logits > threshold
    cleaned = mask_logits
    if max_hole_area > 0:
        holes = _small_regions(~foreground, max_hole_area)
        cleaned = torch.where(holes, threshold + 10.0, cleaned)
    if max_sprinkle_area > 0:
        sprinkles = _small_regions(foreground, max_sprinkle_area)
        cleaned = torch.where(sprinkles, threshold - 10.0, cleaned)
    return cleaned


def remove_small_regions(masks: Tensor, min_area: float) -> Tensor:
    """Fill the holes, then drop the islands, of less than `min_area` pixels.

    The largest island of a mask stays whatever its size, so no mask vanishes.

    Args:
        masks: [N, H, W] bool.
        min_area: smallest hole and island left alone, in pixels of these masks.

    Returns:
        [N, H, W] bool.
    """
    _, holes = connected_components(~masks.unsqueeze(1))
    filled = masks | (holes.squeeze(1) < min_area)
    _, islands = connected_components(filled.unsqueeze(1))
    areas = islands.squeeze(1)
    largest = areas.amax(dim=(-2, -1), keepdim=True)
    return filled & (areas >= largest.clamp(max=min_area))


def _small_regions(mask: Tensor, max_area: float) -> Tensor:
    """Pixels of [B, M, H, W] in a region of at most `max_area` pixels."""
    _, areas = connected_components(mask.flatten(0, 1).unsqueeze(1))
    return mask & (areas.squeeze(1).unflatten(0, mask.shape[:2]) <= max_area)


def _check_area(name: str, area: float) -> None:
    if area < 0:
        raise ValueError(f"{name} must be 0 or more pixels, got {area}")


def non_overlapping(mask_logits: Tensor) -> Tensor:
    """Leave each pixel to the object with the highest logit; the others get at most -10 there.

    Args:
        mask_logits: [B, 1, H, W] float, one object a row. Of equal logits the first object wins.

    Returns:
        [B, 1, H, W].
    """
    if mask_logits.shape[0] <= 1:
        return mask_logits
    objects = torch.arange(mask_logits.shape[0], device=mask_logits.device)
    wins = objects[:, None, None, None] == mask_logits.argmax(dim=0, keepdim=True)
    return torch.where(wins, mask_logits, mask_logits.clamp(max=OVERLAP_LOGIT))


def certain_logits(mask: Tensor) -> Tensor:
    """Logits of what is given and not predicted: 10 where `mask` is 1, -10 where it is 0."""
    return mask * 20.0 - 10.0


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Tight boxes of [..., H, W] bool masks.

    Returns:
        [..., 4] int64: x0, y0, x1, y1 of the outermost pixels, inclusive; zeros for an empty mask.
    """
    x0, x1 = _extent(masks.any(dim=-2))
    y0, y1 = _extent(masks.any(dim=-1))
    return torch.stack([x0, y0, x1, y1], dim=-1)


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First and last True of [..., L]; 0 and 0 without any."""
    length = occupied.shape[-1]
    flags = occupied.to(torch.uint8)
    first = flags.argmax(dim=-1)
    last = length - 1 - flags.flip(-1).argmax(dim=-1)
    return first, torch.where(occupied.any(dim=-1), last, 0)


def stability_score(
    mask_logits: Tensor, threshold: float, offset: float, *, if_empty: float
) -> Tensor:
    """How little a mask changes with its threshold: IoU of the masks at `threshold` +- `offset`.

    Args:
        mask_logits: [..., H, W] float.
        threshold: logit between background and foreground.
        offset: shift of the threshold, at least 0.
        if_empty: score of a mask with no pixel even at the lower threshold. The mask decoder calls
            it stable (1.0), the mask generator does not (0.0).

    Returns:
        [...] float32, 0 to 1.
    """
    inner = (mask_logits > threshold + offset).sum(dim=(-2, -1))
    outer = (mask_logits > threshold - offset).sum(dim=(-2, -1))
    return _ratio(inner, outer, if_empty)


def mask_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of bool masks [..., H, W] that broadcast.

    Returns:
        [...] float32; two empty masks agree: 1.
    """
    intersection = (first & second).sum(dim=(-2, -1))
    union = (first | second).sum(dim=(-2, -1))
    return _ratio(intersection, union, if_empty=1.0)


def _ratio(part: Tensor, whole: Tensor, if_empty: float) -> Tensor:
    return torch.where(whole > 0, part.float() / whole.clamp(min=1).float(), if_empty)


def hq_disagreement(sam_logits: Tensor, hq_logits: Tensor) -> Tensor:
    """How far the HQ correction moves each mask: one minus the IoU of the mask before and after.

    Args:
        sam_logits: [B, M, H, W].
        hq_logits: [B, 1, H, W].

    Returns:
        [B, M] float32; 0 where both are empty.
    """
    return 1.0 - mask_iou(sam_logits > 0, sam_logits + hq_logits > 0)


def choose_hq(sam_logits: Tensor, hq_logits: Tensor, iou: Tensor, hq_mode: HQMode) -> Tensor:
    """Combine what the SAM and the HQ half of the decoder say.

    * `off`: the SAM masks.
    * `correct`: SAM + HQ logits, as published.
    * `only`: the HQ mask for every candidate.
    * `auto`: the corrected mask, unless it lies further from the SAM mask than twice the error that
      the model predicts for the SAM mask. Distances are Jaccard distances (1 - IoU), which obey the
      triangle inequality: from there on the corrected mask is further from the truth than the SAM
      mask is, if the prediction is right.

    Args:
        sam_logits: [B, M, H, W] selected SAM masks.
        hq_logits: [B, 1, H, W].
        iou: [B, M] predicted IoU of the SAM masks.
        hq_mode: one of `HQ_MODES`.

    Returns:
        [B, M, H, W] mask logits.

    Raises:
        ValueError: if `hq_mode` is none of them.
    """
    if hq_mode == "off":
        return sam_logits
    if hq_mode == "only":
        return hq_logits.expand_as(sam_logits)
    corrected = sam_logits + hq_logits
    if hq_mode == "correct":
        return corrected
    if hq_mode == "auto":
        too_far = hq_disagreement(sam_logits, hq_logits) > 2 * (1.0 - iou.float())
        return torch.where(too_far[..., None, None], sam_logits, corrected)
    raise ValueError(f"hq_mode must be one of {', '.join(HQ_MODES)}, got {hq_mode!r}")
