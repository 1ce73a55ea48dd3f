"""What light, lens and sensor do to a clip: batched on the device, the same for all its frames.

Frames may drift a little from the first to the last. Masks never change here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

GRAY_WEIGHTS = (0.299, 0.587, 0.114)
KERNEL_SIDE = 7


@dataclass(frozen=True)
class ColourOptions:
    """How strong and how often; strengths are the largest change, chances are per clip."""

    brightness: float = 0.3
    contrast: float = 0.35
    saturation: float = 0.5
    tint: float = 0.12
    drift: float = 0.08
    gray_chance: float = 0.08
    blur_chance: float = 0.15
    noise_chance: float = 0.2
    max_noise: float = 0.06


def change_colours(
    frames: Tensor, rng: np.random.Generator, options: ColourOptions | None = None
) -> Tensor:
    """Jitter colours, turn gray, blur and add noise.

    Args:
        frames: [B, T, 3, S, S] float in 0..1; not changed.
        rng: random numbers.
        options: strengths; the defaults by default.

    Returns:
        [B, T, 3, S, S] in 0..1.
    """
    options = options or ColourOptions()
    frames = _jitter(frames, rng, options)
    frames = _blur(frames, rng, options.blur_chance)
    return _add_noise(frames, rng, options).clamp_(0, 1)


def _jitter(frames: Tensor, rng: np.random.Generator, options: ColourOptions) -> Tensor:
    """One affine map of the channels for each frame: contrast, saturation, tint and brightness."""
    count, length = frames.shape[:2]
    drift = options.drift * np.linspace(-0.5, 0.5, length) if length > 1 else np.zeros(1)

    def factors(strength: float, *shape: int) -> NDArray[np.float64]:
        middle = rng.uniform(-strength, strength, (count, 1, *shape))
        sway = rng.normal(0, 1, (count, 1, *shape)) * drift.reshape(1, -1, *[1] * len(shape))
        return 1 + middle + sway

    saturation = factors(options.saturation)
    saturation[rng.random(count) < options.gray_chance] = 0
    gain = factors(options.contrast)[..., None] * factors(options.tint, 3)
    offset = factors(options.brightness)[..., None] - 1
    gray = np.array(GRAY_WEIGHTS)
    keep = saturation[..., None, None]
    mix = keep * np.eye(3) + (1 - keep) * gray[None, None, None]
    mix = gain[..., None] * mix
    # Contrast turns around the mean brightness, so that dark clips stay dark.
    mean = frames.mean((1, 3, 4)) @ frames.new_tensor(GRAY_WEIGHTS)
    shift = frames.new_tensor(offset * 0.5) + mean[:, None, None] * frames.new_tensor(1 - gain)
    return (
        torch.einsum("btij,btjhw->btihw", frames.new_tensor(mix), frames) + shift[..., None, None]
    )


def _blur(frames: Tensor, rng: np.random.Generator, chance: float) -> Tensor:
    """Out of focus, or shaken in one direction."""
    rows = np.flatnonzero(rng.random(len(frames)) < chance)
    if not len(rows):
        return frames
    kernels = frames.new_tensor(np.stack([_kernel(rng) for _ in rows]))
    some = torch.from_numpy(rows).to(frames.device)
    length, channels = frames.shape[1:3]
    each = kernels.repeat_interleave(length * channels, 0)[:, None]
    padding = [KERNEL_SIDE // 2] * 4
    padded = F.pad(frames[some].flatten(0, 1), padding, mode="replicate")
    blurred = F.conv2d(padded.flatten(0, 1)[None], each, groups=len(each))
    frames = frames.clone()
    frames[some] = blurred.reshape(len(rows), *frames.shape[1:])
    return frames


def _kernel(rng: np.random.Generator) -> NDArray[np.float64]:
    ticks = np.arange(KERNEL_SIDE) - KERNEL_SIDE // 2
    x, y = np.meshgrid(ticks, ticks)
    angle = rng.uniform(0, np.pi)
    long, short = rng.uniform(0.5, 2.5), rng.uniform(0.3, 1.0)
    if rng.random() < 0.5:
        long = short
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-((along / long) ** 2 + (across / short) ** 2) / 2)
    return kernel / kernel.sum()


def _add_noise(frames: Tensor, rng: np.random.Generator, options: ColourOptions) -> Tensor:
    rows = np.flatnonzero(rng.random(len(frames)) < options.noise_chance)
    if not len(rows):
        return frames
    on_device = torch.Generator(frames.device).manual_seed(int(rng.integers(2**62)))
    some = torch.from_numpy(rows).to(frames.device)
    strength = frames.new_tensor(rng.uniform(0.01, options.max_noise, len(rows)))
    shape = (len(rows), *frames.shape[1:])
    noise = torch.randn(shape, generator=on_device, device=frames.device)
    frames = frames.clone()
    frames[some] += noise * strength[:, None, None, None, None]
    return frames
