"""What a frame leaves behind."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sam2_hq.modeling.layers import LayerNorm2d
from sam2_hq.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2_hq.modeling.position_encoding import PositionEmbeddingSine

DIM, OUT = 16, 8


@pytest.fixture
def encoder() -> MemoryEncoder:
    torch.manual_seed(0)
    return MemoryEncoder(
        OUT,
        MaskDownSampler(DIM, kernel_size=3, stride=2, padding=1),
        Fuser(CXBlock(DIM, layer_scale_init_value=0.5), num_layers=2),
        PositionEmbeddingSine(OUT),
        in_dim=DIM,
    ).requires_grad_(False)


def test_channels_are_normalised_as_specified() -> None:
    pixel = torch.tensor([1.0, 2.0, 3.0, 10.0]).reshape(1, 4, 1, 1)
    want = torch.tensor([-0.8485281, -0.5656855, -0.2828427, 1.6970563])
    assert_close(LayerNorm2d(4)(pixel).flatten(), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (4, 4, 0)])
def test_a_mask_shrinks_by_the_total_stride(kernel: int, stride: int, padding: int) -> None:
    sampler = MaskDownSampler(DIM, kernel, stride, padding, total_stride=16)
    assert sampler(torch.zeros(2, 1, 64, 64)).shape == (2, DIM, 4, 4)
    widths = [m.out_channels for m in sampler.encoder if isinstance(m, torch.nn.Conv2d)]
    assert widths == ([4, 16, 64, 256, DIM] if stride == 2 else [16, 256, DIM])


def test_the_total_stride_is_a_power_of_the_stride() -> None:
    with pytest.raises(ValueError, match="total_stride must be a power of stride 4, got 8"):
        MaskDownSampler(DIM, stride=4, total_stride=8)


@pytest.mark.parametrize("depthwise", [True, False])
def test_a_block_is_a_scaled_residual(depthwise: bool) -> None:
    torch.manual_seed(0)
    block = CXBlock(6, layer_scale_init_value=0.3, use_dwconv=depthwise)
    x = torch.randn(2, 6, 5, 7)
    weight, bias = block.dwconv.weight, block.dwconv.bias
    y = F.conv2d(x, weight, bias, padding=3, groups=6 if depthwise else 1)
    y = F.layer_norm(y.permute(0, 2, 3, 1), (6,), eps=1e-6)
    hidden = F.gelu(y @ block.pwconv1.weight.T + block.pwconv1.bias)
    y = (hidden @ block.pwconv2.weight.T + block.pwconv2.bias).permute(0, 3, 1, 2)
    assert_close(block(x), x + 0.3 * y)


def test_blocks_of_a_fuser_have_weights_of_their_own() -> None:
    fuser = Fuser(CXBlock(4), num_layers=2)
    assert fuser.layers[0].gamma is not fuser.layers[1].gamma
    assert_close(fuser.layers[0].gamma, torch.full((4,), 1e-6))


def test_features_of_one_frame_serve_the_masks_of_many_objects(encoder: MemoryEncoder) -> None:
    features, masks = torch.randn(1, DIM, 4, 4), torch.randn(3, 1, 64, 64)
    memory = encoder(features, masks)
    assert memory.shape == (3, OUT, 4, 4)
    alone = [encoder(features, mask[None]) for mask in masks]
    assert_close(memory, torch.cat(alone))


def test_mask_and_features_are_added_before_they_are_fused(encoder: MemoryEncoder) -> None:
    features, mask = torch.randn(1, DIM, 4, 4), torch.randn(1, 1, 64, 64)
    both = encoder.pix_feat_proj(features) + encoder.mask_downsampler(mask)
    for block in encoder.fuser.layers:
        both = block(both)
    want = torch.einsum("oc,bchw->bohw", encoder.out_proj.weight[..., 0, 0], both)
    assert_close(encoder(features, mask), want + encoder.out_proj.bias[:, None, None])
