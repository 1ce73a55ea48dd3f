"""`sam2-hq track-dataset`: all sequences of a data set, resumable, on one machine or many."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast

import typer

from sam2_hq.batch.engines import Engine
from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.local import LocalEngine
from sam2_hq.batch.ray_engine import RayEngine
from sam2_hq.batch.runner import RunSummary, run_dataset
from sam2_hq.batch.scores import score_run
from sam2_hq.cli.evaluate import say_what_is_left_out, seen_in_training
from sam2_hq.cli.options import Checkpoint, Config, Device, DType, HQModeOption, Override
from sam2_hq.evaluation.datasets import load_dataset
from sam2_hq.evaluation.semi_supervised import PromptKind
from sam2_hq.evaluation.tables import table
from sam2_hq.model_spec import ModelSpec

ENGINES = ("local", "ray")
MAX_NAMES = 10


def track_dataset(
    root: Annotated[
        Path,
        typer.Argument(help="A data set: frames and annotations.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for a folder of masks a sequence, manifest.jsonl and settings.json.",
            show_default=False,
        ),
    ],
    protocol: Annotated[
        str,
        typer.Option(
            help="Where things are and what counts: davis2016, davis2017, sav, mose, youtube-vos, "
            "lvos, or a YAML file like those in configs/eval.",
            show_default=False,
        ),
    ],
    prompts: Annotated[
        str,
        typer.Option(help="What is told of an object's first mask: mask, box or click."),
    ] = "mask",
    names: Annotated[
        list[str] | None, typer.Option(help="Track this sequence alone. Repeatable.")
    ] = None,
    sequence_list: Annotated[
        Path | None,
        typer.Option(
            help="Track these sequences alone: a text file, one name a line. Default: that of the "
            "protocol, or all."
        ),
    ] = None,
    per_object: Annotated[
        bool | None,
        typer.Option(
            "--per-object/--packed",
            help="Write one PNG an object, overlaps kept, or one palette PNG a frame. Default: as "
            "the protocol.",
            show_default=False,
        ),
    ] = None,
    late_objects: Annotated[
        bool | None,
        typer.Option(
            "--late-objects/--first-objects",
            help="Track also objects that appear later. Default: as the protocol.",
            show_default=False,
        ),
    ] = None,
    every_mask: Annotated[
        bool, typer.Option("--every-mask", help="Prompt with all annotations, not the first alone.")
    ] = False,
    score_threshold: Annotated[
        float, typer.Option(help="An object is where its logit is above this.")
    ] = 0.0,
    checkpoint: Checkpoint = None,
    config: Config = None,
    override: Override = None,
    device: Device = None,
    dtype: DType = "float32",
    hq_mode: HQModeOption = None,
    postprocessing: Annotated[
        bool,
        typer.Option(
            "--postprocessing", help="Fill holes and steady masks; published scores are without."
        ),
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network; the first frames take minutes.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes, each with a model, over all GPUs; 0 for none but this one. Default: "
            "one a GPU if there are several, else 0. With ray: workers of the cluster; default: "
            "one a GPU, or one a CPU.",
            min=0,
            show_default=False,
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[
        str, typer.Option(help="Of the Ray cluster: HOST:PORT, or auto to find one.")
    ] = "auto",
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate", help="Score when done: a table, scores.json and report.html in --out."
        ),
    ] = False,
    training_meta: Annotated[
        Path | None,
        typer.Option(help="youtube-vos: meta.json of the training set, whose categories are seen."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again in a folder that holds a run.")
    ] = False,
) -> None:
    """Track every object of a data set from its first annotation.

    Stop it at any time, in any way; the same command goes on with the sequences that are not done.
    A sequence that fails does not stop the rest; the exit code is 1 if any fails.
    """
    dataset = load_dataset(protocol)
    if per_object is not None:
        dataset = replace(dataset, per_object=per_object)
    if late_objects is not None:
        dataset = replace(dataset, late_objects=late_objects)
    job = DatasetJob(
        root,
        out,
        dataset,
        ModelSpec(
            checkpoint,
            config,
            tuple(override or ()),
            device,
            dtype,
            hq_mode,
            compiled,
            postprocessing,
        ),
        cast(PromptKind, prompts),
        score_threshold,
        every_mask,
        tuple(names or ()),
        sequence_list,
    )
    crew = _engine(engine, workers, address)
    gt = root / dataset.annotations
    seen = (
        seen_in_training(dataset, dataset.conventions, gt, None, training_meta)
        if evaluate
        else None
    )
    summary = run_dataset(job, engine=crew, overwrite=overwrite, progress=True)
    say_how_it_ended(job, summary)
    if evaluate and len(summary.failed) < len(summary.records):
        evaluation = score_run(
            job,
            summary,
            Path(protocol).stem,
            workers=min(os.cpu_count() or 1, len(summary.records)),
            seen=seen,
            progress=True,
        )
        typer.echo(table(evaluation))
        say_what_is_left_out(evaluation)
    if summary.failed:
        raise typer.Exit(1)


def say_how_it_ended(job: DatasetJob, summary: RunSummary) -> None:
    """What was done, and every sequence that was not."""
    done = [record for record in summary.records if record.status == "done"]
    typer.echo(
        f"{sum(r.frames for r in done)} frames of {len(done)} sequences in {job.out}"
        f" ({summary.num_skipped} done before)"
    )
    left_out = [f"{r.name}/{i}" for r in done for i in r.untracked or ()]
    if left_out:
        more = f" and {len(left_out) - MAX_NAMES} more" if len(left_out) > MAX_NAMES else ""
        names = ", ".join(left_out[:MAX_NAMES]) + more
        typer.echo(f"sam2-hq: appear later and were not tracked: {names}", err=True)
    for record in summary.failed:
        typer.echo(f"sam2-hq: '{record.name}' failed: {record.error}", err=True)
    if summary.failed:
        path = job.out / "manifest.jsonl"
        typer.echo(f"sam2-hq: {len(summary.failed)} failed; tracebacks are in {path}", err=True)


def _engine(name: str, workers: int | None, address: str) -> Engine:
    if name not in ENGINES:
        raise ValueError(f"--engine must be one of {', '.join(ENGINES)}, got {name!r}")
    return LocalEngine(workers) if name == "local" else RayEngine(address, workers)
