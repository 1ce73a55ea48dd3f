"""Train the nano model, stage by stage, each for a given time; every stage can be resumed.

    python tools/train_nano.py --stage warmup --packs DIR --out OUT --minutes 3
    python tools/train_nano.py --stage image  --packs DIR --out OUT --minutes 40
    python tools/train_nano.py --stage video  --packs DIR --out OUT --minutes 20
    python tools/train_nano.py --stage scores --packs DIR --out OUT --minutes 6
    python tools/train_nano.py --stage hq     --packs DIR --out OUT --minutes 8
    python tools/train_nano.py --stage memory --packs DIR --out OUT --minutes 30

The same command again goes on where the last one stopped, also after a kill. Two processes use two
cores better than two threads do:

    torchrun --nproc-per-node 2 tools/train_nano.py --stage image --threads 1 ...
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import get_args

import torch

from sam2_hq.cli.main import USER_MISTAKES, explain
from sam2_hq.compose import override
from sam2_hq.training.config import StageName, read_recipe
from sam2_hq.training.runs import make_trainer
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.world import joined_world

STAGES = get_args(StageName)


def main() -> None:
    options = _parse()
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(options.threads)
    try:
        _run(options)
    except USER_MISTAKES as error:
        raise SystemExit(f"train_nano: {explain(error)}") from error


def _run(options: argparse.Namespace) -> None:
    log = SampleLog()
    recipe = read_recipe(f"train/{options.stage}.yaml", _overrides(options))
    with joined_world() as world:
        trainer = make_trainer(recipe, options.out, device=options.device, world=world, log=log)
        trainer.run()
    if not world.is_first:
        return
    print(f"{options.stage}: {trainer.num_done} steps in {trainer.seconds / 60:.1f} minutes")
    print(log.summary() or "no sample skipped")
    print(trainer.validate())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--packs", type=Path, required=True, help="folder of the zip packs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--validate-steps", type=int, default=1000, help="0 for no validation")
    parser.add_argument("overrides", nargs="*", help="train.trainer.optimizer.lr=3e-4 ...")
    return parser.parse_args()


def _overrides(options: argparse.Namespace) -> list[str]:
    before = STAGES.index(options.stage) - 1
    start = "train.checkpoint=null"
    if before >= 0:
        start = override("train.checkpoint", options.out / f"{STAGES[before]}.pt")
    return [
        override("train.data.packs.folder", options.packs),
        start,
        f"train.trainer.minutes={options.minutes}",
        "train.trainer.num_steps=null",
        f"train.trainer.validate_steps={options.validate_steps}",
        *options.overrides,
    ]


if __name__ == "__main__":
    main()
