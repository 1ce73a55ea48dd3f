"""The image encoder: a trunk and a feature pyramid on top of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeGuard

import torch.nn.functional as F
from torch import Tensor, nn

from sam2_hq.modeling.backbones.hieradet import Hiera
from sam2_hq.modeling.position_encoding import PositionEmbeddingSine


class _Lateral(nn.Sequential):
    """A 1x1 convolution under the published name `conv`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv: nn.Conv2d
        self.add_module("conv", nn.Conv2d(in_channels, out_channels, kernel_size=1))

    def read_by(self, reader: nn.Module, x: Tensor) -> Tensor:
        """`reader(self(x))` for another 1x1 convolution; no wide map between two plain ones."""
        conv = self.conv
        if _has_extras(self) or not (_is_plain(conv) and _is_plain(reader)):
            return reader(self(x))
        assert conv.bias is not None
        assert reader.bias is not None
        reading = reader.weight.flatten(1)
        weight = reading @ conv.weight.flatten(1)
        bias = reading @ conv.bias + reader.bias
        return F.conv2d(x, weight[..., None, None], bias)


def _is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether its weight and bias say all that a convolution does."""
    return type(module) is nn.Conv2d and module.bias is not None and not _has_extras(module)


def _has_extras(module: nn.Module) -> bool:
    """Whether somebody's hooks run with a module, or another forward instead of its own."""
    hooks = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    return any(hooks) or "forward" in module.__dict__


class FpnNeck(nn.Module):
    """Bring all trunk maps to `d_model` channels and add coarse maps into finer ones.

    Args:
        position_encoding: sine encoding of the embedding grid; the model makes its table from it.
        d_model: channels of every output map.
        backbone_channel_list: channels of the trunk maps, coarsest first.
        fpn_top_down_levels: levels (0 is the finest) that receive the next coarser map.
        fpn_interp_model: only "nearest".
        fuse_type: "sum", or "avg" to halve the sum.
    """

    def __init__(
        self,
        position_encoding: PositionEmbeddingSine,
        d_model: int,
        backbone_channel_list: Sequence[int],
        fpn_top_down_levels: Sequence[int] | None = None,
        fpn_interp_model: Literal["nearest"] = "nearest",
        fuse_type: Literal["sum", "avg"] = "sum",
    ) -> None:
        super().__init__()
        if fpn_interp_model != "nearest":
            raise ValueError(f"fpn_interp_model must be 'nearest', got {fpn_interp_model!r}")
        if fuse_type not in ("sum", "avg"):
            raise ValueError(f"fuse_type must be 'sum' or 'avg', got {fuse_type!r}")
        self.position_encoding = position_encoding
        self.d_model = d_model
        self.backbone_channel_list = list(backbone_channel_list)
        self.convs = nn.ModuleList(_Lateral(c, d_model) for c in self.backbone_channel_list)
        levels = range(len(self.convs)) if fpn_top_down_levels is None else fpn_top_down_levels
        self.fpn_top_down_levels = list(levels)
        if not all(0 <= level < len(self.convs) for level in self.fpn_top_down_levels):
            raise ValueError(
                f"fpn_top_down_levels must lie in 0..{len(self.convs) - 1}, "
                f"got {self.fpn_top_down_levels}"
            )
        self.fuse_type = fuse_type

    def forward(self, maps: list[Tensor], readers: Sequence[nn.Conv2d] = ()) -> list[Tensor]:
        """Trunk maps, finest first, to pyramid maps [B, d_model, H, W], finest first.

        Each of the first levels that has a 1x1 convolution in `readers` is returned as that makes
        it.
        """
        out: list[Tensor] = []
        last = len(self.convs) - 1
        for level in range(last, -1, -1):
            conv = self.convs[last - level]
            if level < len(readers) and self._stands_alone(level):
                assert isinstance(conv, _Lateral)
                out.insert(0, conv.read_by(readers[level], maps[level]))
                continue
            lateral = conv(maps[level])
            if out and level in self.fpn_top_down_levels:
                # float32: the sum of a pyramid loses too much in half precision
                lateral = lateral + F.interpolate(out[0].float(), scale_factor=2.0, mode="nearest")
                lateral = lateral / 2 if self.fuse_type == "avg" else lateral
            out.insert(0, lateral)
        for level, reader in enumerate(readers):
            if not self._stands_alone(level):
                out[level] = reader(out[level])
        return out

    def _stands_alone(self, level: int) -> bool:
        """Whether a level neither receives another one nor is added to a finer one."""
        levels = self.fpn_top_down_levels
        return level not in levels and level - 1 not in levels


class ImageEncoder(nn.Module):
    """Trunk and neck; the `scalp` coarsest maps serve only the finer ones and are dropped."""

    def __init__(self, trunk: Hiera, neck: FpnNeck, scalp: int = 0) -> None:
        super().__init__()
        if trunk.channel_list != neck.backbone_channel_list:
            raise ValueError(
                f"backbone_channel_list must be {trunk.channel_list} for this trunk, "
                f"got {neck.backbone_channel_list}"
            )
        for level, (here, above) in enumerate(pairwise(trunk.strides)):
            if level in neck.fpn_top_down_levels and above != 2 * here:
                raise ValueError(
                    f"fpn_top_down_levels must leave out {level}: the next map has stride {above}, "
                    f"not twice {here} (see q_pool)"
                )
        if not 0 <= scalp < len(trunk.strides):
            raise ValueError(f"scalp must be 0 to {len(trunk.strides) - 1}, got {scalp}")
        self.trunk = trunk
        self.neck = neck
        self.scalp = scalp
        self.strides = trunk.strides[: len(trunk.strides) - scalp]  # of the maps, finest first
        self.num_loads = 0  # how often weights were loaded: features of other weights are void
        self.register_load_state_dict_post_hook(_count_load)

    def forward(self, pixels: Tensor, readers: Sequence[nn.Conv2d] = ()) -> list[Tensor]:
        """Normalised pixels [B, 3, S, S] to maps [B, d_model, H, W], finest first.

        Of the finest levels what `readers` make of them, see `FpnNeck`.
        """
        maps = self.neck(self.trunk(pixels), readers)
        return maps[: len(maps) - self.scalp]


def _count_load(encoder: nn.Module, _: object) -> None:
    """Whether it was given weights by itself or its owner was."""
    assert isinstance(encoder, ImageEncoder)
    encoder.num_loads += 1
