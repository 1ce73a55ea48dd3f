"""Memory attention: the current frame attends to itself and to its past."""

from __future__ import annotations

import copy
from typing import Literal, cast

import torch
from torch import Tensor, nn

from sam2_hq.modeling.sam.transformer import RoPEAttention, Rotation


class MemoryAttentionLayer(nn.Module):
    """Self-attention, cross-attention to the memory, feed-forward; each with its norm in front."""

    def __init__(
        self,
        activation: Literal["relu", "gelu"],
        cross_attention: RoPEAttention,
        d_model: int,
        dim_feedforward: int,
        dropout: float,
        pos_enc_at_attn: bool,
        pos_enc_at_cross_attn_keys: bool,
        pos_enc_at_cross_attn_queries: bool,
        self_attention: RoPEAttention,
    ) -> None:
        super().__init__()
        activations: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}
        if activation not in activations:
            raise ValueError(f"activation must be one of {sorted(activations)}, got {activation!r}")
        self.self_attn = self_attention
        self.cross_attn_image = cross_attention
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.activation = activations[activation]()
        self.pos_enc_at_attn = pos_enc_at_attn
        self.pos_enc_at_cross_attn_keys = pos_enc_at_cross_attn_keys
        self.pos_enc_at_cross_attn_queries = pos_enc_at_cross_attn_queries

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        *,
        position: Tensor,
        memory_keys: Tensor,
        num_pointer_tokens: int,
        rotation: Rotation,
    ) -> Tensor:
        """[B, N, C] to [B, N, C]; `memory_keys` is the memory with its position added."""
        normed = self.norm1(x)
        placed = normed + position if self.pos_enc_at_attn else normed
        x = x + self.dropout(self.self_attn(placed, placed, normed, rotation=rotation))
        normed = self.norm2(x)
        queries = normed + position if self.pos_enc_at_cross_attn_queries else normed
        keys = memory_keys if self.pos_enc_at_cross_attn_keys else memory
        recalled = self.cross_attn_image(queries, keys, memory, num_pointer_tokens, rotation)
        x = x + self.dropout(recalled)
        hidden = self.dropout(self.activation(self.linear1(self.norm3(x))))
        return x + self.dropout(self.linear2(hidden))


class MemoryAttention(nn.Module):
    """`num_layers` copies of a layer and a last norm."""

    def __init__(
        self,
        d_model: int,
        pos_enc_at_input: bool,
        layer: MemoryAttentionLayer,
        num_layers: int,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        if not batch_first:
            raise ValueError("batch_first must be true: tokens are [B, N, C] here")
        self.d_model = d_model
        self.memory_dim = layer.cross_attn_image.k_proj.in_features
        self.pos_enc_at_input = pos_enc_at_input
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model)
        self.rotation_cos: Tensor
        self.rotation_sin: Tensor
        self.set_grid(layer.self_attn.feat_sizes[0])

    def set_grid(self, side: int) -> None:
        """Make the rotary tables for a square map of `side` tokens; all layers share them."""
        cos, sin = self._make_rotation(side * side, self.norm.weight.device)
        self.register_buffer("rotation_cos", cos, persistent=False)
        self.register_buffer("rotation_sin", sin, persistent=False)

    def forward(
        self,
        current: Tensor,
        position: Tensor,
        memory: Tensor,
        memory_position: Tensor,
        num_pointer_tokens: int = 0,
    ) -> Tensor:
        """Condition a frame on its memory.

        Args:
            current: [B or 1, C, g, g] features of the frame.
            position: [1, C, g, g] their sine map.
            memory: [B, L, Cm] tokens of past frames, then pointer tokens.
            memory_position: [B or 1, L, Cm].
            num_pointer_tokens: how many of the last tokens are pointers.

        Returns:
            [B, C, g, g].
        """
        x = current.flatten(2).transpose(1, 2)
        place = position.flatten(2).transpose(1, 2)
        if self.pos_enc_at_input:
            x = x + 0.1 * place
        rotation = self._rotation(x)
        memory_keys = memory + memory_position
        for layer in self.layers:
            x = layer(
                x,
                memory,
                position=place,
                memory_keys=memory_keys,
                num_pointer_tokens=num_pointer_tokens,
                rotation=rotation,
            )
        return self.norm(x).transpose(1, 2).unflatten(2, current.shape[-2:])

    def _rotation(self, x: Tensor) -> Rotation:
        if self.rotation_cos.shape[0] == x.shape[1]:
            return self.rotation_cos, self.rotation_sin
        return self._make_rotation(x.shape[1], x.device)

    def _make_rotation(self, num_tokens: int, device: torch.device) -> Rotation:
        return cast(MemoryAttentionLayer, self.layers[0]).self_attn.rotation(num_tokens, device)
