"""Small layers that several networks share."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """`num_layers` linear layers with an activation between them, not after the last."""

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        output_dim: int,
        num_layers: int,
        *,
        activation: type[nn.Module] = nn.ReLU,
        sigmoid_output: bool = False,
    ) -> None:
        super().__init__()
        sizes = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)
        )
        self.activation = activation()
        self.sigmoid_output = sigmoid_output

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., input_dim] to [..., output_dim]."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        x = self.layers[-1](x)
        return torch.sigmoid(x) if self.sigmoid_output else x


class LayerNorm2d(nn.Module):
    """Normalise every pixel of a [B, C, H, W] map over its channels (epsilon 1e-6)."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class WithTable(nn.Module):
    """A module that may keep a table made of some of its weights, as long as these stay the same.

    What is written through `.data` cannot be seen.
    """

    table: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", None, persistent=False)
        self._made_of: tuple[tuple[Tensor, int], ...] = ()

    def keep_table(self, table: Tensor, *weights: Tensor) -> None:
        """Keep a table that was made of these weights."""
        self.table = table.contiguous()
        self._made_of = tuple((weight, _version(weight)) for weight in weights)

    def kept_table(self, *weights: Tensor) -> Tensor | None:
        """The table, or None if there is none, or the weights have changed or may be learning."""
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return None
        if torch.compiler.is_compiling():  # cannot follow versions
            return self.table
        for weight, (source, version) in zip(weights, self._made_of, strict=False):
            if weight is not source or _version(weight) != version:
                return None
        return self.table


def _version(weight: Tensor) -> int:
    """How often it was written to; inference tensors are not counted."""
    return -1 if weight.is_inference() else weight._version


class DropPath(nn.Module):
    """Drop a residual branch for whole samples while training (stochastic depth)."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, or zeros for a random share of the batch scaled to keep the mean."""
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = 1.0 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask / keep
