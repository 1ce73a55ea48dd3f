"""Masks that follow the edges of their picture: a guided filter on logits.

The decoder's masks are coarse, the picture is fine. Around each cell the filter fits the mask by a
linear function of the colours, and reads that function off the fine picture.

Sources: He, Sun and Tang, Guided image filtering (TPAMI 2013), section 3.5; He and Sun, Fast guided
filter (2015). Ours: cells count by how sure the mask is there, and fits by how much they explain.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_hq.ops.masks import enlarge

CERTAIN_LOGIT = 6.0
"""Logits beyond it are equally certain."""

SMOOTHNESS = 1e-6
"""Added to the variance of each colour (0..1): how little contrast is still an edge."""

LEAST_WEIGHT = 0.02
"""What an undecided cell counts beside a certain one."""

LEAST_SHARE = 1e-3
"""What a fit that explains nothing counts beside one that explains all."""


def follow_edges(mask_logits: Tensor, picture: Tensor, reach: float) -> Tensor:
    """Bring masks to the size of a picture, along its edges.

    Where colours do not tell the object from what is around it, the logits are those of plain
    bilinear interpolation. So are those further away from the objects than two radii, and all of
    an object that is not there, that is too small for a window, or that nothing would be left of.

    Args:
        mask_logits: [N, 1, h, w] float, foreground where > 0.
        picture: [3, H, W] in 0..1; H and W are multiples of h and w.
        reach: radius of the windows in which a mask is fit, in square roots of the object's area;
            an object whose windows would have a radius below one cell is too small.

    Returns:
        [N, 1, H, W] float32.
    """
    mask_logits = mask_logits.float()
    plain = enlarge(mask_logits, picture.shape[-2:])
    is_object = mask_logits > 0
    radii = reach * is_object.flatten(1).sum(dim=1).sqrt()
    if not (radii >= 1).any():
        return plain
    (y0, y1), (x0, x1) = _surroundings(is_object[radii >= 1], 2 * int(radii.max().round()))
    down, across = (plain.shape[dim] // mask_logits.shape[dim] for dim in (2, 3))
    rows, columns = slice(y0 * down, y1 * down), slice(x0 * across, x1 * across)
    near = _filtered(
        mask_logits[..., y0:y1, x0:x1], picture[:, rows, columns], plain[..., rows, columns], radii
    )
    fine = plain.clone()
    fine[..., rows, columns] = near
    is_left = (fine > 0).flatten(1).any(dim=1)
    return torch.where(((radii >= 1) & is_left)[:, None, None, None], fine, plain)


def _surroundings(is_object: Tensor, margin: int) -> list[tuple[int, int]]:
    """First and last + 1 row, then column, of all objects [N, 1, h, w] and a margin around them."""
    ends = []
    for dim, length in ((3, is_object.shape[2]), (2, is_object.shape[3])):
        occupied = is_object.any(dim=dim).flatten(0, 1).any(dim=0).nonzero()[:, 0].tolist()
        ends.append((max(occupied[0] - margin, 0), min(occupied[-1] + 1 + margin, length)))
    return ends


def _filtered(mask_logits: Tensor, picture: Tensor, plain: Tensor, radii: Tensor) -> Tensor:
    """`follow_edges` on the surroundings of the objects, whatever comes out."""
    coarse = F.interpolate(picture[None], mask_logits.shape[-2:], mode="area")
    coefficients = _coefficients(mask_logits, coarse, radii)
    fine = enlarge(coefficients, picture.shape[-2:])
    slopes, offset, explained = fine.split([3, 1, 1], dim=1)
    fitted = ((slopes * picture).sum(dim=1, keepdim=True) + offset) * CERTAIN_LOGIT
    return plain + explained * (fitted - plain.clamp(-CERTAIN_LOGIT, CERTAIN_LOGIT))


def _coefficients(mask_logits: Tensor, colours: Tensor, radii: Tensor) -> Tensor:
    """Slopes, offset and explained share [N, 3 + 1 + 1, h, w] of the windows around each cell.

    Variances are differences of means, so they are computed in float64: where the device has none,
    on the CPU.
    """
    device = mask_logits.device
    place = torch.device("cpu") if device.type == "mps" else device
    mask_logits, colours, radii = (t.to(place).double() for t in (mask_logits, colours, radii))
    values = mask_logits.clamp(-CERTAIN_LOGIT, CERTAIN_LOGIT) / CERTAIN_LOGIT
    cells = radii.round().clamp(min=1)
    slopes, offset, explained = _linear_fit(values, colours, cells)
    weights = explained + LEAST_SHARE
    total = _window_means(torch.cat([weights * slopes, weights * offset, weights], dim=1), cells)
    means = [total[:, :4] / total[:, 4:], _window_means(explained, cells)]
    return torch.cat(means, dim=1).float().to(device)


def _linear_fit(values: Tensor, colours: Tensor, radii: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit values [N, 1, h, w] by colours [1, 3, h, w] in the window around each cell.

    Returns:
        Slopes [N, 3, h, w], offsets [N, 1, h, w], and the share 0..1 of the variance of the values
        that they explain, [N, 1, h, w].
    """
    weights = values.abs() + LEAST_WEIGHT
    row, column = torch.triu_indices(3, 3, device=values.device)
    products = [colours, values, colours * values, values**2, colours[:, row] * colours[:, column]]
    sums = torch.cat([weights, *(weights * product for product in products)], dim=1)
    means = _window_means(sums, radii)
    means = means[:, 1:] / means[:, :1]
    colour, value, both, square, colour_products = means.split([3, 1, 3, 1, 6], dim=1)
    covariance = both - colour * value
    spread = (square - value**2).clamp(min=1e-6)

    scatter = colour_products - colour[:, row] * colour[:, column]
    scatter = scatter + SMOOTHNESS * (row == column)[:, None, None]
    xx, xy, xz, yy, yz, zz = scatter.unbind(dim=1)
    matrix = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], dim=1).unflatten(1, (3, 3))
    slopes = _solve_3x3(matrix, covariance)
    offset = value - (slopes * colour).sum(dim=1, keepdim=True)
    explained = (slopes * covariance).sum(dim=1, keepdim=True) / spread
    return slopes, offset, explained.clamp(0, 1)


def _solve_3x3(matrix: Tensor, vector: Tensor) -> Tensor:
    """x [N, 3, h, w] of `matrix` [N, 3, 3, h, w] x = `vector`, by the adjugate of each matrix."""
    first, second, third = matrix.unbind(dim=1)
    columns = torch.stack(
        [
            torch.linalg.cross(second, third, dim=1),
            torch.linalg.cross(third, first, dim=1),
            torch.linalg.cross(first, second, dim=1),
        ],
        dim=1,
    )
    determinant = (first * columns[:, 0]).sum(dim=1, keepdim=True)
    return (columns * vector[:, :, None]).sum(dim=1) / determinant


def _window_means(maps: Tensor, radii: Tensor) -> Tensor:
    """Means of maps [N, C, h, w] over square windows, cut at the border; a radius for each N."""
    down, across = (_averaging(length, radii, maps.dtype) for length in maps.shape[2:])
    return down[:, None] @ maps @ across[:, None].mT


def _averaging(length: int, radii: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrices [N, length, length] that take each entry to the mean of those around it."""
    place = torch.arange(length, device=radii.device)
    is_near = (place[:, None] - place).abs() <= radii[:, None, None]
    return is_near.to(dtype) / is_near.sum(dim=2, keepdim=True)
