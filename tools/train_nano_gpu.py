"""Train the nano model on one large GPU in 24 minutes, in calls as short as the machine asks.

    python tools/train_nano_gpu.py --packs DIR --out OUT --stop-after 8.5

The same command again goes on where the last one stopped, until it says `done`. Every stage leaves
`OUT/STAGE.safetensors`; those of the last one are the result. `--start WEIGHTS`, in every call,
goes on from trained weights: pictures first, three tenths of the old weights kept, then HQ, then
the memory alone. To try it on a CPU: `--device cpu --share 0.02`, and smaller phases:
`"train.trainer.phases=[{until: 1, image_size: 64, batch_size: 2}]"`.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from pathlib import Path

from sam2_hq.cli.main import USER_MISTAKES, explain
from sam2_hq.compose import override
from sam2_hq.data.atomic import whole_file
from sam2_hq.training.config import read_recipe
from sam2_hq.training.runs import make_trainer
from sam2_hq.training.sample_log import SampleLog

FRESH = {"warmup": 0.5, "image": 11.0, "video": 8.0, "scores": 1.0, "hq": 2.5}
ONWARD = {"image": 13.0, "hq": 2.5, "memory": 7.5}
"""Stages and their minutes, from nothing and from trained weights."""

LARGE = {
    "warmup": ["train.trainer.phases=[{until: 1.0, image_size: 128, batch_size: 64}]"],
    "image": [
        "train.trainer.bfloat16=true",
        "train.trainer.phases=[{until: 0.35, image_size: 192, batch_size: 128},"
        "{until: 0.65, image_size: 256, batch_size: 128},"
        "{until: 1.0, image_size: 384, batch_size: 64}]",
    ],
    "video": [
        "train.trainer.bfloat16=true",
        "train.trainer.phases=[{until: 0.5, image_size: 192, batch_size: 32, num_frames: 4},"
        "{until: 1.0, image_size: 320, batch_size: 16, num_frames: 8}]",
    ],
    "scores": [
        "train.trainer.bfloat16=true",
        "train.trainer.phases=[{until: 1.0, image_size: 384, batch_size: 64}]",
    ],
    "hq": [
        "train.trainer.bfloat16=true",
        "train.trainer.phases=[{until: 1.0, image_size: 384, batch_size: 32}]",
    ],
    "memory": [
        "train.trainer.bfloat16=true",
        "train.trainer.phases=[{until: 0.5, image_size: 192, batch_size: 32},"
        "{until: 1.0, image_size: 384, batch_size: 16, num_frames: 6}]",
    ],
}
"""What differs from the recipes, which are for two CPU cores."""

KEEP = {"image": ["train.trainer.optimizer.start_share=0.3"]}
"""What differs from the recipes when trained weights are gone on with."""


def main() -> None:
    options = _parse()
    logging.basicConfig(level=logging.INFO)
    try:
        _run(options)
    except USER_MISTAKES as error:
        raise SystemExit(f"train_nano_gpu: {explain(error)}") from error


def _run(options: argparse.Namespace) -> None:
    if options.start is not None and _has_warmup(options.out):
        raise SystemExit(f"--start needs another --out: '{options.out}' began with a warm-up")
    if (
        options.start is None
        and not _has_warmup(options.out)
        and (options.out / "image.pt").is_file()
    ):
        raise SystemExit(f"'{options.out}' began without a warm-up: give its --start again")
    stop_at = time.monotonic() + options.stop_after * 60
    stages = list(_plan(options))
    for stage in stages:
        if not _weights(options.out, stage).is_file() and time.monotonic() < stop_at:
            _train(stage, options, stop_at)
    is_done = _weights(options.out, stages[-1]).is_file()
    print("done" if is_done else "stopped: give the command again")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packs", type=Path, required=True, help="folder of the zip packs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="weights to go on from, without a warm-up")
    parser.add_argument("--stop-after", type=float, default=8.5, help="minutes of this call")
    parser.add_argument("--share", type=float, default=1.0, help="of the planned minutes")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("overrides", nargs="*", help="for all stages: train.trainer.seed=1 ...")
    return parser.parse_args()


def _plan(options: argparse.Namespace) -> dict[str, float]:
    """Stages, and the minutes of each."""
    return FRESH if options.start is None else ONWARD


def _train(stage: str, options: argparse.Namespace, stop_at: float) -> None:
    """Go on with a stage; its weights appear when it has come to its end."""
    stages = list(_plan(options))
    before = stages.index(stage) - 1
    start = options.start if before < 0 else options.out / f"{stages[before]}.pt"
    recipe = read_recipe(
        f"train/{stage}.yaml",
        [
            override("train.data.packs.folder", options.packs),
            "train.checkpoint=null" if start is None else override("train.checkpoint", start),
            f"train.trainer.minutes={_plan(options)[stage] * options.share}",
            "train.trainer.num_steps=null",
            "train.trainer.save_minutes=1",
            "train.trainer.validate_steps=1000",
            *LARGE[stage],
            *([] if options.start is None else KEEP.get(stage, [])),
            *options.overrides,
        ],
    )
    log = SampleLog()
    trainer = make_trainer(recipe, options.out, device=options.device, log=log)
    trainer.run(stop_at - time.monotonic())
    print(f"{stage}: {trainer.num_done} steps in {trainer.seconds / 60:.1f} minutes")
    print(log.summary() or "no sample skipped")
    if trainer.progress >= 1.0:
        print(dict(trainer.validate()))
        with whole_file(_weights(options.out, stage)) as path:
            shutil.copyfile(options.out / "weights.safetensors", path)


def _has_warmup(out: Path) -> bool:
    return (out / "warmup.pt").is_file()


def _weights(out: Path, stage: str) -> Path:
    return out / f"{stage}.safetensors"


if __name__ == "__main__":
    main()
