"""Points, boxes and masks as tokens and maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from sam2_hq.modeling.sam.prompt_encoder import PromptEncoder

GRID, SIDE, DIM = 4, 64, 8


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    torch.manual_seed(0)
    return PromptEncoder(DIM, (GRID, GRID), (SIDE, SIDE), mask_in_chans=16)


def place(encoder: PromptEncoder, x: float, y: float) -> Tensor:
    """The code of a point of the picture, half a pixel further in."""
    return encoder.pe_layer.encode(torch.tensor([(x + 0.5) / SIDE, (y + 0.5) / SIDE]))


def test_a_point_has_the_specified_code() -> None:
    encoder = PromptEncoder(4, (64, 64), (1024, 1024), 16)
    with torch.no_grad():
        encoder.pe_layer.positional_encoding_gaussian_matrix.copy_(
            torch.tensor([[0.5, -1.0], [0.25, 2.0]])
        )
        encoder.point_embeddings[1].weight.zero_()
    sparse, _ = encoder((torch.tensor([[[100.0, 300.0]]]), torch.tensor([[1]])))
    want = torch.tensor([0.0322082, -0.1406582, -0.9994812, 0.9900582])
    assert_close(sparse[0, 0], want, rtol=0, atol=1e-6)
    cell = torch.tensor([0.3598952, -0.6343935, -0.9329928, 0.7730103])
    assert_close(encoder.get_dense_pe()[0, :, 3, 10], cell, rtol=0, atol=1e-6)


@pytest.mark.parametrize("label", [0, 1, 2, 3])
def test_a_point_is_its_place_and_its_kind_and_a_padding_follows(
    encoder: PromptEncoder, label: int
) -> None:
    sparse, dense = encoder((torch.tensor([[[7.0, 30.0]]]), torch.tensor([[label]])))
    kind = encoder.point_embeddings[label].weight[0]
    assert_close(sparse[0, 0], place(encoder, 7, 30) + kind)
    assert torch.equal(sparse[0, 1:], encoder.not_a_point_embed.weight)
    assert torch.equal(
        dense.expand(1, DIM, GRID, GRID)[0, :, 2, 3], encoder.no_mask_embed.weight[0]
    )


def test_a_label_that_means_nothing_leaves_the_place_alone(encoder: PromptEncoder) -> None:
    coords = torch.tensor([[[7.0, 30.0]] * 3])
    sparse, _ = encoder((coords, torch.tensor([[4, 7, -2]])))
    assert_close(sparse[0, :3], place(encoder, 7, 30).expand(3, -1))


def test_a_padding_label_hides_the_place(encoder: PromptEncoder) -> None:
    coords = torch.tensor([[[7.0, 30.0], [50.0, 9.0]]])
    sparse, _ = encoder((coords, torch.tensor([[-1, 1]])))
    assert torch.equal(sparse[0, 0], encoder.not_a_point_embed.weight[0])
    assert_close(sparse[0, 1], place(encoder, 50, 9) + encoder.point_embeddings[1].weight[0])
    two_paddings, _ = encoder((torch.zeros(3, 1, 2), torch.full((3, 1), -1)))
    assert torch.equal(two_paddings, encoder.no_points(3))


def test_boxes_are_their_corners_without_padding(encoder: PromptEncoder) -> None:
    boxes = torch.tensor([[3.0, 4.0, 30.0, 40.0], [0.0, 0.0, 9.0, 9.0]])
    by_box, _ = encoder(boxes=boxes)
    by_points, _ = encoder((boxes.reshape(2, 2, 2), torch.tensor([[2, 3], [2, 3]])))
    assert by_box.shape == (2, 2, DIM)
    assert torch.equal(by_box, by_points[:, :2])


def test_points_come_before_boxes(encoder: PromptEncoder) -> None:
    point = (torch.tensor([[[7.0, 30.0]]]), torch.tensor([[1]]))
    boxes = torch.tensor([[3.0, 4.0, 30.0, 40.0]])
    both, _ = encoder(point, boxes)
    assert torch.equal(both, torch.cat([encoder(point)[0][:, :1], encoder(boxes=boxes)[0]], dim=1))


def test_without_prompts_there_is_no_token(encoder: PromptEncoder) -> None:
    sparse, dense = encoder()
    assert sparse.shape == (1, 0, DIM)
    assert dense.shape == (1, DIM, 1, 1)


def channel_norm(x: Tensor) -> Tensor:
    mean = x.mean(dim=1, keepdim=True)
    return (x - mean) / (x.var(dim=1, keepdim=True, unbiased=False) + 1e-6).sqrt()


def test_a_mask_becomes_a_map_of_the_grid(encoder: PromptEncoder) -> None:
    logits = 9 * torch.randn(2, 1, 4 * GRID, 4 * GRID)
    sparse, dense = encoder(masks=logits)
    assert sparse.shape == (2, 0, DIM)
    conv1, _, _, conv2, _, _, conv3 = encoder.mask_downscaling
    x = F.gelu(channel_norm(F.conv2d(logits, conv1.weight, conv1.bias, stride=2)))
    x = F.gelu(channel_norm(F.conv2d(x, conv2.weight, conv2.bias, stride=2)))
    assert_close(dense, F.conv2d(x, conv3.weight, conv3.bias))


def test_points_stay_exact_under_autocast(encoder: PromptEncoder) -> None:
    prompt = (torch.tensor([[[7.25, 30.0], [50.0, 9.75]]]), torch.tensor([[1, 0]]))
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = encoder(prompt)
    assert torch.equal(inside, encoder(prompt)[0])
