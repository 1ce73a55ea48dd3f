"""What objects look like: the colours and features of the frames on which the user showed them.

A memory says where an object may be; its outline is decoded coarsely. An object's colours, and a
linear classifier of its features, say of each cell by itself whether it is more like the object or
like what was around it. That is added to the logits of tracked frames. The colours of an answer
that the model is unsure of tell it from what is around it, too.

Sources: colour statistics of object and surroundings as in GrabCut (Rother et al., 2004); a target
model fit on the first frame as in FRTM (Robinson et al., CVPR 2020), here by ridge regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_hq.ops.masks import enlarge, masks_to_boxes
from sam2_hq.structures import FrameFeatures

BINS = 32
"""Bins of each colour channel."""

UNSEEN = 0.5 / BINS**3
"""Added to the share of every bin: colours that were not seen say nothing."""

MARGIN = 0.25
"""How far the surroundings of an object go, in its heights and widths."""

LEAST_CELLS = 4
"""Fewer cells are no object to look around, and no surroundings to learn from."""

LEAST_SHARE = 1.0
"""Less of an object, in cells, is nothing to learn from: a thin one fills its cells in part."""

MOST_CELLS = 16384
"""As many cells teach the features of an object; of more, some drawn at random."""

RIDGE = 0.01
"""Added to the mean square of each feature in the object and around it, 2 by and large, and to
that of the offset."""

LARGEST_RATIO = 3.0
"""Limit of the logarithm of how much likelier a colour is in the object than around it."""

FEATURE_SHARE = 2.0
"""What a cell that is like the object by its features counts, in the same unit."""

ROUNDS = 4
"""How often the colours of an answer are learnt from it, and judge it."""


class Cells(NamedTuple):
    """A frame as its cells are judged: one cell is a pixel of the decoder's masks, [h, w].

    bins, shares: [8, h * w] the bins that the colour of each cell lies between, and how near.
    levels: features [C, hl, wl] of mean 0 and variance 1 in each cell, finest first; none where
        colours alone judge.
    size: (h, w).
    """

    bins: Tensor
    shares: Tensor
    levels: list[Tensor]
    size: tuple[int, int]


class Appearance(NamedTuple):
    """What N objects look like.

    colours: [N, 2, BINS ** 3] float32, how often each colour is met in the object and around it.
    feature_weights: [N, C + 1] float32, of all levels and 1: 1 in the object, -1 around.
    """

    colours: Tensor
    feature_weights: Tensor


def cells_of(picture: Tensor, features: FrameFeatures | None, size: tuple[int, int]) -> Cells:
    """The cells of a frame.

    Args:
        picture: [3, S, S] in 0..1.
        features: of the same frame; None where colours alone judge.
        size: (h, w) of the decoder's masks.
    """
    colours = F.interpolate(picture[None], size, mode="area")[0].flatten(1)
    place = colours * (BINS - 1)
    low = place.floor().clamp(0, BINS - 2)
    near = torch.stack([1 - (place - low), place - low])  # [2, 3, h * w]
    corners = torch.cartesian_prod(*[torch.arange(2, device=picture.device)] * 3)  # [8, 3]
    channel = torch.arange(3, device=picture.device)
    stride = torch.tensor([BINS**2, BINS, 1], device=picture.device)[:, None]
    bins = ((low.long() + corners[:, :, None]) * stride).sum(dim=1)
    shares = near[corners, channel].prod(dim=1)
    maps = [] if features is None else [*features.high_res, features.embedding]
    levels = [F.layer_norm(m[0].float().movedim(0, -1), m.shape[1:2]).movedim(-1, 0) for m in maps]
    return Cells(bins, shares, levels, size)


def surroundings(is_object: Tensor) -> Tensor:
    """Objects [N, h, w] bool to the boxes around them and their margins, [N, h, w] bool.

    Of an object of fewer than LEAST_CELLS cells nothing is near.
    """
    height, width = is_object.shape[1:]
    x0, y0, x1, y1 = masks_to_boxes(is_object)[:, :, None, None].unbind(dim=1)
    reach_x, reach_y = ((MARGIN * (length + 1)).int() + 2 for length in (x1 - x0, y1 - y0))
    x = torch.arange(width, device=is_object.device)
    y = torch.arange(height, device=is_object.device)[:, None]
    in_columns = (x >= x0 - reach_x) & (x <= x1 + reach_x)
    in_rows = (y >= y0 - reach_y) & (y <= y1 + reach_y)
    is_enough = is_object.flatten(1).sum(dim=1)[:, None, None] >= LEAST_CELLS
    return is_enough & in_columns & in_rows


def learn(cells: Cells, share: Tensor, is_near: Tensor) -> Appearance | None:
    """What an object looks like on one frame; None where nothing is near, or nothing around it.

    Args:
        cells: of the frame.
        share: [h, w] in 0..1, how much of each cell is object.
        is_near: [h, w] bool, the object and its surroundings.
    """
    share = share.float()
    parts = torch.stack([share * is_near, (1 - share) * is_near]).flatten(1)
    amounts = parts.sum(dim=1, keepdim=True)
    if amounts[0] < LEAST_SHARE or amounts[1] < LEAST_CELLS:
        return None
    parts = parts / amounts
    colours = parts.new_zeros(2, BINS**3)
    for bins, shares in zip(cells.bins, cells.shares, strict=True):
        colours.index_add_(1, bins, parts * shares)

    near = _some(is_near.flatten().nonzero()[:, 0])
    features = [_at(level, near, cells.size) for level in cells.levels]
    parts = parts[:, near]  # of an object of few cells none may be among those drawn
    parts = parts / parts.sum(dim=1, keepdim=True).clamp(min=torch.finfo(parts.dtype).eps)
    return Appearance(colours[None], _classifier(features, *parts)[None])


def _some(cells: Tensor) -> Tensor:
    """At most MOST_CELLS of some cells [n], in order, the same at each call."""
    if len(cells) <= MOST_CELLS:
        return cells
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))
    return cells[order[:MOST_CELLS].sort().values.to(cells.device)]


def _at(level: Tensor, cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Features [C, n] of some cells [n], as if the level [C, hl, wl] was enlarged to all [h, w]."""
    height, width = size
    place = torch.stack([(cells % width + 0.5) / width, (cells // width + 0.5) / height], dim=-1)
    limits = 1 - 1 / place.new_tensor([level.shape[2], level.shape[1]])  # of its outermost cells
    grid = (2 * place - 1).clamp(-limits, limits)[None, None]
    return F.grid_sample(level[None], grid, align_corners=False)[0, :, 0]


def _classifier(features: list[Tensor], inside: Tensor, around: Tensor) -> Tensor:
    """Weights [C + 1] that bring features [Cl, n] and 1 to 1 in an object and to -1 around it.

    Cells count as much as they are `inside` and `around` [n]. The equations are few: they are
    solved on the CPU, as some devices cannot.
    """
    inputs = torch.cat([*features, inside.new_ones(1, len(inside))])
    with torch.autocast(inputs.device.type, enabled=False):
        moments = ((inputs * (inside + around)) @ inputs.T).cpu().double()
        wanted = (inputs @ (inside - around)).cpu().double()
    moments.diagonal().add_(RIDGE)
    return torch.linalg.solve(moments, wanted).to(inputs)


def stack_looks(looks: Sequence[Appearance | None]) -> Appearance | None:
    """One appearance of N objects; those that nothing is known of get no evidence."""
    known = next((one for one in looks if one is not None), None)
    if known is None:
        return None
    blank = Appearance(*(torch.zeros_like(part) for part in known))
    rows = [blank if one is None else one for one in looks]
    return Appearance(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


def evidence(cells: Cells, looks: Appearance, is_near: Tensor) -> Tensor:
    """How much more each cell looks like the object than like what was around it.

    Args:
        cells: of a frame.
        looks: of N objects.
        is_near: [N, h, w] bool, where objects may be on this frame.

    Returns:
        [N, 1, h, w], of magnitude LARGEST_RATIO + FEATURE_SHARE at most; 0 elsewhere.
    """
    colours = sum(
        looks.colours[:, :, bins] * shares
        for bins, shares in zip(cells.bins, cells.shares, strict=True)
    )
    inside, around = (colours + UNSEEN).unbind(dim=1)
    ratio = (inside / around).log().clamp(-LARGEST_RATIO, LARGEST_RATIO).unflatten(1, cells.size)

    *weights, offset = looks.feature_weights.split([*map(len, cells.levels), 1], dim=1)
    with torch.autocast(is_near.device.type, enabled=False):
        scores = offset[:, :, None, None] + sum(
            enlarge(torch.einsum("nc,chw->nhw", w, level)[:, None], cells.size)
            for w, level in zip(weights, cells.levels, strict=True)
        )
    found = ratio[:, None] + FEATURE_SHARE * scores.clamp(-1, 1)
    return found * is_near[:, None]


def heed_own_colours(picture: Tensor, mask_logits: Tensor, weight: float) -> Tensor:
    """An answer judged by the colours of what it takes for an object and for what is around it.

    Args:
        picture: [3, H, W] in 0..1, of the object and its surroundings alone.
        mask_logits: [h, w] of the answer, foreground where > 0.
        weight: of the evidence.

    Returns:
        [h, w] logits; as they came where too little is, or would be left of, the object, or is
        around it.
    """
    cells = cells_of(picture, None, (mask_logits.shape[0], mask_logits.shape[1]))
    everywhere = torch.ones_like(mask_logits, dtype=torch.bool)
    judged = mask_logits
    for _ in range(ROUNDS):
        looks = learn(cells, torch.sigmoid(judged), everywhere)
        if looks is None:
            return mask_logits
        judged = mask_logits + weight * evidence(cells, looks, everywhere[None])[0, 0]
        if (judged > 0).sum() < LEAST_CELLS:
            return mask_logits
    return judged
