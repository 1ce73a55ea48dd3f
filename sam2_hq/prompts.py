"""What the user says, checked at the door and turned into tensors.

Coordinates are x, y in pixels of the user's picture; `size` is its (height, width).
"""

from __future__ import annotations

import operator
from collections.abc import Hashable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2_hq.structures import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, PADDING, POSITIVE

LABELS = (PADDING, NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # torch keeps them, but cannot compare them


def object_id(obj_id: Any) -> Hashable:
    """Check the name of an object: integers of NumPy and torch to int, whatever else as it is.

    Raises:
        TypeError: for what is not hashable, and for a tensor of anything but one integer.
    """
    if isinstance(obj_id, bool):
        return obj_id
    with suppress(TypeError):
        return operator.index(obj_id)
    if isinstance(obj_id, Tensor):  # hashed by identity: an equal one would be another object
        raise TypeError(f"obj_id must be one integer if it is a tensor, got {obj_id}")
    try:
        hash(obj_id)
    except TypeError as error:
        raise TypeError(f"obj_id must be hashable, got {type(obj_id).__name__}") from error
    return obj_id


def points_and_labels(points: Any, labels: Any, size: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Check clicks.

    Args:
        points: [P, 2] or [B, P, 2] numbers, any array, list or tensor; P may be 0.
        labels: [P] or [B, P] numbers in -1..3.
        size: (height, width) of the frame of the coordinates.

    Returns:
        Coordinates [B, P, 2] float32 and labels [B, P] int32, on the CPU or where they came from.

    Raises:
        ValueError: for one without the other, shapes that do not fit, numbers that are not finite,
            points outside the picture, unknown labels.
    """
    if points is None or labels is None:
        missing = "points" if points is None else "labels"
        raise ValueError(f"points and labels must be given together, {missing} is missing")
    given = _numbers(points, "points")
    given_kinds = _numbers(labels, "labels")
    coords = given[None] if given.ndim == 2 else given
    kinds = given_kinds[None] if given_kinds.ndim == 1 else given_kinds
    if coords.ndim != 3 or coords.shape[-1] != 2 or len(coords) == 0:
        raise ValueError(f"points must be [P, 2] or [B, P, 2], got {list(given.shape)}")
    if kinds.shape != coords.shape[:2]:
        wanted, came = list(given.shape[:-1]), list(given_kinds.shape)
        raise ValueError(f"labels must be {wanted} to fit the points, got {came}")
    known = torch.isin(kinds, torch.tensor(LABELS, dtype=kinds.dtype, device=kinds.device))
    if not bool(known.all()):
        wrong = kinds[~known][0].item()
        raise ValueError(f"labels must be among {LABELS}, got {wrong:g}")
    _check_inside(coords[kinds != PADDING], size, "points")
    return coords, kinds.to(torch.int32)


def boxes(box: Any, size: tuple[float, float]) -> Tensor:
    """Check boxes: (4,) or [B, 4] numbers x0, y0, x1, y1 to [B, 2, 2] corners in float32.

    Raises:
        ValueError: for other shapes, numbers that are not finite, corners outside the picture, an
            inverted or empty box.
    """
    given = _numbers(box, "box")
    corners = given[None] if given.ndim == 1 else given
    if corners.ndim != 2 or corners.shape[-1] != 4 or len(corners) == 0:
        raise ValueError(f"box must be [4] or [B, 4], got {list(given.shape)}")
    _check_inside(corners.reshape(-1, 2), size, "box")
    for x0, y0, x1, y1 in corners.tolist():
        if x1 <= x0 or y1 <= y0:
            raise ValueError(
                "box must be x0, y0, x1, y1 with x0 < x1 and y0 < y1, "
                f"got {x0:g}, {y0:g}, {x1:g}, {y1:g}"
            )
    return corners.reshape(-1, 2, 2)


def corner_labels(batch: int, device: torch.device) -> Tensor:
    """Labels [B, 2] of box corners."""
    kinds = torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], dtype=torch.int32, device=device)
    return kinds.expand(batch, 2)


def earlier_logits(mask_input: Any, side: int) -> Tensor:
    """Check logits of an earlier call, [1, side, side] or [N, 1, side, side]: to the latter.

    Raises:
        ValueError: for another shape, or numbers that are not finite.
    """
    logits = _numbers(mask_input, "mask_input")
    if logits.ndim == 3:
        logits = logits[None]
    if logits.ndim != 4 or logits.shape[1:] != (1, side, side) or len(logits) == 0:
        raise ValueError(
            f"mask_input must be [1, {side}, {side}] or [N, 1, {side}, {side}] logits of an "
            f"earlier call, got {list(np.shape(mask_input))}"
        )
    return logits


def painted_mask(mask: Any, size: tuple[int, int]) -> Tensor:
    """Check a painted mask [height, width] of 0 and 1, False and True, or 0 and 255: to bool.

    Raises:
        ValueError: for another shape than `size`, more than two values, or values that are not a
            mask (logits, NaN).
        TypeError: for something that is no array.
    """
    try:
        array = mask.detach() if isinstance(mask, Tensor) else _native_tensor(np.array(mask))
    except (TypeError, ValueError) as error:
        raise TypeError(f"mask must be an array, got {type(mask).__name__}") from error
    if tuple(array.shape) != tuple(size):
        raise ValueError(
            f"mask must be [{size[0]}, {size[1]}] (height, width), got {list(array.shape)}"
        )
    if array.dtype == torch.bool:
        return array
    if array.is_complex():
        raise ValueError(f"mask must be bool, 0 and 1, or 0 and 255, got {array.dtype}")
    dtype = array.dtype
    if dtype in _UNSIGNED:
        array = array.long()
    values = torch.unique(array)
    top = float(values[-1])
    if top not in (0.0, 1.0, 255.0) or not bool(
        torch.isin(values, values.new_tensor([0, top])).all()
    ):
        shown = ", ".join(f"{v:g}" for v in values[:4].tolist())
        raise ValueError(f"mask must be bool, 0 and 1, or 0 and 255, got {dtype}: {shown}, ...")
    return array > 0


def _native_tensor(array: np.ndarray) -> Tensor:
    """As a tensor; files bring numbers in another byte order."""
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _numbers(value: Any, name: str) -> Tensor:
    """As a finite float32 tensor."""
    try:
        if value.is_complex() if isinstance(value, Tensor) else np.iscomplexobj(value):
            raise TypeError("complex")
        if isinstance(value, Tensor):
            tensor = value.detach().to(torch.float32)
        else:
            tensor = torch.from_numpy(np.array(value, dtype=np.float32))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be numbers, got {value!r}") from error
    if not bool(torch.isfinite(tensor).all()):
        wrong = tensor[~torch.isfinite(tensor)][0].item()
        raise ValueError(f"{name} must be finite numbers, got {wrong}")
    return tensor


def _check_inside(points: Tensor, size: tuple[float, float], name: str) -> None:
    height, width = size
    limit = points.new_tensor([width, height])
    outside = ((points < 0) | (points > limit)).any(dim=-1)
    if bool(outside.any()):
        x, y = points[outside][0].tolist()
        raise ValueError(
            f"{name} must lie inside the picture, 0 <= x <= {width:g} and 0 <= y <= {height:g}, "
            f"got x={x:g}, y={y:g}"
        )
