"""Hiera: a hierarchical vision transformer with windows, the trunk of the image encoder.

Source: Ryali et al., 2023, with the windowed position term of Bolya et al., 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_hq.checks import check_counts
from sam2_hq.modeling.layers import MLP, DropPath, WithTable

PATCH_STRIDE = 4  # model pixels from one patch to the next
PUBLISHED_GLOBAL_BLOCKS = (12, 16, 20)  # where a config names none
POOL = 2  # side of the query pooling between stages


class PatchEmbed(nn.Module):
    """Overlapping patches: a 7x7 convolution with stride 4."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=7, stride=PATCH_STRIDE, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, H/4, W/4, C]."""
        # Channels last, so that a token lies in one piece: norms of scattered ones take longer.
        return self.proj(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)


def pool_2x2(x: Tensor) -> Tensor:
    """Max-pool [B, H, W, C] by two; an odd last row or column is left out."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), POOL, POOL).permute(0, 2, 3, 1)


def to_windows(x: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut [B, H, W, C] into [B * num_windows, window, window, C], zero-padded at bottom and right.

    Returns the windows and the number of them along height and width.
    """
    batch, height, width, channels = x.shape
    pad_h, pad_w = -height % window, -width % window
    if pad_h or pad_w:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    rows, columns = (height + pad_h) // window, (width + pad_w) // window
    x = x.reshape(batch, rows, window, columns, window, channels).transpose(2, 3)
    return x.reshape(-1, window, window, channels), (rows, columns)


def from_windows(x: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Undo `to_windows` and crop to `size`."""
    rows, columns = grid
    window, channels = x.shape[1], x.shape[-1]
    x = x.reshape(-1, rows, columns, window, window, channels).transpose(2, 3)
    x = x.reshape(-1, rows * window, columns * window, channels)
    return x[:, : size[0], : size[1]]


class MultiScaleAttention(nn.Module):
    """Attention inside one window (or the whole map), with optional pooling of the queries."""

    def __init__(self, dim: int, dim_out: int, num_heads: int, *, pool_query: bool) -> None:
        super().__init__()
        check_counts({"num_heads": num_heads}, least=1)
        if dim_out % num_heads:
            raise ValueError(f"num_heads must divide the width {dim_out}, got {num_heads}")
        self.num_heads = num_heads
        self.pool_query = pool_query
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C_in] to [B, H or H/2, W or W/2, C_out]."""
        height, width = x.shape[1:3]
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.pool_query:
            q = pool_2x2(q)
            height, width = q.shape[1:3]
        q, k, v = (
            t.flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v)
        )
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(out.flatten(2)).unflatten(1, (height, width))


