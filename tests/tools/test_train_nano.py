"""The two scripts that train nano, from their command lines: small, cut short, and gone on with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sam2_hq.checkpoint import HQ_TENSORS, read_checkpoint
from tests.training.learned import changed
from tests.training.packs import write_packs

TOOLS = Path(__file__).parents[2] / "tools"
SMALL = "train.trainer.phases=[{until: 1.0, image_size: 64, batch_size: 2, num_frames: 2}]"
# Minutes of training hit nothing that HQ could learn from.
ANY_MASK = "train.hq.min_iou=0"
BUNDLED = TOOLS.parent / "sam2_hq" / "weights" / "sam2.1_hq_hiera_nano.safetensors"


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> Path:
    return write_packs(tmp_path_factory.mktemp("packs"))


def script(name: str, *arguments: object) -> str:
    command = [sys.executable, str(TOOLS / name), *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def on_gpu(packs: Path, out: Path, *arguments: object) -> str:
    always = ("--packs", packs, "--out", out, "--device", "cpu", "--share", 1e-4, SMALL)
    return script("train_nano_gpu.py", *always, ANY_MASK, *arguments)


def test_all_stages_run_one_after_the_other_however_short_the_calls(packs, tmp_path) -> None:
    first = on_gpu(packs, tmp_path, "--stop-after", 0.1, "--share", 10)  # five minutes of warm-up
    assert first.endswith("stopped: give the command again\n")
    num_done = torch.load(tmp_path / "warmup.pt", weights_only=True)["num_done"]
    assert num_done > 0
    assert not (tmp_path / "warmup.safetensors").is_file()
    last = on_gpu(packs, tmp_path, "--stop-after", 5)
    assert f"warmup: {num_done} steps" in last  # its share was done already
    assert last.endswith("done\n")
    written = {path.name for path in tmp_path.glob("*.safetensors")}
    stages = {f"{stage}.safetensors" for stage in ("warmup", "image", "video", "scores", "hq")}
    assert written == stages | {"weights.safetensors", "hq_tensors.safetensors"}
    learned = changed(tmp_path / "scores.safetensors", tmp_path / "hq.safetensors")
    assert learned
    assert learned <= HQ_TENSORS


def test_a_run_can_start_from_the_bundled_weights(packs, tmp_path) -> None:
    on_gpu(packs, tmp_path, "--stop-after", 5, "--start", BUNDLED)
    assert not (tmp_path / "warmup.pt").is_file()
    learned = changed(tmp_path / "image.safetensors", tmp_path / "hq.safetensors")
    assert learned
    assert learned <= HQ_TENSORS
    remembered = changed(tmp_path / "hq.safetensors", tmp_path / "memory.safetensors")
    assert any(name.startswith("memory_attention.") for name in remembered)
    assert not any(name.startswith(("image_encoder.", "sam_prompt_enc")) for name in remembered)
    before = read_checkpoint(BUNDLED)
    after = read_checkpoint(tmp_path / "memory.safetensors")
    # A few steps at a low rate: the trunk has moved, but it is the same one.
    name = "image_encoder.trunk.blocks.0.attn.qkv.weight"
    assert not before[name].equal(after[name])
    assert (before[name].float() - after[name].float()).abs().max() < 0.1


def test_a_run_that_began_with_a_warm_up_does_not_start_elsewhere(packs, tmp_path) -> None:
    (tmp_path / "warmup.pt").touch()
    command = [sys.executable, TOOLS / "train_nano_gpu.py", "--packs", packs, "--out", tmp_path]
    done = subprocess.run(
        [*command, "--start", BUNDLED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "--start needs another --out" in done.stderr


def test_a_single_stage_goes_on_from_the_one_before(packs, tmp_path) -> None:
    for stage in ("warmup", "image"):
        always = ("--packs", packs, "--out", tmp_path, "--threads", 1, "--minutes", 0.002)
        said = script("train_nano.py", "--stage", stage, *always, SMALL)
        assert f"{stage}: " in said
    log = (tmp_path / "image.jsonl").read_text()
    assert "iou_click_1" in log
