"""`sam2-hq compare`: two models, HQ modes or folders of masks on the same data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from sam2_hq.batch.folders import RunFolder
from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.local import LocalEngine
from sam2_hq.batch.runner import run_dataset
from sam2_hq.build_sam import checkpoint_names
from sam2_hq.checkpoint import checkpoints_in
from sam2_hq.cli.evaluate import say_what_is_left_out
from sam2_hq.cli.files import check_all_free
from sam2_hq.cli.options import Device, DType
from sam2_hq.data.atomic import write_json
from sam2_hq.evaluation.comparison import Side, Speed, table
from sam2_hq.evaluation.comparison import compare as compare_sides
from sam2_hq.evaluation.comparison_report import write_comparison_report
from sam2_hq.evaluation.datasets import Dataset, VideoSequence, load_dataset, open_dataset
from sam2_hq.evaluation.evaluate import evaluate
from sam2_hq.evaluation.quality import measure_quality
from sam2_hq.model_spec import ModelSpec
from sam2_hq.structures import HQ_MODES
from sam2_hq.wording import did_you_mean

OWN_MODEL = "nano"

_SIDE_HELP = (
    "A folder with a folder of masks for each sequence; or a model: nano (that of the package), a "
    "checkpoint file, a published name or a Hugging Face id, with @off, @correct, @only or @auto "
    "behind it for an HQ mode."
)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_SIDE_HELP, show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Likewise.", show_default=False)],
    dataset: Annotated[
        Path, typer.Option(help="The folder of a data set: annotations and frames.")
    ],
    protocol: Annotated[
        str,
        typer.Option(
            help="Where things are and what counts: davis2016, davis2017, sav, mose, youtube-vos, "
            "lvos, or a YAML file like those in configs/eval.",
            show_default=False,
        ),
    ],
    sequence_list: Annotated[
        Path | None,
        typer.Option(help="These sequences alone: a text file, one name a line."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Keep the masks of models here, a folder each; an interrupted comparison goes on "
            "from them. Default: they are thrown away.",
            show_default=False,
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all numbers here, from 0 to 1.")
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option(
            "--html", help="Write a report here: one file with tables, plots and pictures."
        ),
    ] = None,
    device: Device = None,
    dtype: DType = "float32",
    workers: Annotated[
        int,
        typer.Option(
            help="Processes that track, each with a model; 0 for none but this one. Several share "
            "the machine, so frames a second are then those of one of them.",
            min=0,
        ),
    ] = 0,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace --json and --html; masks in --out stay."),
    ] = False,
) -> None:
    """Put two results side by side: scores, calm, speed, and which differences are sure."""
    check_all_free({"--json": json_file, "--html": html_file}, overwrite)
    data = _averaged_over_objects(load_dataset(protocol))
    if not dataset.is_dir():
        raise ValueError(f"--dataset: there is no folder '{dataset}'")
    sequences = open_dataset(dataset, data, sequence_list=sequence_list)
    contenders = [
        _contender(text, name, sequences, device, dtype)
        for text, name in zip((a, b), _short_names(a, b), strict=True)
    ]
    names = tuple(sequence.name for sequence in sequences)
    with _folder_for_masks(out) as folder:
        for contender in contenders:
            if contender.model is not None:
                job = DatasetJob(
                    dataset, folder / contender.folder, data, contender.model, names=names
                )
                _track(job, contender.name, workers)
        sides = [_score(c.name, folder / c.folder, sequences, data) for c in contenders]
        for side in sides:
            say_what_is_left_out(side.evaluation)
        comparison = compare_sides(*sides)
        typer.echo(table(comparison))
        if html_file is not None:  # first: a picture of it may be damaged
            has_frames = (dataset / data.frames).is_dir()
            shown = sequences if has_frames else [replace(s, frames=None) for s in sequences]
            write_comparison_report(html_file, comparison, shown)
        if json_file is not None:
            write_json(json_file, {"protocol": protocol, **comparison.to_json()})


@dataclass(frozen=True)
class _Contender:
    """What stands on one side: a folder of masks, or the model that will fill it."""

    name: str
    folder: Path
    model: ModelSpec | None = None


def _short_names(a: str, b: str) -> tuple[str, str]:
    """Without the folders that they are in, if that tells them apart."""
    if a == b:
        raise ValueError(f"A and B must have different names, both are '{a}'")
    first, second = Path(a).name, Path(b).name
    return (first, second) if first and second and first != second else (a, b)


def _contender(
    text: str, name: str, sequences: Sequence[VideoSequence], device: str | None, dtype: str
) -> _Contender:
    folder = Path(text).resolve()
    if any((folder / sequence.name).is_dir() for sequence in sequences):
        return _Contender(name, folder)
    checkpoint, at, mode = text.rpartition("@")
    if not at or Path(text).exists():
        checkpoint, mode = text, ""
    known = [OWN_MODEL, *checkpoint_names()]
    if not _holds_weights(Path(checkpoint)) and checkpoint.removesuffix(".pt") not in known:
        raise ValueError(
            f"'{text}' is no folder with masks of '{sequences[0].name}', no checkpoint file and no "
            f"name of a checkpoint{did_you_mean(checkpoint, known)}"
        )
    if at and mode and mode not in HQ_MODES:
        raise ValueError(f"'{text}': the HQ mode must be one of {', '.join(HQ_MODES)}")
    model = ModelSpec(
        None if checkpoint == OWN_MODEL else checkpoint,
        device=device,
        dtype=dtype,
        hq_mode=mode or None,
    )
    own = re.sub(r"[^\w.@+-]+", "_", os.path.normpath(text))
    if own.startswith("."):
        own = f"_{own}"  # hidden otherwise, as of ../x@off
    return _Contender(name, Path(own), model)


def _holds_weights(path: Path) -> bool:
    if path.is_dir():
        return bool(checkpoints_in(path))
    return path.is_file()


def _averaged_over_objects(dataset: Dataset) -> Dataset:
    """Whether categories are seen decides a ranking, not which of two is better."""
    if dataset.conventions.mean_over != "categories":
        return dataset
    return replace(dataset, conventions=replace(dataset.conventions, mean_over="objects"))


@contextmanager
def _folder_for_masks(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    with TemporaryDirectory(prefix="sam2-hq-") as folder:
        yield Path(folder)


def _track(job: DatasetJob, name: str, workers: int) -> None:
    typer.echo(f"tracking with {name}", err=True)
    summary = run_dataset(job, engine=LocalEngine(workers), progress=True)
    if summary.failed:
        first = summary.failed[0]
        raise ValueError(f"{name} failed on sequence '{first.name}': {first.error}")


def _score(name: str, folder: Path, sequences: Sequence[VideoSequence], dataset: Dataset) -> Side:
    workers = min(os.cpu_count() or 1, len(sequences))
    evaluation = evaluate(sequences, folder, dataset.conventions, workers=workers, progress=True)
    quality = measure_quality(sequences, folder, evaluation.sequences, workers=workers)
    return Side(name, folder, replace(evaluation, quality=quality), _speeds(folder, sequences))


def _speeds(folder: Path, sequences: Sequence[VideoSequence]) -> dict[str, Speed]:
    """What the run that wrote the masks took; nothing if it left no manifest."""
    records = RunFolder(folder).manifest.read()
    done = [records[s.name] for s in sequences if s.name in records]
    return {
        record.name: Speed(record.frames_per_second, record.peak_memory_bytes)
        for record in done
        if record.status == "done"
    }
