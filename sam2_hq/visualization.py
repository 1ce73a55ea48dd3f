"""Pictures for people: masks over a frame, prompts, contact sheets. Arrays in, arrays out.

Colours are the DAVIS palette, so an overlay and a mask PNG agree. Nothing is opened or shown here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from sam2_hq.data.masks import davis_palette

Color = tuple[int, int, int]
Frame = NDArray[np.uint8]

FOREGROUND: Color = (40, 200, 80)
BACKGROUND: Color = (230, 50, 50)
EDGE: Color = (255, 255, 255)


def object_colors(palette: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Colours for ids 1, 2, ...: uint8 [N, 3], the DAVIS palette without the black of 0.

    Raises:
        ValueError: if `palette` is not uint8 [N, 3] with at least two colours.
    """
    colors = davis_palette() if palette is None else palette
    if colors.dtype != np.uint8 or colors.ndim != 2 or colors.shape[1] != 3 or len(colors) < 2:
        raise ValueError(
            f"palette must be uint8 [N, 3], background first, got {colors.dtype} "
            f"{list(colors.shape)}"
        )
    return colors[1:]


def overlay(
    frame: Frame,
    ids: NDArray[np.generic],
    *,
    alpha: float = 0.5,
    outline: bool = True,
    palette: NDArray[np.uint8] | None = None,
) -> Frame:
    """Tint each object with its colour.

    Args:
        frame: RGB uint8 [H, W, 3].
        ids: integers [H, W], 0 for background; beyond the palette its colours repeat.
        alpha: 0 leaves the frame, 1 covers it.
        outline: draw the inner edge of each object in a lighter colour.
        palette: uint8 [N, 3], background first; DAVIS if None.

    Returns:
        RGB uint8 [H, W, 3], a new array.

    Raises:
        ValueError: for other shapes or dtypes, or an `alpha` outside 0 to 1.
    """
    _check_frame(frame)
    ids = np.asarray(ids)
    if ids.shape != frame.shape[:2] or ids.dtype.kind not in "bui":
        raise ValueError(
            f"ids must be integers {list(frame.shape[:2])}, got {ids.dtype} {list(ids.shape)}"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be 0 to 1, got {alpha}")
    colors = object_colors(palette)
    result = frame.copy()
    numbers = ids.astype(np.int64)
    is_object = numbers > 0
    paint = colors[(numbers[is_object] - 1) % len(colors)]
    mixed = (1 - alpha) * frame[is_object] + alpha * paint
    result[is_object] = np.rint(mixed).astype(np.uint8)
    if outline:
        edge = inner_edges(ids, width=_line_width(frame))
        # Half white: half of the palette is too dark to be seen on a dark object.
        result[edge] = (colors[(numbers[edge] - 1) % len(colors)] >> 1) + 127
    return result


def inner_edges(ids: NDArray[np.generic], *, width: int = 1) -> NDArray[np.bool_]:
    """Object pixels at most `width` steps from a pixel of another id: bool [H, W].

    The border of the picture is no edge.
    """
    near = 2 * width + 1
    plain = ids.astype(np.int64)
    low = ndimage.minimum_filter(plain, size=near, mode="nearest")
    high = ndimage.maximum_filter(plain, size=near, mode="nearest")
    return (plain > 0) & (low != high)


def stack_masks(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint16]:
    """Number masks 1, 2, ... in one id map, the largest painted first so that small ones show.

    Args:
        masks: bool [H, W] each, such as the `segmentation` of every record of the mask generator.

    Returns:
        uint16 [H, W].

    Raises:
        ValueError: if there is none, or more than 65535, or a mask is not bool [H, W] of one size.
    """
    if not 1 <= len(masks) <= np.iinfo(np.uint16).max:
        raise ValueError(f"masks must be 1 to 65535 masks, got {len(masks)}")
    for mask in masks:
        if mask.dtype != np.bool_ or mask.ndim != 2 or mask.shape != masks[0].shape:
            raise ValueError(
                f"masks must be bool [H, W] of one size, got {mask.dtype} {mask.shape}"
            )
    ids = np.zeros(masks[0].shape, dtype=np.uint16)
    for index in sorted(range(len(masks)), key=lambda i: -int(masks[i].sum())):
        ids[masks[index]] = index + 1
    return ids


def draw_prompts(
    frame: Frame,
    points: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    boxes: ArrayLike | None = None,
) -> Frame:
    """Draw clicks as dots (green for foreground, red for background) and boxes as frames.

    Args:
        frame: RGB uint8 [H, W, 3].
        points: [P, 2] x and y in pixels of the frame.
        labels: [P], 1 foreground, 0 background; padding (-1) is not drawn.
        boxes: [N, 4] or [4], x0, y0, x1, y1 in pixels of the frame.

    Returns:
        RGB uint8 [H, W, 3], a new array.

    Raises:
        ValueError: if shapes do not fit each other.
    """
    _check_frame(frame)
    xy, signs, corners = _check_prompts(points, labels, boxes)
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    width = _line_width(frame)
    radius = 2 + 3 * width
    for x0, y0, x1, y1 in corners.tolist():
        draw.rectangle((x0, y0, x1, y1), outline=FOREGROUND, width=width)
    for (x, y), sign in zip(xy.tolist(), signs.tolist(), strict=True):
        if sign >= 0:
            dot = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(dot, fill=FOREGROUND if sign else BACKGROUND, outline=EDGE, width=width)
    return np.array(image, dtype=np.uint8)


def contact_sheet(frames: Sequence[Frame], *, columns: int | None = None, gap: int = 4) -> Frame:
    """Put pictures side by side, row by row, on white.

    Args:
        frames: RGB uint8 [H, W, 3], sizes may differ: each sits top left in a cell of the largest.
        columns: pictures a row; as square as can be if None.
        gap: pixels between cells.

    Returns:
        RGB uint8.

    Raises:
        ValueError: if there is no frame, one is no picture, or a number is out of range.
    """
    if not frames:
        raise ValueError("frames is empty")
    for frame in frames:
        _check_frame(frame)
    columns = math.ceil(math.sqrt(len(frames))) if columns is None else columns
    if columns < 1 or gap < 0:
        raise ValueError(f"columns must be >= 1 and gap >= 0, got {columns} and {gap}")
    columns = min(columns, len(frames))
    rows = math.ceil(len(frames) / columns)
    height = max(frame.shape[0] for frame in frames) + gap
    width = max(frame.shape[1] for frame in frames) + gap
    sheet = np.full((rows * height - gap, columns * width - gap, 3), 255, dtype=np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return sheet


def _check_frame(frame: Frame) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise ValueError(f"frame must be uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}")


def _check_prompts(
    points: ArrayLike | None, labels: ArrayLike | None, boxes: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    if (points is None) != (labels is None):
        raise ValueError("points and labels must come together")
    xy = np.asarray([] if points is None else points, dtype=np.float64)
    signs = np.asarray([] if labels is None else labels, dtype=np.int64)
    corners = np.asarray([] if boxes is None else boxes, dtype=np.float64)
    xy = xy.reshape(0, 2) if xy.size == 0 else xy
    corners = corners.reshape(-1, 4) if corners.size == 0 or corners.ndim == 1 else corners
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"points must be [P, 2], got {list(xy.shape)}")
    if signs.shape != xy.shape[:1]:
        raise ValueError(f"labels must be [{len(xy)}], got {list(signs.shape)}")
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(f"boxes must be [N, 4] or [4], got {list(corners.shape)}")
    return xy, signs, corners


def _line_width(frame: Frame) -> int:
    return max(1, round(min(frame.shape[:2]) / 240))
