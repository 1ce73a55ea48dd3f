"""Zoom-In: look again, at windows around what the first look found.

A small object fills few cells of the network's picture. In a window around it, it fills many, so
its outline is sharper and what lies far away is not taken for it. An unsure answer to a box, which
says what is not the object, is judged by its own colours, too.

Source: f-BRS (Sofiiuk et al., 2020), section 3.3; here the answer before goes in as a mask prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.ops.appearance import heed_own_colours
from sam2_hq.ops.masks import PROMPT_LOGIT_LIMIT, masks_to_boxes
from sam2_hq.structures import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    PADDING,
    POSITIVE,
    HQMode,
    PointPrompt,
)
from sam2_hq.transforms import SAM2Transforms, frame_pixels

MIN_SIDE = 0.2
"""Smallest side of a window, of the longer side of the picture: nearer, there is only blur."""

NUM_WINDOWS = 2
"""Looks after the first one; the last window is placed by a sharper mask."""

WINDOWS_A_PASS = 8

CERTAIN_LOGIT = 4.0
"""What pixels count at most when they are averaged to cells, so that these tell covered shares; and
how surely what lies outside of a box is not the object."""

BOX_SLACK = 0.01
"""How far an object may reach over its box, in sides of the box: boxes are drawn by hand."""

SURE_IOU, UNSURE_IOU = 0.6, 0.45
"""Predicted IoU of answers whose own colours count nothing, and all they can."""

OWN_COLOURS = 2.0
"""What these count at most."""

MIN_COVERED = 0.01
"""Share of a cell below which it is empty, also where no other one is fuller."""

FULL = 0.99
"""Share of a cell from which it is covered."""

CELL_LOGIT = 10.0
"""Logit of a cell that is covered; about what the decoder gives."""


class Window(NamedTuple):
    """The pixels x0 <= x < x1, y0 <= y < y1 of a picture."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0

    def cut(self, maps: Tensor) -> Tensor:
        """This part of maps [..., H, W], a view."""
        return maps[..., self.y0 : self.y1, self.x0 : self.x1]

    def crop(self, picture: np.ndarray) -> np.ndarray:
        """This part of a picture [H, W, 3], a view."""
        return picture[self.y0 : self.y1, self.x0 : self.x1]


class Seen(NamedTuple):
    """What all looks together saw of N objects.

    logits: [N, H, W].
    windows: of each object, those that added to it.
    """

    logits: Tensor
    windows: list[list[Window]]


def look_again(
    model: SAM2Base,
    picture: np.ndarray,
    logits: Tensor,
    points: PointPrompt | None,
    *,
    iou: Tensor,
    ratio: float,
    hq_mode: HQMode,
    enlarge: Callable[[Tensor, tuple[int, int]], Tensor],
    threshold: float = 0.0,
) -> Seen:
    """Ask for each object again, in windows around it, each around what was seen before.

    A look that loses what was found does not count. What the looks find is kept to the box, unless
    a click on the object says that this is too small, or nothing of it lies inside.

    Args:
        model: what looks.
        picture: uint8 [H, W, 3].
        logits: [N, H, W] answers of the first look.
        points: what was asked, [N, P] points in model pixels of the whole picture; a box counts
            as two. Those outside a window are left out of its question.
        iou: [N] predicted IoU of the first look.
        ratio: side of a window, in larger sides of its object.
        hq_mode: of the masks.
        enlarge: brings logits [1, 1, 4g, 4g] to the height and width of a window.
        threshold: logits above it are the object.
    """
    seen = Seen(logits.clone(), [[] for _ in logits])
    marks = _marks(points, logits, model)
    limits = [_limits(corners, clicks) for corners, clicks in marks]
    doubts = ((SURE_IOU - iou) / (SURE_IOU - UNSURE_IOU)).clamp(0, 1).tolist()
    for row, limit in enumerate(limits):
        if limit is not None:
            kept = _kept_to(limit, logits[row], threshold)
            if (kept > threshold).any():
                seen.logits[row] = kept
    for _ in range(NUM_WINDOWS):
        found = [
            (row, window)
            for row, asked in enumerate(marks)
            if (window := _window_of_row(seen.logits[row] > threshold, *asked, ratio))
        ]
        for row, window, answer in _answers(model, picture, seen.logits, points, found, hq_mode):
            limit = limits[row]
            if limit is not None and doubts[row] > 0:
                pixels = _pixels(window.crop(picture), model)
                weight = OWN_COLOURS * doubts[row]
                judged = heed_own_colours(pixels, answer[0] - threshold, weight)
                answer = judged[None] + threshold
            fine = enlarge(answer[None], window.size)[0, 0]
            if limit is not None:
                fine = _kept_to(limit, fine, threshold, window)
            if (fine > threshold).any() or not (seen.logits[row] > threshold).any():
                if limit is not None and not seen.windows[row]:  # all was found beside the box
                    seen.logits[row] = _kept_to(limit, seen.logits[row], threshold)
                window.cut(seen.logits[row]).copy_(fine)
                seen.windows[row].append(window)
    return seen


