"""Folders of pictures with masks: any `images/ + masks/`, and the sets of HQSeg-44K as published.

A reader knows what lies where and decodes one sample when asked; what training makes of it is
decided in `reader_source.py`.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_hq.data.frames import IMAGE_SUFFIXES, JPEG_SUFFIXES, natural_key
from sam2_hq.data.masks import gray_channel, has_coloured_palette, split_ids, without_void
from sam2_hq.data.pictures import DAMAGE, read_picture
from sam2_hq.training.sample_log import SampleLog

HALF = 127
"""A mask pixel above it belongs to the object."""

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")

HQSEG_FOLDERS = {
    "DIS5K-TR": ("DIS5K/DIS-TR/im", "DIS5K/DIS-TR/gt"),
    "ThinObject5K-TR": (
        "thin_object_detection/ThinObject5K/images_train",
        "thin_object_detection/ThinObject5K/masks_train",
    ),
    "FSS": ("cascade_psp/fss_all", "cascade_psp/fss_all"),
    "DUTS-TR": ("cascade_psp/DUTS-TR", "cascade_psp/DUTS-TR"),
    "DUTS-TE": ("cascade_psp/DUTS-TE", "cascade_psp/DUTS-TE"),
    "ECSSD": ("cascade_psp/ecssd", "cascade_psp/ecssd"),
    "MSRA10K": ("cascade_psp/MSRA_10K", "cascade_psp/MSRA_10K"),
}
"""Pictures and masks of each training set of HQSeg-44K, below the data folder."""

HQSEG_VALIDATION_FOLDERS = {
    "DIS5K-VD": ("DIS5K/DIS-VD/im", "DIS5K/DIS-VD/gt"),
    "COIFT": ("thin_object_detection/COIFT/images", "thin_object_detection/COIFT/masks"),
    "HRSOD": ("thin_object_detection/HRSOD/images", "thin_object_detection/HRSOD/masks_max255"),
    "ThinObject5K-TE": (
        "thin_object_detection/ThinObject5K/images_test",
        "thin_object_detection/ThinObject5K/masks_test",
    ),
}
"""The same of the four sets on which HQ-SAM is measured."""


class Still(NamedTuple):
    """A picture and the masks of its objects.

    picture: uint8 [H, W, 3]. masks: uint8 [O, H, W], 0..255, soft where the source is; may overlap.
    """

    name: str
    picture: NDArray[np.uint8]
    masks: NDArray[np.uint8]


class StillFolder:
    """Pictures in one folder, masks of the same stem in another (or the same one).

    A palette PNG with colours holds the ids of several objects; any other mask is one object, soft
    where gray.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        masks: str | os.PathLike[str],
        *,
        name: str | None = None,
        log: SampleLog | None = None,
    ) -> None:
        """Pair the files; a picture without a mask is skipped and named in `log`.

        Args:
            images: pictures.
            masks: of the same stems.
            name: what messages call the data set; None for the folder of pictures, as given.
            log: where pictures without a mask are counted.

        Raises:
            ValueError: if a folder is missing or no picture has a mask.
        """
        self.images, self.masks = Path(images), Path(masks)
        self.name = name or str(self.images)
        log = SampleLog() if log is None else log
        for folder in (self.images, self.masks):
            if not folder.is_dir():
                raise ValueError(f"data set {self.name}: no folder '{folder}'")
        self.pairs = self._pair(log)
        if not self.pairs:
            raise ValueError(
                f"data set {self.name} is empty: no picture in '{self.images}' "
                f"has a mask in '{self.masks}'"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def sample_name(self, index: int) -> str:
        """What messages call a sample."""
        return f"{self.name}/{self.pairs[index][0].name}"

    def __getitem__(self, index: int) -> Still:
        """Decode one sample.

        Raises:
            ValueError: if a file is damaged, the sizes differ, or the mask is empty.
            IndexError: beyond the end.
        """
        image_path, mask_path = self.pairs[index]
        picture = read_picture(image_path, f"picture '{image_path}'")
        masks = read_masks(mask_path)
        check_same_size(masks, picture, f"mask '{mask_path}'")
        if not masks.any():
            raise ValueError(f"mask '{mask_path}' is empty")
        return Still(self.sample_name(index), picture, masks)

    def _pair(self, log: SampleLog) -> list[tuple[Path, Path]]:
        in_one_folder = self.images.resolve() == self.masks.resolve()
        suffixes = JPEG_SUFFIXES if in_one_folder else IMAGE_SUFFIXES
        files = [path for path in self.images.iterdir() if path.suffix.lower() in suffixes]
        masks = _masks_by_stem(self.masks, skip=set(files) if in_one_folder else set())
        pairs = []
        for path in sorted(files, key=lambda one: natural_key(one.name)):
            if path.stem in masks:
                pairs.append((path, masks[path.stem]))
            else:
                log.skip(f"{self.name}/{path.name}", f"no mask '{path.stem}' in '{self.masks}'")
        return pairs


def read_hqseg(
    root: str | os.PathLike[str],
    *,
    names: Collection[str] = tuple(HQSEG_FOLDERS),
    log: SampleLog | None = None,
) -> list[StillFolder]:
    """Sets of HQSeg-44K, those to train on by default, in the folders in which they are published.

    Args:
        root: the folder that holds `DIS5K`, `thin_object_detection` and `cascade_psp`.
        names: keys of `HQSEG_FOLDERS` and of `HQSEG_VALIDATION_FOLDERS`.
        log: where pictures without a mask are counted.

    Raises:
        ValueError: for an unknown name, or a set that is missing or empty.
    """
    known = HQSEG_FOLDERS | HQSEG_VALIDATION_FOLDERS
    unknown = set(names) - set(known)
    if unknown:
        raise ValueError(f"names of sets must be of {sorted(known)}, got {sorted(unknown)}")
    base = Path(root)
    return [
        StillFolder(base / images, base / masks, name=name, log=log)
        for name, (images, masks) in known.items()
        if name in names
    ]


def read_masks(path: Path) -> NDArray[np.uint8]:
    """Decode a mask file to one mask per object, uint8 [O, H, W] in 0..255.

    A palette with a colour is one of ids, of which 255 is void unless it is the only one; one of
    grays, too, where no gray passes half. Of others gray is the mask, or alpha where the colour is
    the same everywhere. 16-bit values keep their high byte.

    Raises:
        ValueError: if the file is missing or damaged, no value of a gray mask passes half, or a
            picture without a palette is in colour.
    """
    name = f"mask '{path}'"
    try:
        with Image.open(path) as image:
            if _holds_ids(image):
                return _split(np.asarray(image))
            pixels = _pixels(image)
    except DAMAGE as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
    return _to_8_bits(_gray(pixels, name), name)[None]


def _holds_ids(image: Image.Image) -> bool:
    if image.mode != "P":
        return False
    # Ids saved without a choice of colours are shown as grays, which begin with the darkest.
    return has_coloured_palette(image) or np.asarray(image.convert("L")).max() < 128


def _split(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    by_id = split_ids(ids)
    masks = [by_id[i].astype(np.uint8) * np.uint8(255) for i in without_void(by_id)]
    return np.stack(masks) if masks else np.zeros((1, *ids.shape), np.uint8)


def _pixels(image: Image.Image) -> NDArray[np.integer]:
    """Gray [H, W] in the values of the file, or RGBA [H, W, 4]."""
    if image.mode in ("L", "I") or image.mode.startswith("I;16"):
        return np.asarray(image)
    return np.asarray(image.convert("RGBA"))


def _gray(pixels: NDArray[np.integer], name: str) -> NDArray[np.integer]:
    """The channel that shows the mask, [H, W]."""
    if pixels.ndim == 2:
        return pixels
    rgba = pixels.astype(np.uint8, copy=False)  # as it is, said to the type checker
    colour, alpha = rgba[..., :3], rgba[..., 3]
    is_in_alpha = alpha.min() < alpha.max() and (colour == colour[0, 0]).all()
    return alpha if is_in_alpha else gray_channel(colour, name)


def _to_8_bits(gray: NDArray[np.integer], name: str) -> NDArray[np.uint8]:
    low, high = int(gray.min()), int(gray.max())
    if low < 0 or high > 65535:
        raise ValueError(f"{name} must be of 8 or 16 bits, got values from {low} to {high}")
    if high <= 1:
        # 0 and 1 instead of 0 and 255: a common way to save a mask, invisible to the eye.
        shown = gray * 255
    else:
        shown = gray if high <= 255 else gray >> 8
    if 0 < shown.max() < 128:
        raise ValueError(
            f"{name} shows nothing: its largest value is {high}, less than half; "
            "ids of several objects need a palette PNG"
        )
    return shown.astype(np.uint8)


def check_same_size(masks: NDArray[np.uint8], picture: NDArray[np.uint8], name: str) -> None:
    """Raise ValueError unless masks [O, H, W] fit the picture [H, W, 3]."""
    if masks.shape[1:] != picture.shape[:2]:
        raise ValueError(
            f"{name} is {list(masks.shape[1:])} (height, width), "
            f"but its picture {list(picture.shape[:2])}"
        )


def _masks_by_stem(folder: Path, *, skip: Collection[Path]) -> dict[str, Path]:
    """The mask file of each stem; where there are several, the suffix that loses least."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in MASK_SUFFIXES]
    ranked = sorted(found, key=lambda one: -MASK_SUFFIXES.index(one.suffix.lower()))
    return {path.stem: path for path in ranked if path not in skip}
