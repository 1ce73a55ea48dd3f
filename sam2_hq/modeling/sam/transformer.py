"""Attention layers, and the two-way transformer of prompt tokens and image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_hq.checks import check_counts
from sam2_hq.modeling.layers import MLP
from sam2_hq.modeling.position_encoding import axial_rotation, rotate
from sam2_hq.modeling.sam.narrow_attention import is_narrow_faster, narrow_attention

Rotation = tuple[Tensor, Tensor]  # cosines and sines, each [N, head_dim / 2]


class Attention(nn.Module):
    """Multi-head attention with an optional smaller inner width."""

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        downsample_rate: int = 1,
        dropout: float = 0.0,
        kv_in_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_counts({"num_heads": num_heads, "downsample_rate": downsample_rate}, least=1)
        inner = embedding_dim // downsample_rate
        if inner % num_heads:
            raise ValueError(f"num_heads must divide {inner} (embedding_dim / downsample_rate)")
        kv_in_dim = embedding_dim if kv_in_dim is None else kv_in_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.q_proj = nn.Linear(embedding_dim, inner)
        self.k_proj = nn.Linear(kv_in_dim, inner)
        self.v_proj = nn.Linear(kv_in_dim, inner)
        self.out_proj = nn.Linear(inner, embedding_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend: q [B, N, C], k and v [B or 1, L, kv] to [B, N, C]."""
        return self._attend(self.q_proj(q), self.k_proj(k), self.v_proj(v))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch = max(q.shape[0], k.shape[0])
        q, k, v = (
            x.expand(batch, -1, -1).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x in (q, k, v)
        )
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class RoPEAttention(Attention):
    """Attention whose queries and keys are turned by their place in a square grid.

    With `rope_k_repeat` the keys are several grids one after another, all turned by the same table.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        downsample_rate: int = 1,
        dropout: float = 0.0,
        kv_in_dim: int | None = None,
        rope_theta: float = 10000.0,
        rope_k_repeat: bool = False,
        feat_sizes: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__(embedding_dim, num_heads, downsample_rate, dropout, kv_in_dim)
        self.rope_theta = rope_theta
        self.rope_k_repeat = rope_k_repeat
        self.feat_sizes = tuple(feat_sizes)  # a hint; the length of the queries decides
        self.head_dim = embedding_dim // downsample_rate // num_heads

    def rotation(self, num_queries: int, device: torch.device) -> Rotation:
        """Make the tables for a square grid of `num_queries` tokens."""
        side = math.isqrt(num_queries)
        if side * side != num_queries:
            raise ValueError(f"queries must form a square grid, got {num_queries} tokens")
        cos, sin = axial_rotation(self.head_dim, side, side, self.rope_theta)
        return cos.to(device), sin.to(device)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        num_k_exclude_rope: int = 0,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """Attend: q [B, N, C], k and v [B, L, kv] to [B, N, C].

        The last `num_k_exclude_rope` keys have no place in the grid and stay as they are.
        """
        cos, sin = self.rotation(q.shape[1], q.device) if rotation is None else rotation
        num_placed = k.shape[1] - num_k_exclude_rope
        grid = q.shape[1]
        repeats = num_placed // grid  # no divmod: compilers cannot follow it
        if num_placed != repeats * grid or (repeats != 1 and not self.rope_k_repeat):
            raise ValueError(f"{num_placed} keys do not fit a grid of {grid} queries")
        q = self._turn(self.q_proj(q), 1, cos, sin)
        keys = self.k_proj(k)
        placed = self._turn(keys[:, :num_placed], repeats, cos, sin)
        if num_k_exclude_rope:
            placed = torch.cat([placed, keys[:, num_placed:]], dim=1)
        if self.num_heads == 1 and not self.training and is_narrow_faster(q, v):
            return self.out_proj(self.v_proj(narrow_attention(q, placed, v)))
        return self._attend(q, placed, self.v_proj(v))

    def _turn(self, x: Tensor, repeats: int, cos: Tensor, sin: Tensor) -> Tensor:
        grids = x.unflatten(1, (repeats, -1)).unflatten(-1, (self.num_heads, -1)).transpose(2, 3)
        return rotate(grids, cos, sin).transpose(2, 3).flatten(3).flatten(1, 2)


class TwoWayAttentionBlock(nn.Module):
    """Tokens attend to themselves and to the image, then the image attends to the tokens."""

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int,
        *,
        attention_downsample_rate: int = 2,
        skip_first_layer_pe: bool = False,
    ) -> None:
        super().__init__()
        self.self_attn = Attention(embedding_dim, num_heads)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.cross_attn_token_to_image = Attention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.mlp = MLP(embedding_dim, mlp_dim, embedding_dim, 2)
        self.norm3 = nn.LayerNorm(embedding_dim)
        self.norm4 = nn.LayerNorm(embedding_dim)
        self.cross_attn_image_to_token = Attention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.skip_first_layer_pe = skip_first_layer_pe

    def forward(
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens [B, T, C] and image tokens [B or 1, N, C]."""
        if self.skip_first_layer_pe:  # as published: no residual around the very first attention
            queries = self.self_attn(queries, queries, queries)
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)
        keyed = keys + key_pe
        queries = queries + self.cross_attn_token_to_image(queries + query_pe, keyed, keys)
        queries = self.norm2(queries)
        queries = self.norm3(queries + self.mlp(queries))
        image = self.cross_attn_image_to_token(keyed, queries + query_pe, queries)
        return queries, self.norm4(keys + image)


class TwoWayTransformer(nn.Module):
    """A stack of two-way blocks and a last look of the tokens at the image."""

    def __init__(
        self,
        depth: int,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int,
        attention_downsample_rate: int = 2,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(
                embedding_dim,
                num_heads,
                mlp_dim,
                attention_downsample_rate=attention_downsample_rate,
                skip_first_layer_pe=(i == 0),
            )
            for i in range(depth)
        )
        self.final_attn_token_to_image = Attention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Let tokens and image exchange what they know.

        Args:
            image: [B or 1, C, H, W]; one image may serve many prompts.
            image_pe: [1, C, H, W].
            tokens: [B, T, C].

        Returns:
            Tokens [B, T, C] and image map [B, C, H, W].
        """
        keys = image.flatten(2).transpose(1, 2)
        key_pe = image_pe.flatten(2).transpose(1, 2)
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, key_pe)
        attended = self.final_attn_token_to_image(queries + tokens, keys + key_pe, keys)
        queries = self.norm_final_attn(queries + attended)
        return queries, keys.transpose(1, 2).unflatten(2, image.shape[-2:])
