"""A rehearsal of every stage on a pretended GPU: nothing mixes host and device."""

from __future__ import annotations

import json
import math
from concurrent.futures import Future
from typing import get_args

import pytest
import torch

from sam2_hq.build_sam import build_sam2_video_predictor
from sam2_hq.training import runs, trainer
from sam2_hq.training.config import StageName, read_recipe
from sam2_hq.training.runs import make_trainer
from tests.toy import toy_tree
from tests.training.packs import write_packs
from tests.training.pretend_cuda import DEVICE, MixedDevices, PretendCuda, is_there, move


def test_the_pretended_device_refuses_what_a_real_one_refuses() -> None:
    with PretendCuda():
        there, here = torch.ones(2, device="cuda"), torch.ones(2)
        assert (there.device.type, here.device.type) == ("cuda", "cpu")
        assert is_there(there.exp() + here.to("cuda") + 1)
        assert is_there(there[torch.tensor([0])] + torch.tensor(1.0))
        assert there.cpu().numpy().tolist() == there.tolist()
        for wrong in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: here[there > 0],
            lambda: there.numpy(),
        ):
            with pytest.raises(MixedDevices):
                wrong()


def build_there(*arguments, device, **options):
    assert device == DEVICE
    return move(build_sam2_video_predictor(*arguments, device="cpu", **options))


class GeneratorAnywhere(torch.Generator):
    """A generator cannot pretend; the numbers of the device come from the host."""

    def __new__(cls, device: object = None) -> GeneratorAnywhere:
        return super().__new__(cls, "cpu")


class AtOnce:
    """An executor without threads, which a rehearsal cannot look into."""

    def __init__(self, num_workers: int) -> None: ...

    def __enter__(self) -> AtOnce:
        return self

    def __exit__(self, *error: object) -> None: ...

    def submit(self, work, *arguments) -> Future:
        future = Future()
        future.set_result(work(*arguments))
        assert is_there(future.result().frames), "batches are made on the device"
        return future


@pytest.mark.parametrize("stage", get_args(StageName))
def test_a_stage_learns_and_resumes_on_the_device(tmp_path, monkeypatch, stage) -> None:
    monkeypatch.setattr(torch, "Generator", GeneratorAnywhere)
    monkeypatch.setattr(trainer, "ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(runs, "choose_device", lambda device: DEVICE)
    monkeypatch.setattr(runs, "build_sam2_video_predictor", build_there)
    tree = toy_tree() | {"_target_": "sam2_hq.sam2_hq_video_predictor.SAM2HQVideoPredictor"}
    train = {
        "stage": stage,
        "data": {
            "packs": {"folder": str(write_packs(tmp_path / "packs"))},
            "num_frames": 3,
            "still_share": 0.0 if stage == "memory" else 0.3,
            "cache": 4,
        },
        "hq": {"num_points": 64},
        "trainer": {
            "phases": [{"until": 1.0, "image_size": 64, "batch_size": 2}],
            "log_steps": 1,
            "sheet_steps": 2,
            "validate_steps": 2,
        },
    }
    with PretendCuda():
        for num_steps in (1, 2):
            train["trainer"]["num_steps"] = num_steps
            make_trainer(read_recipe({"model": tree, "train": train}), tmp_path / "out").run()
    lines = (tmp_path / "out" / f"{stage}.jsonl").read_text().splitlines()
    losses = [line["loss"] for line in map(json.loads, lines) if "loss" in line]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
