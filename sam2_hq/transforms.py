"""Pictures to the square the network sees, and masks back to picture size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sam2_hq.data.pictures import pixels_to_uint8
from sam2_hq.ops.masks import clean_small_regions

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


def normalize(pixels: Tensor) -> Tensor:
    """RGB [..., 3, H, W] in 0..1 to the network's range."""
    mean = pixels.new_tensor(PIXEL_MEAN)[:, None, None]
    std = pixels.new_tensor(PIXEL_STD)[:, None, None]
    return (pixels - mean) / std


def normalize_frame(frame: np.ndarray, device: torch.device) -> Tensor:
    """An already square uint8 frame [S, S, 3] of a video to [1, 3, S, S]."""
    return normalize(frame_pixels(frame, device)[None])


def frame_pixels(frame: np.ndarray, device: torch.device) -> Tensor:
    """A uint8 frame [H, W, 3] to [3, H, W] in 0..1."""
    return torch.from_numpy(frame).to(device).permute(2, 0, 1).float() / 255.0


def to_rgb_array(image: Any) -> np.ndarray:
    """A picture as uint8 [H, W, 3], whatever the caller has.

    Accepts a PIL image of 8 bits a channel, or an array or tensor [H, W], [H, W, 1], [H, W, 3] or
    [H, W, 4] of uint8 or of floats in 0..1, which are rounded to 8 bits. Alpha is dropped. Rows and
    columns stay: a camera's orientation tag is not applied, so that masks fit the array.

    Raises:
        TypeError: for anything else than a picture.
        ValueError: for other shapes, more bits, and floats outside 0..1.
    """
    if isinstance(image, Image.Image):
        image = _pillow_to_array(image)
    if not isinstance(image, (np.ndarray, Tensor)):
        raise TypeError(f"image must be a numpy array or a PIL image, got {type(image).__name__}")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"image must be [H, W], [H, W, 3] or [H, W, 4], got {list(image.shape)}")
    rgb = image[..., [0, 0, 0]] if image.shape[-1] == 1 else image[..., :3]
    return pixels_to_uint8(rgb, "image")


def _pillow_to_array(image: Image.Image) -> np.ndarray:
    if image.mode[0] in "IF":  # Pillow would clip 16 and 32 bits to 255
        raise ValueError(f"image must have 8 bits a channel, got a PIL image of mode {image.mode}")
    has_alpha = "transparency" in image.info
    return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))


class SAM2Transforms:
    """The image path: squash to S x S, scale prompts, bring masks back.

    Args:
        resolution: S, side of the model input.
        mask_threshold: logits above it are foreground.
        max_hole_area: holes up to this many pixels of the low-resolution map are filled.
        max_sprinkle_area: islands up to this many pixels of it are dropped.
    """

    def __init__(
        self,
        resolution: int,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
    ) -> None:
        self.resolution = resolution
        self.mask_threshold = mask_threshold
        self.max_hole_area = max_hole_area
        self.max_sprinkle_area = max_sprinkle_area

    def __call__(self, image: Any, device: torch.device | None = None) -> Tensor:
        """A picture to normalised pixels [3, S, S]."""
        rgb = torch.from_numpy(to_rgb_array(image)).to(device)
        pixels = rgb.permute(2, 0, 1)[None].to(torch.float32) / 255.0
        size = (self.resolution, self.resolution)
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        return normalize(pixels[0])

    def forward_batch(self, images: list[Any], device: torch.device | None = None) -> Tensor:
        """Pictures of any sizes to [B, 3, S, S]."""
        return torch.stack([self(image, device) for image in images])

    def transform_coords(
        self, coords: Tensor, normalize: bool = False, orig_hw: tuple[int, int] | None = None
    ) -> Tensor:
        """Points [..., 2] to model pixels, from picture pixels if `normalize`, else from 0..1."""
        if normalize:
            if orig_hw is None:
                raise ValueError("orig_hw must be given when normalize is true")
            height, width = orig_hw
            coords = coords / coords.new_tensor([width, height])
        return coords * self.resolution

    def transform_boxes(
        self, boxes: Tensor, normalize: bool = False, orig_hw: tuple[int, int] | None = None
    ) -> Tensor:
        """Boxes [..., 4] to corner points [B, 2, 2] in model pixels."""
        return self.transform_coords(boxes.reshape(-1, 2, 2), normalize, orig_hw)

    def postprocess_masks(self, masks: Tensor, orig_hw: tuple[int, int]) -> Tensor:
        """Logits [B, M, h, w] to logits of the picture's size, after small regions are cleaned."""
        masks = masks.float()
        if self.max_hole_area > 0 or self.max_sprinkle_area > 0:
            masks = clean_small_regions(
                masks, self.max_hole_area, self.max_sprinkle_area, self.mask_threshold
            )
        return F.interpolate(masks, orig_hw, mode="bilinear", align_corners=False)
