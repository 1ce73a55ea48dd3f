"""`sam2-hq train`: run a stage of training from a config."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from sam2_hq.training.config import read_recipe
from sam2_hq.training.runs import make_trainer
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.world import joined_world


def train(
    config: Annotated[str, typer.Argument(help="Packaged name (train/image.yaml) or YAML file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoints and logs.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes: train.trainer.minutes=30 ...")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Config of another size to train: sam2.1_hq_hiera_l ..."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps; the best one by default.")
    ] = None,
) -> None:
    """Train a stage: warm-up, image, video, scores, HQ or memory; go on where OUT stopped.

    Several GPUs: torchrun --nproc-per-node N -m sam2_hq.cli.main train CONFIG --out FOLDER
    """
    logging.getLogger("sam2_hq.training").setLevel(logging.INFO)
    recipe = read_recipe(config, overrides or [], model=model)
    log = SampleLog()
    with joined_world() as world:
        trainer = make_trainer(recipe, out, device=device, world=world, log=log)
        trainer.run()
    if log.count:
        typer.echo(log.summary(), err=True)
    if world.is_first:
        typer.echo(f"{trainer.num_done} steps, state in {trainer.checkpoint}")
