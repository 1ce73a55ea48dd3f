"""Id maps: one picture whose pixel value is the object's id, 0 for background. Read, write, split.

Written as palette PNG in the colours of DAVIS, so that a viewer shows the objects apart. What tells
an id map from the gray picture of one mask is here, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sam2_hq.data.atomic import whole_file
from sam2_hq.data.pictures import DAMAGE

MAX_ID = 255
VOID = 255
"""Painted where nobody knows, beside other ids; alone it is the object of a binary mask."""
LOSSY_FORMATS = frozenset({"JPEG", "MPO", "JPEG2000"})
MAX_TINT = 16
"""Between the channels of a gray picture that a lossy format has kept, in steps of 255."""

BoolMask = NDArray[np.bool_]
IdMap = NDArray[np.uint8] | NDArray[np.uint16]


def davis_palette() -> NDArray[np.uint8]:
    """Colours of the ids: uint8 [256, 3], the map of PASCAL VOC and DAVIS.

    Bits 3j, 3j+1 and 3j+2 of the id are bit j, counted from the top, of red, green and blue.
    """
    ids = np.arange(MAX_ID + 1)
    palette = np.zeros((MAX_ID + 1, 3), dtype=np.uint8)
    for j in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * j + channel)) & 1) << (7 - j)).astype(np.uint8)
    return palette


def read_id_map(path: str | os.PathLike[str]) -> IdMap:
    """Read the ids of a palette or gray picture.

    Returns:
        uint8 [H, W], or uint16 for 16-bit gray. Palette pictures give indices, not colours.

    Raises:
        ValueError: if the file is missing, damaged, in colour, or of a lossy format.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"mask '{path}': no such file")
    try:
        with Image.open(path) as image:
            _check_is_id_map(image, path)
            pixels = np.asarray(image)
            mode = image.mode
    except DAMAGE as error:
        if str(error).startswith(f"mask '{path}'"):
            raise
        raise ValueError(f"mask '{path}' cannot be read: {error}") from error
    is_deep = mode.startswith("I")  # "I" is how older Pillow opens 16-bit gray
    return pixels.astype(np.uint16) if is_deep else pixels.astype(np.uint8)


def has_coloured_palette(image: Image.Image) -> bool:
    """Whether a picture shows its indices in colours, as one of ids does; gray ones are values."""
    if image.mode != "P":
        return False
    colours = np.reshape(image.getpalette("RGB") or [], (-1, 3))
    return bool((colours != colours[:, :1]).any())