def window_around(
    extent: tuple[float, float, float, float], size: tuple[int, int], ratio: float
) -> Window:
    """A window around x0, y0, x1, y1 in a picture of height and width `size`.

    It is square where the picture leaves room for that.
    """
    height, width = size
    x0, y0, x1, y1 = extent
    side = max(ratio * max(x1 - x0, y1 - y0), MIN_SIDE * max(height, width), 1)
    across, down = min(round(side), width), min(round(side), height)
    left = min(max(round((x0 + x1 - across) / 2), 0), width - across)
    top = min(max(round((y0 + y1 - down) / 2), 0), height - down)
    return Window(left, top, left + across, top + down)


def _marks(
    points: PointPrompt | None, logits: Tensor, model: SAM2Base
) -> list[tuple[Tensor, Tensor]]:
    """Of each object the corners of its box [0 or 2, 2] and the clicks on it [n, 2], in pixels."""
    if points is None:
        return [(torch.zeros(0, 2), torch.zeros(0, 2)) for _ in logits]
    height, width = logits.shape[-2:]
    coords = points.coords.float().cpu() * torch.tensor([width, height]) / model.image_size
    labels = points.labels.cpu()
    is_corner = (labels == BOX_TOP_LEFT) | (labels == BOX_BOTTOM_RIGHT)
    is_click = labels == POSITIVE
    return [(c[box], c[click]) for c, box, click in zip(coords, is_corner, is_click, strict=True)]


def _window_of_row(mask: Tensor, corners: Tensor, clicks: Tensor, ratio: float) -> Window | None:
    """The window around an object: around its box, or else its mask and the clicks on it."""
    marks = torch.cat([corners, clicks])
    if not len(corners) and mask.any():
        x0, y0, x1, y1 = masks_to_boxes(mask).tolist()
        marks = torch.cat([marks, marks.new_tensor([[x0, y0], [x1 + 1, y1 + 1]])])
    if not len(marks):
        return None
    (x0, y0), (x1, y1) = marks.amin(dim=0).tolist(), marks.amax(dim=0).tolist()
    return window_around((x0, y0, x1, y1), (mask.shape[0], mask.shape[1]), ratio)


def _limits(corners: Tensor, clicks: Tensor) -> Window | None:
    """What an object keeps to: its box and BOX_SLACK; None without one or with a click outside."""
    if not len(corners):
        return None
    low, high = corners.amin(dim=0), corners.amax(dim=0)
    slack = BOX_SLACK * (high - low)
    low, high = low - slack, high + slack
    if ((clicks < low) | (clicks > high)).any():
        return None
    (x0, y0), (x1, y1) = low.clamp(min=0).floor().int().tolist(), high.ceil().int().tolist()
    return Window(x0, y0, x1, y1)


def _kept_to(
    limits: Window, logits: Tensor, threshold: float, window: Window | None = None
) -> Tensor:
    """Logits [H, W] of the picture, or of a window of it, with no object outside of its limits."""
    left, top = (0, 0) if window is None else (window.x0, window.y0)
    x0, x1 = (max(x - left, 0) for x in (limits.x0, limits.x1))
    y0, y1 = (max(y - top, 0) for y in (limits.y0, limits.y1))
    is_outside = logits > threshold
    is_outside[y0:y1, x0:x1] = False
    return torch.where(is_outside, threshold - CERTAIN_LOGIT, logits)


