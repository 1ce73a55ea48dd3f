"""What a person would ask for, made from the truth: clicks, boxes, coarse masks, corrections.

Pure functions of masks and of numbers in 0..1; whoever calls them draws the numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_hq.ops.masks import PROMPT_LOGIT_LIMIT, masks_to_boxes
from sam2_hq.structures import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PointPrompt

BOX_NOISE = 0.1  # of the side of the box
MAX_BOX_NOISE = 20 / 1024  # of the side of the picture
MASK_PROMPT_LOGIT = 10.0
RESIDUE = 0.01  # smallest difference that counts as lost when a mask is made coarse
DEEPEST = 12  # cells; thicker objects have no deeper part
DEPTH_GRID = 64  # cells on a side; depth is measured on about so many


def pick_pixels(region: Tensor, numbers: Tensor) -> Tensor:
    """Pixels of each region, all pixels of it with equal chance.

    Args:
        region: [N, H, W] bool.
        numbers: [N, P] in 0..1.

    Returns:
        [N, P] int64 index of the pixels, row by row; 0 where the region is empty.
    """
    running = region.flatten(1).cumsum(1, dtype=torch.int32)
    count = running[:, -1:]
    order = torch.minimum((numbers.to(region.device) * count).int(), count.clamp(min=1) - 1)
    return torch.searchsorted(running, order + 1) * (count > 0)


def deepest_part(region: Tensor, limit: int = DEEPEST) -> Tensor:
    """The pixels of each region farthest from its border; the picture's border counts as one.

    Args:
        region: [N, H, W] bool. On large grids thick regions are measured on cells of several
            pixels.
        limit: depth in pixels, or such cells, at which the search ends.
    """
    factor = max(region.shape[-1] // DEPTH_GRID, 1)
    if factor == 1:
        return _deepest(region, limit)
    filled = -F.max_pool2d(-region.float()[:, None], factor) > 0
    deep = _deepest(filled[:, 0], limit)
    deep = F.interpolate(deep.float()[:, None], region.shape[-2:], mode="nearest")[:, 0] > 0
    deep = deep & region
    is_thick = deep.flatten(1).any(dim=1)
    if not is_thick.all():
        deep[~is_thick] = _deepest(region[~is_thick], limit)
    return deep


def _deepest(region: Tensor, limit: int) -> Tensor:
    depth = region.float()[:, None]
    layer = depth
    for _ in range(limit):
        layer = -F.max_pool2d(F.pad(-layer, (1, 1, 1, 1)), 3, stride=1)
        depth = depth + layer
    depth = depth[:, 0]
    return region & (depth == depth.amax(dim=(1, 2), keepdim=True))


def first_click(
    truth: Tensor, numbers: Tensor, *, stride: int, central: float = 0.5
) -> PointPrompt:
    """A click on each object; on an absent object, a negative click anywhere.

    Args:
        truth: [N, h, w] bool.
        numbers: [N, 4] in 0..1.
        stride: model pixels a cell of `truth`.
        central: share of clicks in the middle of the object, as people click.
    """
    return _click(truth, truth, numbers, stride=stride, central=central)


def correction_click(
    truth: Tensor, prediction: Tensor, numbers: Tensor, *, stride: int, central: float = 0.5
) -> PointPrompt:
    """A click on a wrong pixel: positive where the object was missed, negative where it was not.

    Where nothing is wrong the click is a negative one on the background.

    Args:
        truth, prediction: [N, h, w] bool.
        numbers, stride, central: as in `first_click`.
    """
    return _click(truth ^ prediction, truth, numbers, stride=stride, central=central)


def _click(
    region: Tensor, truth: Tensor, numbers: Tensor, *, stride: int, central: float
) -> PointPrompt:
    numbers = numbers.to(truth.device)
    is_empty = ~region.flatten(1).any(dim=1)
    region = torch.where(is_empty[:, None, None], ~truth, region)
    is_central = (numbers[:, 0] < central) & ~is_empty
    if is_central.any():
        region = torch.where(is_central[:, None, None], deepest_part(region), region)
    index = pick_pixels(region, numbers[:, 1:2])[:, 0]
    label = truth.flatten(1).gather(1, index[:, None]).int()
    width = truth.shape[-1]
    cell = torch.stack([index % width, index // width], dim=1)
    coords = cell * stride + (numbers[:, 2:4] * stride).floor()
    return PointPrompt(coords[:, None], label)


def loose_box(truth: Tensor, numbers: Tensor) -> PointPrompt:
    """A loose box around each object, as two points labelled 2 and 3.

    Args:
        truth: [N, S, S] bool; the box of an empty mask says nothing.
        numbers: [N, 4] in 0..1, for the looseness of the four sides.
    """
    side = truth.shape[-1]
    box = masks_to_boxes(truth).float()
    extent = (box[:, 2:] - box[:, :2]).repeat(1, 2)
    noise = (extent * BOX_NOISE).clamp(max=MAX_BOX_NOISE * side)
    box = box + (2 * numbers.to(box) - 1) * noise
    coords = box.clamp(0, side - 1).unflatten(1, (2, 2))
    labels = torch.tensor(
        [[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]], dtype=torch.int32, device=truth.device
    )
    return PointPrompt(coords, labels.expand(len(truth), 2))


def coarse_mask_logits(truth: Tensor, noise: Tensor, *, factor: int = 8) -> Tensor:
    """A mask as a hurried person paints it: right in the large, noisy where detail was lost.

    Args:
        truth: [N, h, w] float in 0..1.
        noise: [N, h, w] standard normal.
        factor: how much coarser the mask gets.

    Returns:
        [N, 1, h, w] logits of +-10.

    Source: the mask prompts of HQ-SAM (Ke et al., 2023).
    """
    size = truth.shape[-2:]
    small = (max(size[0] // factor, 1), max(size[1] // factor, 1))
    coarse = F.interpolate(truth[:, None], small, mode="bilinear", align_corners=False)
    blurred = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
    lost = (truth[:, None] - blurred).abs() >= RESIDUE
    mask = truth[:, None] + lost * noise[:, None].to(truth)
    return torch.where(mask > 0.5, MASK_PROMPT_LOGIT, -MASK_PROMPT_LOGIT)


def coarse_view(logits: Tensor, factor: int) -> Tensor:
    """An answer [N, 1, h, w] as the logits that a view `factor` times as near begins with.

    Clamped as all logits that are fed back.
    """
    logits = logits.clamp(-PROMPT_LOGIT_LIMIT, PROMPT_LOGIT_LIMIT)
    if factor == 1:
        return logits
    size = logits.shape[-2:]
    small = (max(size[0] // factor, 1), max(size[1] // factor, 1))
    far = F.interpolate(logits, small, mode="area")
    return F.interpolate(far, size, mode="bilinear", align_corners=False)


def join_points(first: PointPrompt | None, second: PointPrompt) -> PointPrompt:
    """The clicks of `first`, then those of `second`."""
    if first is None:
        return second
    return PointPrompt(
        torch.cat([first.coords, second.coords], dim=1),
        torch.cat([first.labels, second.labels], dim=1),
    )
