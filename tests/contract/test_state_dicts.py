"""Parameter names and shapes are those of the published checkpoints."""

from __future__ import annotations

import pytest
import torch

from sam2_hq.build_sam import build_sam2, build_sam2_video_predictor
from tests.parity.harness import manifests

COUNTS = {  # parameters, without the one buffer
    "sam2_hiera_t": 38_945_986,
    "sam2_hiera_s": 46_043_842,
    "sam2_hiera_b+": 80_833_666,
    "sam2_hiera_l": 224_430_130,
    "sam2.1_hiera_t": 38_962_498,
    "sam2.1_hiera_s": 46_060_354,
    "sam2.1_hiera_b+": 80_850_178,
    "sam2.1_hiera_l": 224_446_642,
    "sam2.1_hq_hiera_t": 39_139_650,
    "sam2.1_hq_hiera_s": 46_237_506,
    "sam2.1_hq_hiera_b+": 81_027_330,
    "sam2.1_hq_hiera_l": 224_623_794,
}


def config_of(name: str) -> str:
    folder = "sam2.1" if name.startswith("sam2.1") else "sam2"
    return f"configs/{folder}/{name}.yaml"


@pytest.mark.parametrize("name", COUNTS)
def test_keys_shapes_and_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = build_sam2(config_of(name), device="meta", mode="train")
    got = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert got == manifests()[name]
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


def test_the_video_predictor_has_the_keys_of_the_model() -> None:
    with torch.device("meta"):
        predictor = build_sam2_video_predictor(
            config_of("sam2.1_hq_hiera_t"), device="meta", mode="train"
        )
    assert set(predictor.state_dict()) == set(manifests()["sam2.1_hq_hiera_t"])


def test_the_hq_token_is_thirteen_tensors_and_under_half_a_percent() -> None:
    hq, plain = manifests()["sam2.1_hq_hiera_t"], manifests()["sam2.1_hiera_t"]
    added = set(hq) - set(plain)
    assert len(added) == 13
    assert COUNTS["sam2.1_hq_hiera_t"] - COUNTS["sam2.1_hiera_t"] == 177_152
    assert 177_152 / COUNTS["sam2.1_hq_hiera_t"] < 0.005
