"""The pyramid on top of the trunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from sam2_hq.modeling.backbones.hieradet import Hiera
from sam2_hq.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2_hq.modeling.position_encoding import PositionEmbeddingSine

CHANNELS = [8, 6, 4, 2]  # coarsest first


def neck(**options: Any) -> FpnNeck:
    torch.manual_seed(0)
    return FpnNeck(PositionEmbeddingSine(8), 8, CHANNELS, **options)


def trunk_maps() -> list[Tensor]:
    """Finest first, as a trunk gives them."""
    generator = torch.manual_seed(1)
    sides = (16, 8, 4, 2)
    return [
        torch.randn(2, c, s, s, generator=generator)
        for c, s in zip(CHANNELS[::-1], sides, strict=True)
    ]


def lateral(layer: FpnNeck, level: int, x: Tensor) -> Tensor:
    conv = layer.convs[3 - level].conv  # the published list starts at the coarsest level
    return torch.einsum("oc,bchw->bohw", conv.weight[..., 0, 0], x) + conv.bias[:, None, None]


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


@pytest.mark.parametrize(("fuse", "share"), [("sum", 1.0), ("avg", 0.5)])
def test_only_the_named_levels_receive_the_coarser_one(fuse: str, share: float) -> None:
    layer, maps = neck(fpn_top_down_levels=[2, 3], fuse_type=fuse), trunk_maps()
    out = layer(maps)
    sides = [lateral(layer, level, x) for level, x in enumerate(maps)]
    assert_close(out[3], sides[3])
    assert_close(out[2], (sides[2] + doubled(sides[3])) * share)
    assert_close(out[1], sides[1])
    assert_close(out[0], sides[0])


def test_by_default_every_level_receives_the_coarser_one() -> None:
    layer, maps = neck(), trunk_maps()
    out = layer(maps)
    for level in (0, 1, 2):
        assert_close(out[level], lateral(layer, level, maps[level]) + doubled(out[level + 1]))


def test_the_pyramid_adds_in_float32_under_autocast() -> None:
    layer, maps = neck(fpn_top_down_levels=[2, 3]), trunk_maps()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(maps)
    assert [m.dtype for m in out] == [
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
        torch.bfloat16,
    ]


@pytest.mark.parametrize("levels", [[2, 3], [1], [0], [], None])
def test_readers_get_what_they_would_read_off_the_pyramid(levels: list[int] | None) -> None:
    layer, maps = neck(fpn_top_down_levels=levels), trunk_maps()
    readers = [nn.Conv2d(8, width, kernel_size=1) for width in (3, 5)]
    pyramid = layer(maps)
    found = layer(maps, readers)
    for level, reader in enumerate(readers):
        assert_close(found[level], reader(pyramid[level]))
    for level in (2, 3):
        assert torch.equal(found[level], pyramid[level])


class Shapes(TorchDispatchMode):
    """Remembers the shape of every map that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen.add(tuple(out.shape))
        return out


def test_no_wide_map_is_made_of_a_level_that_is_only_read() -> None:
    layer, maps = neck(fpn_top_down_levels=[2, 3]), trunk_maps()
    readers = [nn.Conv2d(8, width, kernel_size=1) for width in (3, 5)]
    with torch.no_grad(), Shapes() as shapes:
        layer(maps, readers)
    wide = {(m.shape[0], 8, *m.shape[2:]) for m in maps}
    assert wide & shapes.seen == {(m.shape[0], 8, *m.shape[2:]) for m in maps[2:]}


class Adapter(nn.Conv2d):
    """A convolution that somebody fine-tunes by what they put beside it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x[:, :1]


def twice(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


@pytest.mark.parametrize("extra", ["adapter", "hook", "hook below", "other forward", "no bias"])
def test_what_is_put_on_a_convolution_counts_though_its_level_is_only_read(extra: str) -> None:
    layer, maps = neck(fpn_top_down_levels=[2, 3]), trunk_maps()
    pyramid = layer(maps)
    reader = nn.Conv2d(8, 3, kernel_size=1, bias=extra != "no bias")
    plain = reader(pyramid[0])
    want = plain if extra == "no bias" else 2 * plain
    if extra == "adapter":
        adapter = Adapter(8, 3, kernel_size=1)
        adapter.load_state_dict(reader.state_dict())
        reader, want = adapter, plain + pyramid[0][:, :1]
    elif extra == "hook":
        reader.register_forward_hook(twice)
    elif extra == "hook below":
        layer.convs[-1].register_forward_hook(twice)
        want = reader(2 * pyramid[0])
    elif extra == "other forward":
        usual = reader.forward
        reader.forward = lambda x: 2 * usual(x)
    assert_close(layer(maps, [reader])[0], want)


def test_what_readers_and_pyramid_learn_is_the_same_as_one_after_the_other() -> None:
    layer, maps = neck(fpn_top_down_levels=[2, 3]), trunk_maps()
    readers = [nn.Conv2d(8, width, kernel_size=1) for width in (3, 5)]
    weights = [*layer.parameters(), *(p for reader in readers for p in reader.parameters())]

    def gradients(read: list[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(sum(m.square().sum() for m in read), weights, allow_unused=True)
        return [torch.zeros(1) if g is None else g for g in found]

    at_once = gradients(layer(maps, readers)[:2])
    in_turn = gradients([r(m) for r, m in zip(readers, layer(maps), strict=False)])
    for one, other in zip(at_once, in_turn, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"fpn_interp_model": "bilinear"}, "fpn_interp_model must be 'nearest', got 'bilinear'"),
        ({"fuse_type": "max"}, "fuse_type must be 'sum' or 'avg', got 'max'"),
    ],
)
def test_unknown_options_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        neck(**option)


def tiny_trunk() -> Hiera:
    return Hiera(
        2, 1, dim_mul=2, stages=(1, 1, 1, 1), window_spec=(8, 4, 4, 2), global_att_blocks=()
    )


def test_scalp_drops_the_coarsest_maps() -> None:
    layer = FpnNeck(PositionEmbeddingSine(8), 8, [16, 8, 4, 2], fpn_top_down_levels=[2, 3])
    pixels = torch.randn(1, 3, 64, 64)
    all_maps = ImageEncoder(tiny_trunk(), layer).eval()(pixels)
    assert [m.shape[-1] for m in all_maps] == [16, 8, 4, 2]
    kept = ImageEncoder(tiny_trunk(), layer, scalp=1).eval()(pixels)
    assert [m.shape[-1] for m in kept] == [16, 8, 4]


def test_the_neck_must_fit_the_trunk() -> None:
    layer = FpnNeck(PositionEmbeddingSine(8), 8, CHANNELS)
    with pytest.raises(ValueError, match=r"must be \[16, 8, 4, 2\] for this trunk, got \[8, 6"):
        ImageEncoder(tiny_trunk(), layer)
