"""Where the mask generator looks: point grids, overlapping crops, and the way back to the image.

Boxes are x0, y0, x1, y1 in image pixels; a size is (height, width).
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Box = list[int]


def build_point_grid(n_per_side: int) -> NDArray[np.float64]:
    """Centres of n x n equal cells of the unit square: [n * n, 2], x fastest."""
    centres = (np.arange(n_per_side) + 0.5) / n_per_side
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def build_all_layer_point_grids(
    n_per_side: int, n_layers: int, scale_per_layer: int
) -> list[NDArray[np.float64]]:
    """Grids of the whole image and of `n_layers` crop layers, each coarser by `scale_per_layer`.

    Raises:
        ValueError: if `scale_per_layer` is below 1, or a layer is left without a point.
    """
    if scale_per_layer < 1:
        raise ValueError(f"scale_per_layer must be 1 or more, got {scale_per_layer}")
    sides = [int(n_per_side / scale_per_layer**layer) for layer in range(n_layers + 1)]
    if sides[-1] < 1:
        raise ValueError(
            f"a grid of {n_per_side} points a side, divided by {scale_per_layer} in each of "
            f"{n_layers} layers, leaves none"
        )
    return [build_point_grid(side) for side in sides]


def generate_crop_boxes(
    im_size: tuple[int, ...], n_layers: int, overlap_ratio: float
) -> tuple[list[Box], list[int]]:
    """The whole image, then layer by layer 2^layer x 2^layer overlapping crops, x outer, y inner.

    Args:
        im_size: height and width.
        n_layers: crop layers beyond the whole image.
        overlap_ratio: overlap in layer 1 as a part of the short side; half of it in each next one.

    Returns:
        Boxes in image pixels, exclusive at the far end, and the layer of each.
    """
    height, width = im_size
    boxes: list[Box] = [[0, 0, width, height]]
    layers = [0]
    for layer in range(1, n_layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / per_side))
        for (x0, x1), (y0, y1) in product(
            _spans(width, per_side, overlap), _spans(height, per_side, overlap)
        ):
            boxes.append([x0, y0, x1, y1])
            layers.append(layer)
    return boxes, layers


def _spans(length: int, parts: int, overlap: int) -> list[tuple[int, int]]:
    side = math.ceil((overlap * (parts - 1) + length) / parts)
    starts = (part * (side - overlap) for part in range(parts))
    # A picture of a few pixels has fewer parts than asked for.
    return [(start, min(start + side, length)) for start in starts if start < length]


def uncrop_boxes_xyxy(boxes: Tensor, crop_box: Box) -> Tensor:
    """[..., 4] boxes in crop pixels -> image pixels."""
    x0, y0, _, _ = crop_box
    return boxes + boxes.new_tensor([x0, y0, x0, y0])


def uncrop_points(points: Tensor, crop_box: Box) -> Tensor:
    """[..., 2] points in crop pixels -> image pixels."""
    return points + points.new_tensor(crop_box[:2])


def uncrop_masks(masks: Tensor, crop_box: Box, orig_h: int, orig_w: int) -> Tensor:
    """[N, h, w] masks of a crop -> [N, orig_h, orig_w], nothing outside the crop."""
    x0, y0, x1, y1 = crop_box
    if (y1 - y0, x1 - x0) == (orig_h, orig_w):
        return masks
    return F.pad(masks, (x0, orig_w - x1, y0, orig_h - y1))


def is_box_near_crop_edge(
    boxes: Tensor, crop_box: Box, orig_box: Box, atol: float = 20.0
) -> Tensor:
    """Which objects a crop probably cuts off: [N] bool for [N, 4] boxes in crop pixels.

    True where an edge of the box is within `atol` pixels of that edge of the crop, but not of the
    image.
    """
    edges = uncrop_boxes_xyxy(boxes, crop_box).float()
    near_crop = (edges - edges.new_tensor(crop_box)).abs() <= atol
    near_image = (edges - edges.new_tensor(orig_box)).abs() <= atol
    return (near_crop & ~near_image).any(dim=-1)


def box_xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """[..., 4] corners -> x, y, x1 - x0, y1 - y0."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)
