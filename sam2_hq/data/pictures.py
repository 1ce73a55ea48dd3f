"""One picture of any kind (file, PIL image, array, tensor) as RGB uint8 [H, W, 3].

The content decides how a file is read, never its suffix. Alpha is dropped, not composited: what the
camera or the painter stored under it counts. 16-bit values keep their high byte.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

Picture = str | os.PathLike[str] | Image.Image | NDArray[np.generic] | torch.Tensor

DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for files that it recognises and cannot read."""
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width


def read_picture(picture: Picture, name: str) -> NDArray[np.uint8]:
    """Decode one picture.

    Args:
        picture: a path, a PIL image, or an array or tensor [H, W, 3], [3, H, W], [H, W] or
            [H, W, 1] (gray), or [H, W, 4] (alpha last), uint8 or floating in [0, 1].
        name: what error messages call it.

    Returns:
        RGB uint8 [H, W, 3], a new array; EXIF orientation applied.

    Raises:
        ValueError: for a missing, truncated or non-image file, or values that are no picture.
        TypeError: for any other kind of object.
    """
    if isinstance(picture, str | os.PathLike):
        with _opened(picture, name) as image:
            return _image_to_rgb(image, name)
    if isinstance(picture, Image.Image):
        with naming_damage(name):
            return _image_to_rgb(picture, name)
    if isinstance(picture, np.ndarray | torch.Tensor):
        return pixels_to_uint8(_three_channels(picture, name), name)
    raise TypeError(
        f"{name} must be a path, a PIL image, an array or a tensor, got {type(picture).__name__}"
    )


def picture_size(picture: Picture, name: str) -> tuple[int, int]:
    """Height and width as `read_picture` would return them, from the header where there is one.

    Raises:
        ValueError: for a file that is missing or no image.
        TypeError: for an object that is no picture.
    """
    if isinstance(picture, str | os.PathLike):
        with _opened(picture, name) as image:
            return _image_size(image, name)
    if isinstance(picture, Image.Image):
        return _image_size(picture, name)
    if isinstance(picture, np.ndarray | torch.Tensor):
        height, width = _three_channels(picture, name).shape[:2]
        return int(height), int(width)
    return read_picture(picture, name).shape[:2]