class MultiScaleBlock(nn.Module):
    """One transformer block; at a stage transition it doubles the channels and halves the map."""

    def __init__(
        self,
        dim: int,
        dim_out: int,
        num_heads: int,
        *,
        window_size: int = 0,
        pool_query: bool = False,
        drop_path: float = 0.0,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.pool_query = pool_query
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MultiScaleAttention(dim, dim_out, num_heads, pool_query=pool_query)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = MLP(dim_out, int(dim_out * mlp_ratio), dim_out, 2, activation=nn.GELU)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C_in] to [B, H or H/2, W or W/2, C_out]."""
        normed = self.norm1(x)
        shortcut = x
        if self.proj is not None:
            shortcut = self.proj(normed)
            shortcut = pool_2x2(shortcut) if self.pool_query else shortcut
        x = shortcut + self.drop_path(self._attend(normed, (shortcut.shape[1], shortcut.shape[2])))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, out_size: tuple[int, int]) -> Tensor:
        if not self.window_size:
            return self.attn(x)
        # Padding comes after the norm and is not masked: the published weights saw it that way.
        windows, grid = to_windows(x, self.window_size)
        return from_windows(self.attn(windows), grid, out_size)


class Hiera(WithTable):
    """Four stages of `MultiScaleBlock`s; returns the last map of each stage.

    Args:
        embed_dim: channels of the first stage; doubled at every transition.
        num_heads: heads of the first stage; doubled at every transition.
        drop_path_rate: largest stochastic depth, reached at the last block (training only).
        q_pool: number of stage transitions that halve the map.
        stages: blocks in each stage.
        dim_mul: channel factor at a transition.
        head_mul: head factor at a transition.
        window_pos_embed_bkg_spatial_size: (height, width) of the stored global position embedding.
        window_spec: window side of each stage, in tokens.
        global_att_blocks: indices of blocks that attend over the whole map; None for those of
            12, 16 and 20 that are there.
    """

    def __init__(
        self,
        embed_dim: int = 96,
        num_heads: int = 1,
        drop_path_rate: float = 0.0,
        q_pool: int = 3,
        stages: Sequence[int] = (2, 3, 16, 3),
        dim_mul: float = 2.0,
        head_mul: float = 2.0,
        window_pos_embed_bkg_spatial_size: Sequence[int] = (14, 14),
        window_spec: Sequence[int] = (8, 4, 14, 7),
        global_att_blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if len(stages) != len(window_spec):
            raise ValueError(f"window_spec must have one side a stage, got {list(window_spec)}")
        if not 0 <= q_pool < len(stages):
            raise ValueError(f"q_pool must be 0 to {len(stages) - 1}, got {q_pool}")
        depth = sum(stages)
        if global_att_blocks is None:
            global_att_blocks = PUBLISHED_GLOBAL_BLOCKS
        elif not all(0 <= block < depth for block in global_att_blocks):
            raise ValueError(
                f"global_att_blocks must lie in 0..{depth - 1}, got {list(global_att_blocks)}"
            )
        self.stage_ends = [sum(stages[: i + 1]) - 1 for i in range(len(stages))]
        starts = [end + 1 for end in self.stage_ends[:-1]]
        pooled = set(starts[:q_pool])
        self.patch_embed = PatchEmbed(embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, embed_dim, *window_pos_embed_bkg_spatial_size))
        self.pos_embed_window = nn.Parameter(
            torch.zeros(1, embed_dim, window_spec[0], window_spec[0])
        )
        self.blocks = nn.ModuleList()
        channels: list[int] = []
        dim, heads, stage = embed_dim, num_heads, 0
        for i in range(depth):
            # A transition block still works in the windows of the stage it leaves.
            window = 0 if i in global_att_blocks else window_spec[stage]
            dim_out = dim
            if i in starts:
                dim_out, heads, stage = int(dim * dim_mul), int(heads * head_mul), stage + 1
            self.blocks.append(
                MultiScaleBlock(
                    dim,
                    dim_out,
                    heads,
                    window_size=window,
                    pool_query=i in pooled,
                    drop_path=drop_path_rate * i / max(depth - 1, 1),
                )
            )
            dim = dim_out
            if i in self.stage_ends:
                channels.append(dim)
        self.channel_list = channels[::-1]  # coarsest first
        # Model pixels a token of the map of each stage, finest first.
        self.strides = [PATCH_STRIDE * POOL ** min(i, q_pool) for i in range(len(stages))]

    def position_term(self, height: int, width: int) -> Tensor:
        """Position map [1, H, W, C]: a stretched global term plus one repeated in every window."""
        stretched = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        window = self.pos_embed_window
        side = window.shape[-1]
        if height % side or width % side:
            raise ValueError(f"image must give a multiple of {side} patches, got {height}x{width}")
        tiles = window.tile(1, 1, height // side, width // side)
        return (stretched + tiles).permute(0, 2, 3, 1)

    def prepare(self, height: int, width: int) -> None:
        """Keep the position map of a grid of patches; call it when the weights are final."""
        self.keep_table(self.position_term(height, width))

    def table_weights(self) -> tuple[Tensor, ...]:
        """What the position map is made of."""
        return self.pos_embed, self.pos_embed_window

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, 3, H, W] to one [B, C, H', W'] map a stage, finest first."""
        x = self.patch_embed(x)
        table = self.kept_table()
        if table is None or table.shape[1:3] != x.shape[1:3]:
            table = self.position_term(x.shape[1], x.shape[2])
        x = x + table
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                maps.append(x.permute(0, 3, 1, 2))
        return maps
