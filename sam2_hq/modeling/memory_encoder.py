"""The memory encoder: a frame and its mask become a memory for later frames."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_hq.modeling.layers import DropPath, LayerNorm2d
from sam2_hq.modeling.position_encoding import PositionEmbeddingSine


class MaskDownSampler(nn.Module):
    """Strided convolutions from a full-size mask to `embed_dim` channels at `total_stride`."""

    def __init__(
        self,
        embed_dim: int = 256,
        kernel_size: int = 4,
        stride: int = 4,
        padding: int = 0,
        total_stride: int = 16,
    ) -> None:
        super().__init__()
        num_layers = round(math.log2(total_stride) / math.log2(stride))
        if stride**num_layers != total_stride:
            raise ValueError(f"total_stride must be a power of stride {stride}, got {total_stride}")
        self.total_stride = total_stride
        layers: list[nn.Module] = []
        channels = 1
        for _ in range(num_layers):
            wider = channels * stride**2
            layers += [
                nn.Conv2d(channels, wider, kernel_size, stride=stride, padding=padding),
                LayerNorm2d(wider),
                nn.GELU(),
            ]
            channels = wider
        layers.append(nn.Conv2d(channels, embed_dim, kernel_size=1))
        self.encoder = nn.Sequential(*layers)

    def forward(self, mask: Tensor) -> Tensor:
        """[B, 1, S, S] to [B, embed_dim, S / total_stride, S / total_stride]."""
        return self.encoder(mask)


class CXBlock(nn.Module):
    """A ConvNeXt block: depth-wise convolution, then a per-pixel MLP. Source: Liu et al., 2022."""

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        padding: int = 3,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        use_dwconv: bool = True,
    ) -> None:
        super().__init__()
        groups = dim if use_dwconv else 1
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=padding, groups=groups)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), float(layer_scale_init_value)))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[B, dim, H, W] to the same shape."""
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + self.drop_path(y.permute(0, 3, 1, 2))


class Fuser(nn.Module):
    """`num_layers` copies of a block."""

    def __init__(self, layer: nn.Module, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Fuse frame features with a mask, and squeeze them to `out_dim` channels."""

    def __init__(
        self,
        out_dim: int,
        mask_downsampler: MaskDownSampler,
        fuser: Fuser,
        position_encoding: PositionEmbeddingSine,
        in_dim: int = 256,
    ) -> None:
        super().__init__()
        self.mask_downsampler = mask_downsampler
        self.pix_feat_proj = nn.Conv2d(in_dim, in_dim, kernel_size=1)
        self.fuser = fuser
        self.position_encoding = position_encoding
        self.out_proj = nn.Conv2d(in_dim, out_dim, kernel_size=1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features [B or 1, C, g, g] and a mask map [B, 1, S, S] to memory [B, out_dim, g, g]."""
        x = self.pix_feat_proj(features) + self.mask_downsampler(mask)
        return self.out_proj(self.fuser(x))
