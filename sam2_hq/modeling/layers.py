"""Small layers that several networks share."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_CHANNELS = 32
"""So many are normalised faster by plain arithmetic than by PyTorch's kernel for the CPU."""


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
        is_slow = x.device.type == "cpu" and len(self.weight) <= FEW_CHANNELS
        if is_slow and x.dtype == torch.float32 and not torch.is_grad_enabled():
            return self._plane_by_plane(x)
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)

    def _plane_by_plane(self, x: Tensor) -> Tensor:
        """The same up to rounding."""
        x = x - x.mean(dim=1, keepdim=True)
        variance = x.square().mean(dim=1, keepdim=True)
        x.mul_(torch.rsqrt(variance + self.eps))
        return x.mul_(self.weight[:, None, None]).add_(self.bias[:, None, None])


class WithTable(nn.Module):
    """A module that may keep a table made of some of its weights, as long as these stay the same.

    What is written through `.data` or to inference tensors cannot be seen, nor what is written at
    all while the module is compiled. Loading and training are always noticed.
    """

    table: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", None, persistent=False)
        self._made_of: tuple[tuple[Tensor, int], ...] = ()
        self.register_load_state_dict_post_hook(_drop_table)

    def table_weights(self) -> tuple[Tensor, ...]:
        """What the table is made of."""
        raise NotImplementedError

    def keep_table(self, table: Tensor) -> None:
        """Keep a table that was made of the weights as they are."""
        self.table = table.contiguous()
        self._made_of = tuple((weight, _version(weight)) for weight in self.table_weights())

    def kept_table(self) -> Tensor | None:
        """The table, or None if there is none, or the weights have changed or may be learning."""
        if torch.is_grad_enabled() and any(w.requires_grad for w in self.table_weights()):
            return None
        if torch.compiler.is_compiling():  # cannot follow versions
            return self.table
        return self.table if self._is_current() else None

    def train(self, mode: bool = True) -> WithTable:
        """Switch to training (or evaluation) as usual; weights may change, so the table goes."""
        if mode:
            _drop_table(self)
        return super().train(mode)

    def _is_current(self) -> bool:
        if self.table is None:
            return False
        pairs = zip(self.table_weights(), self._made_of, strict=True)
        return all(now is then and _version(now) == version for now, (then, version) in pairs)

    # Any: what torch hands to its own.
    def _apply(self, *args: Any, **kwargs: Any) -> WithTable:
        """Move or cast; the table goes with the weights."""
        is_current = self._is_current()
        super()._apply(*args, **kwargs)
        if is_current and self.table is not None:
            self.keep_table(self.table)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy or a pickle: its weights count their versions anew."""
        super().__setstate__(state)
        _drop_table(self)


def _drop_table(module: WithTable, _: object = None) -> None:
    module.table = None
    module._made_of = ()


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