def gray_channel(pixels: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """The one channel [H, W] of a mask [H, W, 3].

    Args:
        pixels: RGB.
        name: what error messages call it.

    Raises:
        ValueError: if it is in colour: its channels would be different masks.
    """
    tint = int((pixels.max(axis=2) - pixels.min(axis=2)).max())
    if tint > MAX_TINT:
        raise ValueError(
            f"{name} must be gray, got colours (channels differ by {tint}); "
            "ids of several objects need a palette PNG"
        )
    return pixels[..., 0]


def write_id_map(path: str | os.PathLike[str], ids: NDArray[np.generic]) -> None:
    """Write ids as a palette PNG, whole or not at all.

    Args:
        path: ends in .png; the folder exists.
        ids: integer or bool [H, W], values 0 to 255.

    Raises:
        ValueError: for another shape, dtype, range or suffix.
        OSError: if it cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got '{path}'")
    if ids.ndim != 2 or ids.size == 0 or ids.dtype.kind not in "bui":
        raise ValueError(f"ids must be integers [H, W], got {ids.dtype} {list(ids.shape)}")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high > MAX_ID:
        raise ValueError(f"ids must be 0 to {MAX_ID} to fit a palette, got {low} to {high}")
    image = Image.fromarray(np.ascontiguousarray(ids, dtype=np.uint8))
    image.putpalette(davis_palette().tobytes())
    with whole_file(path) as partial:
        image.save(partial, format="PNG")


def write_object_masks(
    folder: str | os.PathLike[str], frame_name: str, masks: Mapping[int, BoolMask]
) -> None:
    """Write `folder/<id>/<frame_name>.png` for each object, 1 where it is; ids have 3 digits.

    Overlaps are kept, unlike in an id map. Folders are made.

    Raises:
        ValueError: if a mask is not bool [H, W], or an id is negative.
    """
    for object_id, mask in masks.items():
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise ValueError(
                f"mask of object {object_id} must be bool [H, W], "
                f"got {mask.dtype} {list(mask.shape)}"
            )
        if object_id < 0:
            raise ValueError(f"object ids must not be negative, got {object_id}")
    for object_id, mask in masks.items():
        own = Path(folder) / f"{object_id:03d}"
        own.mkdir(parents=True, exist_ok=True)
        write_id_map(own / f"{frame_name}.png", mask)


def split_ids(ids: NDArray[np.generic], *, void: int | None = None) -> dict[int, BoolMask]:
    """Split an id map into one mask an object, ascending by id.

    Args:
        ids: integers [H, W]; 0 is background.
        void: an id that means "do not care" and is left out, 255 in DAVIS; None takes all.

    Raises:
        ValueError: if `ids` are not integers [H, W].
    """
    if ids.ndim != 2 or ids.dtype.kind not in "bui":
        raise ValueError(f"ids must be integers [H, W], got {ids.dtype} {list(ids.shape)}")
    return {int(i): ids == i for i in np.unique(ids) if i not in (0, void)}


def without_void(ids: Iterable[int]) -> list[int]:
    """The ids of objects, each once and ascending, without 255 where there are others."""
    found = sorted(set(ids))
    return found if found == [VOID] else [i for i in found if i != VOID]


def merge_masks(
    masks: Mapping[int, NDArray[np.generic] | torch.Tensor], *, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Join the masks of objects in one id map.

    Args:
        masks: id 1 to 255 -> bool [H, W], or float logits [H, W], an object where > 0. Where they
            overlap the highest logit wins, among equal logits the first; bool masks are painted
            in the order given, so the last wins.
        size: height and width, needed where `masks` is empty.

    Returns:
        uint8 [H, W].

    Raises:
        ValueError: for other ids, shapes that differ, bool among logits, or nothing to go by.
    """
    arrays = {i: _to_array(mask) for i, mask in masks.items()}
    height, width = _common_size(arrays, size)
    ids = np.zeros((height, width), dtype=np.uint8)
    best = np.zeros((height, width), dtype=np.float32)
    for object_id, mask in arrays.items():
        wins = mask if mask.dtype == np.bool_ else mask > best
        ids[wins] = object_id
        if mask.dtype != np.bool_:
            best[wins] = mask[wins]
    return ids


def _check_is_id_map(image: Image.Image, path: Path) -> None:
    if image.format in LOSSY_FORMATS:
        raise ValueError(f"mask '{path}' is {image.format}, which blurs ids; save it as PNG")
    if image.mode not in ("P", "L", "1", "I") and not image.mode.startswith("I;16"):
        raise ValueError(
            f"mask '{path}' has mode {image.mode}; a palette or gray picture of ids is needed"
        )


# Any: bool or float, told apart by the caller.
def _to_array(mask: NDArray[np.generic] | torch.Tensor) -> NDArray[Any]:
    if isinstance(mask, torch.Tensor):
        mask = mask.detach().cpu()
        return (mask if mask.dtype == torch.bool else mask.float()).numpy()
    return mask


def _common_size(
    arrays: Mapping[int, NDArray[Any]], size: tuple[int, int] | None
) -> tuple[int, int]:
    if not arrays and size is None:
        raise ValueError("masks is empty: give size to get an empty id map")
    kinds = {mask.dtype.kind for mask in arrays.values()}
    if kinds - {"b"} and kinds - {"f"}:
        raise ValueError("masks must all be bool, or all be float logits")
    first = size if size is not None else next(iter(arrays.values())).shape
    for object_id, mask in arrays.items():
        if not 1 <= object_id <= MAX_ID:
            raise ValueError(f"object ids must be 1 to {MAX_ID} to fit a map, got {object_id}")
        if mask.ndim != 2 or mask.shape != tuple(first):
            raise ValueError(
                f"mask of object {object_id} must be {list(first)} (height, width), "
                f"got {list(mask.shape)}"
            )
    return first[0], first[1]