def _pixels(crop: np.ndarray, model: SAM2Base) -> Tensor:
    """A part of a picture [3, h, w] in 0..1, of a large one every second, third, ... pixel."""
    step = max(min(crop.shape[:2]) // model.image_size, 1)
    return frame_pixels(crop[::step, ::step].copy(), model.device)


def _answers(
    model: SAM2Base,
    picture: np.ndarray,
    logits: Tensor,
    points: PointPrompt | None,
    found: list[tuple[int, Window]],
    hq_mode: HQMode,
) -> Iterator[tuple[int, Window, Tensor]]:
    """Windows of objects with their answers [1, 4g, 4g], asked for WINDOWS_A_PASS at a time."""
    for start in range(0, len(found), WINDOWS_A_PASS):
        group = found[start : start + WINDOWS_A_PASS]
        answers = _ask(model, picture, logits, points, group, hq_mode)
        for (row, window), answer in zip(group, answers, strict=True):
            yield row, window, answer


def _ask(
    model: SAM2Base,
    picture: np.ndarray,
    logits: Tensor,
    points: PointPrompt | None,
    group: list[tuple[int, Window]],
    hq_mode: HQMode,
) -> Tensor:
    """Logits [n, 1, 4g, 4g] of some windows, from the same prompts and the answers before."""
    transforms = SAM2Transforms(model.image_size)
    crops = [window.crop(picture) for _, window in group]
    features = model.encode_image(transforms.forward_batch(crops, model.device))
    size = model.sam_prompt_encoder.mask_input_size
    known = torch.cat([_resized(w.cut(logits[row])[None, None], size) for row, w in group])
    out = model.decode_candidates(
        model.condition_still(features),
        features.high_res,
        points=_in_windows(points, group, logits.shape[-2:], model.image_size),
        mask_logits=known.clamp(-PROMPT_LOGIT_LIMIT, PROMPT_LOGIT_LIMIT),
        candidates="single",
        pad_empty=False,
        with_hq=hq_mode != "off",
    )
    return model.combine(out, hq_mode).float()


def _in_windows(
    points: PointPrompt | None,
    group: list[tuple[int, Window]],
    size: Sequence[int],
    side: int,
) -> PointPrompt | None:
    """Points in model pixels of the windows; clicks outside become padding."""
    if points is None:
        return None
    rows = torch.tensor([row for row, _ in group], device=points.coords.device)
    corners = points.coords.new_tensor([window for _, window in group])[:, None]  # [n, 1, 4]
    coords = points.coords[rows] / side * points.coords.new_tensor([size[1], size[0]])
    # What a window was made for may lie half a pixel outside of its whole pixels.
    is_inside = ((coords >= corners[..., :2] - 1) & (coords <= corners[..., 2:] + 1)).all(dim=2)
    labels = points.labels[rows]
    coords = (coords - corners[..., :2]) / (corners[..., 2:] - corners[..., :2]) * side
    coords = torch.where(is_inside[..., None], coords.clamp(0, side), 0)
    return PointPrompt(coords, torch.where(is_inside, labels, PADDING))


def low_res_with(
    low_res: Tensor, logits: Tensor, windows: list[Window], threshold: float = 0.0
) -> Tensor:
    """Low-resolution logits of a mask after looks at windows.

    Cells outside of windows stay as they were, but for those that lost all of the mask. What is
    too small to fill half of a cell keeps the cells that it covers most, as a painted mask does.

    Args:
        low_res: [h, w] of the first look.
        logits: [H, W] in pixels of the picture, of all looks.
        windows: where it changed.
        threshold: logits above it are the object.
    """
    certain = (logits - threshold).clamp(-CERTAIN_LOGIT, CERTAIN_LOGIT) / CERTAIN_LOGIT
    covered = (_resized(certain[None, None], low_res.shape)[0, 0] + 1) / 2
    (h, w), (height, width) = low_res.shape, logits.shape
    y = torch.arange(h, device=covered.device) * (height / h)
    x = torch.arange(w, device=covered.device) * (width / w)
    is_seen = torch.zeros_like(low_res, dtype=torch.bool)
    for window in windows:
        rows = (y + height / h > window.y0) & (y < window.y1)
        columns = (x + width / w > window.x0) & (x < window.x1)
        is_seen |= rows[:, None] & columns
    found = _resized((logits > threshold).float()[None, None], low_res.shape)[0, 0]
    is_seen |= (low_res > threshold) & (found == 0)
    fullest = torch.where(is_seen, found, 0).amax()
    border = fullest.new_tensor(0.5)
    if 0 < fullest < FULL:  # it is too small for its cells: sure or not, what was found counts
        covered, border = found, (fullest / 2).clamp(min=MIN_COVERED)
    cells = (covered / border - 1) * CELL_LOGIT
    return torch.where(is_seen, cells + threshold, low_res)


def _resized(logits: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=False, antialias=True)
