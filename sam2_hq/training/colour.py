"""What light, lens and sensor do to a clip: batched on the device, the same for all its frames.

Frames may drift a little from the first to the last. Masks never change here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sam2_hq.checks import check_shares

GRAY_WEIGHTS = (0.299, 0.587, 0.114)
KERNEL_SIDE = 7
MIN_NOISE = 0.01


@dataclass(frozen=True)
class ColourOptions:
    """How strong changes are, and how often they come.

    brightness: largest shift, in halves of the whole range.
    contrast, saturation, tint: largest change of a factor of 1; tint is one factor a channel.
    drift: deviation of the normal drift of all these from the first frame of a clip to the last.
    gray_chance, blur_chance, noise_chance: a clip.
    max_noise: largest deviation of the noise, of the whole range.
    """

    brightness: float = 0.3
    contrast: float = 0.35
    saturation: float = 0.5
    tint: float = 0.12
    drift: float = 0.08
    gray_chance: float = 0.08
    blur_chance: float = 0.15
    noise_chance: float = 0.2
    max_noise: float = 0.06

    def __post_init__(self) -> None:
        check_shares(vars(self))


def change_colours(
    frames: Tensor,
    rngs: Sequence[np.random.Generator],
    options: ColourOptions | None = None,
) -> Tensor:
    """Jitter colours, turn gray, blur and add noise.

    Args:
        frames: [B, T, 3, S, S] float in 0..1; not changed.
        rngs: random numbers of each clip.
        options: strengths; the defaults by default.

    Returns:
        [B, T, 3, S, S] in 0..1.
    """
    options = options or ColourOptions()
    length = frames.shape[1]
    frames = _jitter(frames, [_draw_jitter(rng, length, options) for rng in rngs])
    blurred = [row for row, rng in enumerate(rngs) if rng.random() < options.blur_chance]
    if blurred:
        _blur(frames, blurred, np.stack([_kernel(rngs[row]) for row in blurred]))
    for row, rng in enumerate(rngs):
        if rng.random() < options.noise_chance:
            frames[row] += _noise(frames[row], rng, options)
    return frames.clamp_(0, 1)


class _Jitter(NamedTuple):
    """Of each frame of a clip: a mix of the channels [T, 3, 3], its gains [T, 3], an offset [T]."""

    mix: NDArray[np.float64]
    gain: NDArray[np.float64]
    offset: NDArray[np.float64]


def _draw_jitter(rng: np.random.Generator, length: int, options: ColourOptions) -> _Jitter:
    """Contrast, saturation, tint and brightness, which drift from the first frame to the last."""
    drift = options.drift * np.linspace(-0.5, 0.5, length) if length > 1 else np.zeros(1)

    def factors(strength: float, count: int = 1) -> NDArray[np.float64]:
        middle = rng.uniform(-strength, strength, count)
        return 1 + middle + rng.normal(0, 1, count) * drift[:, None]

    keep = factors(options.saturation)[..., None]
    if rng.random() < options.gray_chance:
        keep = np.zeros_like(keep)
    gain = factors(options.contrast) * factors(options.tint, 3)
    mix = keep * np.eye(3) + (1 - keep) * np.array(GRAY_WEIGHTS)
    return _Jitter(gain[..., None] * mix, gain, (factors(options.brightness)[:, 0] - 1) / 2)


def _jitter(frames: Tensor, jitters: Sequence[_Jitter]) -> Tensor:
    """One affine map of the channels for each frame; a new tensor."""
    mix, gain, offset = (frames.new_tensor(np.stack(parts)) for parts in zip(*jitters, strict=True))
    # Contrast turns around the mean brightness, so that dark clips stay dark.
    mean = frames.mean((1, 3, 4)) @ frames.new_tensor(GRAY_WEIGHTS)
    shift = offset[..., None] + mean[:, None, None] * (1 - gain)
    return torch.einsum("btij,btjhw->btihw", mix, frames) + shift[..., None, None]


def _blur(frames: Tensor, rows: Sequence[int], kernels: NDArray[np.float64]) -> None:
    """Out of focus, or shaken in one direction; written into the rows."""
    some = torch.tensor(rows, device=frames.device)
    length, channels = frames.shape[1:3]
    each = frames.new_tensor(kernels).repeat_interleave(length * channels, 0)[:, None]
    padding = [KERNEL_SIDE // 2] * 4
    padded = F.pad(frames[some].flatten(0, 1), padding, mode="replicate")
    blurred = F.conv2d(padded.flatten(0, 1)[None], each, groups=len(each))
    frames[some] = blurred.reshape(len(rows), *frames.shape[1:])


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


def _noise(clip: Tensor, rng: np.random.Generator, options: ColourOptions) -> Tensor:
    on_device = torch.Generator(clip.device).manual_seed(int(rng.integers(2**62)))
    strength = float(rng.uniform(min(MIN_NOISE, options.max_noise), options.max_noise))
    return strength * torch.randn(clip.shape, generator=on_device, device=clip.device)
