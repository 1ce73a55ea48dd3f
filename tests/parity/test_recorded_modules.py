"""Values inside the network, so that a wrong number can be traced to its layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sam2_hq.build_sam import build_sam2
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.structures import PointPrompt
from tests.parity import inputs, weights
from tests.parity.harness import HERE, manifests

MODELS = {"hq_t": ("sam2.1_hq_hiera_t", 1), "sam21_t": ("sam2.1_hiera_t", 2)}
IMAGE_TOLERANCE, DECODER_TOLERANCE = 1e-5, 1e-4  # of the largest magnitude: float32 sums


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[str, Any, dict[str, np.ndarray]]:
    name, seed = MODELS[request.param]
    model = build_sam2(f"configs/sam2.1/{name}.yaml", device="cpu", apply_postprocessing=False)
    model.load_state_dict(weights.make_state_dict(manifests()[name], seed))
    with np.load(HERE / "modules.npz") as file:
        stored = {k.removeprefix(f"{request.param}/"): file[k] for k in file.files}
        return (
            request.param,
            model.prepare(),
            {k: v for k, v in stored.items() if not k.startswith(tuple(MODELS))},
        )


def noise(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(weights.normal(f"module/{name}", 0, shape))


def check(stored: dict[str, np.ndarray], name: str, value: torch.Tensor, tolerance: float) -> None:
    array = value.detach().numpy()
    assert list(array.shape) == stored[f"{name}/shape"].tolist(), name
    flat = np.ascontiguousarray(array).reshape(-1)
    sample = flat[(np.arange(64, dtype=np.uint64) * 2654435761 % flat.size).astype(np.int64)]
    limit = tolerance * stored[f"{name}/mean_std"][2]
    assert np.abs(sample - stored[f"{name}/sample"]).max() <= limit, name
    summary = [flat.mean(dtype=np.float64), flat.std(dtype=np.float64), np.abs(flat).max()]
    assert np.abs(summary - stored[f"{name}/mean_std"]).max() <= limit, name


@torch.no_grad()
def test_the_image_encoder_gives_the_recorded_maps(case: Any) -> None:
    _, model, stored = case
    predictor = SAM2ImagePredictor(model)
    pixels = predictor._transforms(inputs.frame(320, 480, 0, 1))[None]
    check(stored, "image_normalised", pixels, IMAGE_TOLERANCE)
    stages = model.image_encoder.trunk(pixels)
    levels = model.image_encoder.neck(stages)
    for i, stage in enumerate(stages, start=1):
        check(stored, f"trunk_stage{i}", stage, IMAGE_TOLERANCE)
    encode = model.image_encoder.neck.position_encoding
    for i, level in enumerate(levels[:3]):
        check(stored, f"fpn_level{i}", level, IMAGE_TOLERANCE)
        check(stored, f"fpn_position{i}", encode(*level.shape[-2:])[None], IMAGE_TOLERANCE)
    features = model.encode_image(pixels)
    check(stored, "conv_s0", features.high_res[0], IMAGE_TOLERANCE)
    check(stored, "conv_s1", features.high_res[1], IMAGE_TOLERANCE)
    check(stored, "image_embed", model.condition(features, None), IMAGE_TOLERANCE)


@torch.no_grad()
def test_prompt_encoder_and_decoder_give_the_recorded_values(case: Any) -> None:
    name, model, stored = case
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(inputs.frame(320, 480, 0, 1))
    points = [[150, 140], [350, 90], [40.5, 40.25]]
    _, coords, labels, _ = predictor._prep_prompts(points, [1, 0, 0], None, None, True, 0)
    sparse, dense = model.sam_prompt_encoder((coords, labels), None, None)
    check(stored, "prompt_sparse", sparse, DECODER_TOLERANCE)
    check(stored, "prompt_dense_no_mask", dense.expand(-1, -1, 64, 64), DECODER_TOLERANCE)
    check(stored, "dense_position", model.sam_prompt_encoder.get_dense_pe(), DECODER_TOLERANCE)

    features = predictor._image_features(0)
    prompt = PointPrompt(coords, labels)
    out = {
        candidates: model.decode_candidates(
            features.embedding,
            features.high_res,
            points=prompt,
            mask_logits=None,
            candidates=candidates,
        )
        for candidates in ("single", "all")
    }
    single, multi = out["single"], out["all"]
    masks = [single.sam_logits, multi.sam_logits]
    if name == "hq_t":
        masks.append(single.hq_logits)
        check(stored, "decoder_hq_only_masks", single.hq_logits, DECODER_TOLERANCE)
    check(stored, "decoder_masks_all", torch.cat(masks, dim=1), DECODER_TOLERANCE)
    ious = torch.cat([single.iou, multi.iou], dim=1)
    check(stored, "decoder_iou_all", ious, DECODER_TOLERANCE)
    check(stored, "decoder_object_score", single.object_score, DECODER_TOLERANCE)
    combined = model.combine(multi, model.hq_mode)
    check(stored, "decoder_multi_masks", combined, DECODER_TOLERANCE)
    check(stored, "object_pointer", model.obj_ptr_proj(single.tokens[:, 0]), DECODER_TOLERANCE)


@torch.no_grad()
def test_memory_modules_give_the_recorded_values(case: Any) -> None:
    _, model, stored = case
    logits = 5 * noise("mask_prompt", 1, 1, 256, 256)
    dense = model.sam_prompt_encoder(None, None, logits)[1]
    check(stored, "prompt_dense_mask", dense, DECODER_TOLERANCE)

    current = noise("current", 1024, 1, 256).permute(1, 2, 0).unflatten(2, (32, 32))
    position = noise("current_position", 1024, 1, 256).permute(1, 2, 0).unflatten(2, (32, 32))
    memory = noise("memory", 2056, 1, 64).transpose(0, 1)
    memory_position = noise("memory_position", 2056, 1, 64).transpose(0, 1)
    conditioned = model.memory_attention(current, position, memory, memory_position, 8)
    as_tokens = conditioned.flatten(2).permute(2, 0, 1)
    check(stored, "memory_attention", as_tokens, DECODER_TOLERANCE)

    mask = (5 * noise("mask_logits", 1, 1, 512, 512)).sigmoid() * 20 - 10
    encoded = model.memory_encoder(noise("feature", 1, 256, 32, 32), mask)
    check(stored, "memory_encoder", encoded, DECODER_TOLERANCE)
    sine = model.memory_encoder.position_encoding(32, 32)[None]
    check(stored, "memory_position", sine, DECODER_TOLERANCE)
    binary = (5 * noise("mask_logits", 1, 1, 512, 512) > 0).float()
    check(stored, "mask_downsample", model.mask_downsample(binary), DECODER_TOLERANCE)
