"""Layers that several networks share."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sam2_hq.modeling.layers import LayerNorm2d


@pytest.mark.parametrize("is_learning", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pixel_is_normalised_over_its_channels(is_learning: bool, dtype: torch.dtype) -> None:
    norm = LayerNorm2d(5)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    norm.to(dtype)
    x = (3 + 4 * torch.randn(2, 5, 7, 9, generator=torch.manual_seed(0))).to(dtype)
    before = x.clone()
    with torch.set_grad_enabled(is_learning):
        got = norm(x)
    assert got.requires_grad == is_learning
    want = F.layer_norm(x.double().movedim(1, -1), (5,), norm.weight.double(), norm.bias.double())
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    assert_close(got.double(), want.movedim(-1, 1), rtol=tolerance, atol=tolerance)
    assert torch.equal(x, before)