def image_to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Decode an open PIL image, at the frame it stands on, to RGB uint8 [H, W, 3].

    Raises:
        ValueError: if the data are damaged, or pixels are 32-bit integers or floats.
    """
    with naming_damage(name):
        return _image_to_rgb(image, name)


def _three_channels(
    pixels: NDArray[np.generic] | torch.Tensor, name: str
) -> NDArray[np.generic] | torch.Tensor:
    """A picture of any layout as [H, W, 3]."""
    shape = list(pixels.shape)
    if 0 not in shape and len(shape) == 2:
        return pixels[..., None][..., [0, 0, 0]]
    if 0 in shape or len(shape) != 3 or not (shape[0] == 3 or shape[2] in (1, 3, 4)):
        raise ValueError(
            f"{name} must be [H, W], [H, W, 1], [H, W, 3], [H, W, 4] or [3, H, W], not empty, "
            f"got {shape}"
        )
    if 3 in (shape[0], shape[2]):
        return channels_last(pixels)
    return pixels[..., [0, 0, 0]] if shape[2] == 1 else pixels[..., :3]


def channels_last(
    pixels: NDArray[np.generic] | torch.Tensor,
) -> NDArray[np.generic] | torch.Tensor:
    """View `[..., 3, H, W]` as `[..., H, W, 3]`; `[..., H, W, 3]` stays."""
    if pixels.shape[-1] == 3:
        return pixels
    if isinstance(pixels, torch.Tensor):
        return pixels.movedim(-3, -1)
    return np.moveaxis(pixels, -3, -1)


def check_pixel_range(pixels: NDArray[np.generic] | torch.Tensor, name: str) -> None:
    """Raise ValueError unless the values are uint8, or floating in [0, 1]."""
    is_tensor = isinstance(pixels, torch.Tensor)
    if pixels.dtype == (torch.uint8 if is_tensor else np.uint8):
        return
    floating = (
        pixels.is_floating_point()
        if isinstance(pixels, torch.Tensor)
        else np.issubdtype(pixels.dtype, np.floating)
    )
    if not floating:
        raise ValueError(f"{name} must be uint8, or floating in [0, 1], got {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # written so that NaN fails
        raise ValueError(
            f"{name} is {pixels.dtype} and must lie in [0, 1], got {low:g} to {high:g}"
        )


def pixels_to_uint8(
    pixels: NDArray[np.generic] | torch.Tensor, name: str, *, checked: bool = False
) -> NDArray[np.uint8]:
    """Copy to contiguous uint8, scaling [0, 1] to 0..255; `checked` skips the look at the range."""
    if not checked:
        check_pixel_range(pixels, name)
    if isinstance(pixels, torch.Tensor):
        pixels = pixels.detach()
        pixels = (pixels if pixels.dtype == torch.uint8 else pixels.float()).cpu().numpy()
    if pixels.dtype == np.uint8:
        return np.array(pixels, dtype=np.uint8, order="C")
    scaled = pixels.astype(np.float32) * np.float32(255)
    return np.ascontiguousarray(np.rint(scaled).astype(np.uint8))


def resize_for_video_model(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Squash a frame to the model's square as the published video predictor does.

    Pillow's default filter, bicubic with antialiasing, rounded to uint8. The image predictor has
    another rule: do not mix them up.

    Args:
        frame: uint8 [H, W, 3].
        side: model pixels.

    Returns:
        uint8 [side, side, 3].

    Raises:
        ValueError: if `frame` is not uint8 [H, W, 3], or `side` is not positive.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"frame must be uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}")
    if side < 1:
        raise ValueError(f"side must be positive, got {side}")
    return np.array(Image.fromarray(frame).resize((side, side)), dtype=np.uint8)


@contextmanager
def _opened(path: str | os.PathLike[str], name: str) -> Iterator[Image.Image]:
    if not Path(path).is_file():
        raise ValueError(f"{name}: no such file")
    with naming_damage(name), Image.open(path) as image:
        yield image


@contextmanager
def naming_damage(name: str) -> Iterator[None]:
    """Say which picture it is where Pillow cannot read one, as a ValueError."""
    try:
        yield
    except Image.UnidentifiedImageError:
        raise ValueError(f"{name} is not an image") from None
    except DAMAGE as error:
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name} cannot be decoded: {error}") from error


def _image_size(image: Image.Image, name: str) -> tuple[int, int]:
    width, height = image.size
    if not _has_orientation(image) or image.getexif()[ExifTags.Base.Orientation] not in _TURNED:
        return height, width
    if image.format == "TIFF":  # some Pillow versions swap the header's size already, some do not
        turned = _image_to_rgb(image, name).shape
        return turned[0], turned[1]
    return width, height


def _has_orientation(image: Image.Image) -> bool:
    # getexif() decodes a whole PNG to look for EXIF after the pixels; no writer puts it there.
    if image.format == "PNG" and "exif" not in image.info:
        return False
    return ExifTags.Base.Orientation in image.getexif()


def _image_to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if _has_orientation(image):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return _gray16_to_rgb(np.asarray(image))
    if image.mode == "I" and image.format == "PNG":  # how older Pillow opens 16-bit gray
        return _gray16_to_rgb(np.asarray(image))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"{name} has 32-bit pixels (mode {image.mode}); 8 or 16 bits a channel are needed"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _gray16_to_rgb(gray: NDArray[np.generic]) -> NDArray[np.uint8]:
    high_byte = (gray.astype(np.uint32) >> 8).astype(np.uint8)
    return np.repeat(high_byte[:, :, None], 3, axis=2)


def is_image_file(file: Path | BinaryIO) -> bool:
    """Whether Pillow recognises the content, and as a picture: it knows bare MPEG, too."""
    try:
        with Image.open(file) as image:
            return image.format != "MPEG"
    except Image.UnidentifiedImageError:
        return False
    except DAMAGE:
        return True  # recognised, but broken: reading it names the damage
