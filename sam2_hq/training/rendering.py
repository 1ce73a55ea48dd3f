"""Look at pictures through affine windows and bends: the one resampler of all training data.

Runs wherever the pictures lie; only small matrices cross from the host.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sam2_hq.training.geometry import bend_basis

MAX_LEVEL = 2
"""Pictures are halved at most so often before they are sampled."""


def look(
    pictures: Tensor,
    matrices: NDArray[np.float64],
    *,
    sizes: NDArray[np.int64],
    side: int,
    bends: NDArray[np.float64] | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample every picture once for each of T frames.

    Beyond its edges a picture is mirrored. Minified pictures are averaged down first.

    Args:
        pictures: [N, C, H, W] float, each at the top left of its canvas; H and W are multiples of
            2 ** MAX_LEVEL.
        matrices: [N, T, 3, 3], from the output square to the square of the picture.
        sizes: [N, 2] height and width of the pictures.
        side: S of the output.
        bends: [N, T, 2, P] shift in x and y of each control point, in the picture's square.

    Returns:
        values [N, T, C, S, S], and whether the place lies inside the picture, [N, T, 1, S, S] bool.
    """
    count, frames = matrices.shape[:2]
    values = pictures.new_empty(count, frames, pictures.shape[1], side, side)
    inside = torch.empty(count, frames, 1, side, side, dtype=torch.bool, device=pictures.device)
    levels = _levels(matrices, sizes, side)
    for level in np.unique(levels):
        rows = np.flatnonzero(levels == level)
        some = torch.from_numpy(rows).to(pictures.device)
        small = pictures[some] if len(rows) < count else pictures
        for _ in range(level):
            # The mean of 2 x 2 pixels, as avg_pool2d has it in five times the time.
            small = F.interpolate(small, scale_factor=0.5, mode="bilinear")
        places = _places(matrices[rows], side, pictures)
        if bends is not None:
            bent = np.flatnonzero(bends[rows].any((1, 2, 3)))
            some_bent = torch.from_numpy(bent).to(pictures.device)
            places[some_bent] = _bend(places[some_bent], bends[rows[bent]])
        values[some], inside[some] = _sample(
            small, places, sizes[rows] / np.array(pictures.shape[2:])
        )
    return values, inside


def _levels(
    matrices: NDArray[np.float64], sizes: NDArray[np.int64], side: int
) -> NDArray[np.int64]:
    """How often each picture is halved: picture pixels per output pixel, as a power of two."""
    zoom = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2, :2])).mean(1) * sizes.prod(1)) / side
    return np.clip(np.floor(np.log2(np.maximum(zoom, 1e-6)) + 0.3), 0, MAX_LEVEL).astype(np.int64)


def _places(matrices: NDArray[np.float64], side: int, like: Tensor) -> Tensor:
    """[n, T, S, S, 2] in the squares of the pictures."""
    affine = torch.from_numpy(matrices[:, :, :2].astype(np.float32)).to(like.device)
    centres = (torch.arange(side, device=like.device, dtype=torch.float32) + 0.5) * 2 / side - 1
    along_x = affine[:, :, None, :, 0] * centres[:, None]
    along_y = affine[:, :, None, :, 1] * centres[:, None] + affine[:, :, None, :, 2]
    return along_x[:, :, None] + along_y[:, :, :, None]


def _bend(places: Tensor, bends: NDArray[np.float64]) -> Tensor:
    shifts = torch.from_numpy(bends.astype(np.float32)).to(places.device)
    if not len(places):
        return places
    fields = torch.einsum("ntdp,pij->ntdij", shifts, bend_basis().to(places.device))
    moved = F.grid_sample(
        fields.flatten(0, 1),
        places.flatten(0, 1),
        align_corners=False,
        padding_mode="border",
    )
    return places + moved.permute(0, 2, 3, 1).unflatten(0, places.shape[:2])


def _sample(pictures: Tensor, places: Tensor, share: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Sample canvases of which only `share` (height, width) is picture."""
    frames, side = places.shape[1:3]
    inside = (places.abs() <= 1).all(-1)[:, :, None]
    # Mirror at the edges: 0..2 is the picture, 2..4 its mirror image.
    unit = (places + 1).remainder(4)
    unit = torch.minimum(unit, 4 - unit) / 2
    height, width = pictures.shape[2:]
    shares = torch.from_numpy(share[:, ::-1].astype(np.float32)).to(places.device)
    shares = shares[:, None, None, None]
    # Half a pixel from the edge, or the empty canvas beyond would bleed in.
    half = 0.5 / torch.tensor([width, height], device=places.device, dtype=torch.float32)
    grid = torch.minimum((unit * shares).clamp(min=half), shares - half) * 2 - 1
    # All frames of a picture as one tall grid: the picture is not copied for each.
    values = F.grid_sample(pictures, grid.flatten(1, 2), align_corners=False)
    return values.unflatten(2, (frames, side)).transpose(1, 2), inside
