"""Where a token is: sine maps, random Fourier features of points, axial rotations.

All tables are constants of a size, so they are made once and kept as non-persistent buffers by
whoever uses them; nothing is cached here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PositionEmbeddingSine(nn.Module):
    """Two-dimensional sine encoding: the first half of the channels encodes y, the second x."""

    def __init__(
        self,
        num_pos_feats: int,
        temperature: float = 10000.0,
        normalize: bool = True,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if num_pos_feats % 4:
            raise ValueError(f"num_pos_feats must be a multiple of 4, got {num_pos_feats}")
        self.num_pos_feats = num_pos_feats
        self.temperature = temperature
        self.normalize = normalize
        self.scale = 2 * math.pi if scale is None else scale

    def forward(self, height: int, width: int) -> Tensor:
        """Return the map [num_pos_feats, height, width] in float32."""
        half = self.num_pos_feats // 2
        y = torch.arange(1, height + 1, dtype=torch.float32)
        x = torch.arange(1, width + 1, dtype=torch.float32)
        if self.normalize:
            y = y / (height + 1e-6) * self.scale
            x = x / (width + 1e-6) * self.scale
        index = torch.arange(half, dtype=torch.float32)
        period = self.temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / half)
        y_code = _interleave(y[:, None] / period)  # [H, half]
        x_code = _interleave(x[:, None] / period)  # [W, half]
        rows = y_code[:, None].expand(height, width, half)
        columns = x_code[None].expand(height, width, half)
        return torch.cat([rows, columns], dim=-1).permute(2, 0, 1).contiguous()


def _interleave(angle: Tensor) -> Tensor:
    """Sine on even channels, cosine on odd ones."""
    return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)


def sine_1d(position: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Encode scalars [n] as [n, dim]: all sines first, then all cosines."""
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=position.device)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / half)
    angle = position[:, None] / period
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of points in the unit square; the matrix is in the checkpoint."""

    def __init__(self, num_pos_feats: int = 64) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, num_pos_feats))
        self.positional_encoding_gaussian_matrix: Tensor

    def encode(self, points: Tensor) -> Tensor:
        """Encode x, y in [0, 1]: [..., 2] to [..., 2 * num_pos_feats], computed in float32."""
        matrix = self.positional_encoding_gaussian_matrix
        to_x, to_y = matrix.float()
        x, y = (2 * points.float() - 1).split(1, dim=-1)
        # No matrix product: autocast would round the coordinates to 8 bits.
        angle = 2 * math.pi * (x * to_x + y * to_y)
        return torch.cat([angle.sin(), angle.cos()], dim=-1).to(matrix.dtype)

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Return the map [2 * num_pos_feats, H, W] of pixel centres."""
        height, width = size
        device = self.positional_encoding_gaussian_matrix.device
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
        return self.encode(grid).permute(2, 0, 1)


def axial_rotation(
    head_dim: int, height: int, width: int, theta: float = 10000.0
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [height * width, head_dim / 2] of the axial rotary encoding.

    The first half of the channel pairs turns with x, the second with y, both in pixel indices.
    """
    # The reciprocal in float32 is what the published weights saw; angles reach 63 radians.
    exponent = torch.arange(0, head_dim, 4, dtype=torch.float32)[: head_dim // 4] / head_dim
    frequency = 1.0 / (theta**exponent)
    token = torch.arange(height * width, dtype=torch.float32)
    x = token % width
    y = torch.div(token, width, rounding_mode="floor")
    angle = torch.cat([x[:, None] * frequency, y[:, None] * frequency], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn adjacent channel pairs of [..., N, D] by tables [N, D / 2], in float32."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned_even = torch.addcmul(even * cos, odd, sin, value=-1)
    turned_odd = torch.addcmul(even * sin, odd, cos)
    return torch.stack([turned_even, turned_odd], dim=-1).flatten(-2).to(x.dtype)
