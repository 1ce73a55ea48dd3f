"""Weights to learn from when there are none: two habits that a decoder and a memory need.

Both could be learned from chance weights, but from little data they take hours. Loading a
checkpoint replaces all of it.
"""

from __future__ import annotations

import torch
from torch import nn

from sam2_hq.modeling.sam.transformer import Attention, RoPEAttention
from sam2_hq.modeling.sam2_base import SAM2Base

TOKEN_SCALE = 0.2
NECK_SCALE = 0.3
ATTENTION_GAIN = 2.0
MEMORY_SCALE = 16.0  # memories several times larger than the codes of place and time added to them
KEY_SCALE = 0.25


@torch.no_grad()
def prepare_fresh(model: SAM2Base) -> None:
    """Give chance weights both habits; draws random numbers."""
    prefer_near_places(model)
    recall_alike(model)


@torch.no_grad()
def prefer_near_places(model: SAM2Base) -> None:
    """Change fresh weights so that tokens and pixels attend to each other where they are close.

    The random Fourier codes of two places have a large inner product where the places are close;
    equal projections of queries and keys keep it, and quiet tokens and features let it be heard.
    """
    decoder, prompts = model.sam_mask_decoder, model.sam_prompt_encoder
    tokens = [*prompts.point_embeddings, prompts.not_a_point_embed, prompts.no_mask_embed]
    own = [decoder.iou_token, decoder.mask_tokens, decoder.obj_score_token, decoder.hf_token]
    for embedding in [*tokens, *own]:
        if embedding is not None:
            embedding.weight.mul_(TOKEN_SCALE)
    for lateral in model.image_encoder.neck.convs.modules():
        if isinstance(lateral, nn.Conv2d) and lateral.bias is not None:
            lateral.weight.mul_(NECK_SCALE)
            lateral.bias.zero_()
    for attention in _cross_attentions(decoder.transformer):
        attention.q_proj.weight.mul_(ATTENTION_GAIN)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.q_proj.bias.zero_()
        attention.k_proj.bias.zero_()


@torch.no_grad()
def recall_alike(model: SAM2Base) -> None:
    """Change fresh weights so that a place recalls the places of memory that look like it.

    A memory starts as a random projection of the frame's features, which keeps inner products, and
    queries are projected as the memories were. The rotary code then favours what is also near.
    """
    encoder = model.memory_encoder
    nn.init.dirac_(encoder.pix_feat_proj.weight)
    assert encoder.pix_feat_proj.bias is not None
    assert encoder.out_proj.bias is not None
    encoder.pix_feat_proj.bias.zero_()
    projection = nn.init.orthogonal_(torch.empty_like(encoder.out_proj.weight[..., 0, 0]))
    encoder.out_proj.weight.copy_(MEMORY_SCALE * projection[..., None, None])
    encoder.out_proj.bias.zero_()
    for attention in model.memory_attention.modules():
        if not isinstance(attention, RoPEAttention) or not attention.rope_k_repeat:
            continue
        keys = nn.init.orthogonal_(torch.empty_like(attention.k_proj.weight))
        attention.k_proj.weight.copy_(KEY_SCALE * keys)
        attention.q_proj.weight.copy_(keys @ projection)
        attention.v_proj.weight.mul_(KEY_SCALE)  # loud memories: as quiet an answer as without
        attention.k_proj.bias.zero_()
        attention.q_proj.bias.zero_()


def _cross_attentions(transformer: nn.Module) -> list[Attention]:
    return [
        module
        for name, module in transformer.named_modules()
        if isinstance(module, Attention) and "token" in name
    ]
