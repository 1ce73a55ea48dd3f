"""Fresh weights: what attends to what before anything is learned."""

from __future__ import annotations

import torch

from sam2_hq.training.fresh_weights import prefer_near_places, recall_alike
from tests.training.scenes import toy_model


def test_near_places_attend_to_each_other_from_the_start() -> None:
    model = toy_model()
    prefer_near_places(model)
    attention = model.sam_mask_decoder.transformer.layers[0].cross_attn_image_to_token
    codes = model.sam_prompt_encoder.get_dense_pe()[0].flatten(1).T
    similarity = attention.q_proj(codes) @ attention.k_proj(codes).T
    own = similarity.diagonal()
    assert own.mean() > 2 * similarity.abs().mean()


def test_a_place_recalls_the_place_of_memory_that_looks_like_it() -> None:
    model = toy_model()
    torch.manual_seed(0)
    recall_alike(model)
    generator = torch.Generator().manual_seed(1)
    shown = torch.randn(1, model.hidden_dim, 8, 8, generator=generator)
    order = torch.randperm(64, generator=generator)
    seen_again = shown.flatten(2)[:, :, order].transpose(1, 2)
    memory = model.memory_encoder(shown, torch.zeros(1, 1, 128, 128)).flatten(2).transpose(1, 2)
    for layer in model.memory_attention.layers:
        attention = layer.cross_attn_image
        queries = attention.q_proj(layer.norm2(seen_again))
        likeness = queries[0] @ attention.k_proj(memory)[0].T
        assert (likeness.argmax(dim=1) == order).float().mean() > 0.9
