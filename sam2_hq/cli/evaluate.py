"""`sam2-hq evaluate`: predicted masks against the truth, as the benchmarks count."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any  # Any: a YAML value

import typer
import yaml

from sam2_hq.cli.files import check_all_free, write_text
from sam2_hq.data.atomic import write_json
from sam2_hq.evaluation.conventions import Conventions, replace_fields
from sam2_hq.evaluation.datasets import Dataset, find_sequences, load_dataset
from sam2_hq.evaluation.evaluate import Evaluation, Seen, seen_objects
from sam2_hq.evaluation.evaluate import evaluate as score_all
from sam2_hq.evaluation.quality import measure_quality
from sam2_hq.evaluation.report import write_report
from sam2_hq.evaluation.tables import table, to_csv


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(help="A folder with a folder of masks for each sequence.")
    ],
    gt: Annotated[Path, typer.Option("--gt", help="The folder of the true masks, laid out alike.")],
    protocol: Annotated[
        str,
        typer.Option(
            help="davis2016, davis2017, sav, mose, youtube-vos, lvos, or a YAML file like those in "
            "configs/eval."
        ),
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all scores here, from 0 to 1.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write one line an object here.")
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option(
            "--html",
            help="Write a report here: one file with tables, plots and the worst frames. "
            "Measures --quality, too.",
        ),
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(help="For --html: the folder of the pictures, a folder a sequence."),
    ] = None,
    quality: Annotated[
        bool,
        typer.Option("--quality", help="Also measure boundary IoU, flicker and identity switches."),
    ] = False,
    per_frame: Annotated[
        bool, typer.Option("--per-frame", help="Put the values of every frame into the JSON.")
    ] = False,
    sequence_list: Annotated[
        Path | None,
        typer.Option(
            help="Score these sequences alone: a text file, one name a line, such as "
            "ImageSets/2017/val.txt of DAVIS. Default: all of --gt."
        ),
    ] = None,
    convention: Annotated[
        list[str] | None,
        typer.Option(help="Change one convention, such as missing_frames=zero. Repeatable."),
    ] = None,
    strict_official: Annotated[
        bool,
        typer.Option("--strict-official", help="Count as the official tool, its mistakes too."),
    ] = False,
    meta: Annotated[
        Path | None,
        typer.Option(help="youtube-vos: meta.json of the scored set. Default: beside --gt."),
    ] = None,
    training_meta: Annotated[
        Path | None,
        typer.Option(help="youtube-vos: meta.json of the training set, whose categories are seen."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one a CPU core.", min=0)] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier run wrote.")
    ] = False,
) -> None:
    """Score predicted masks: J, F, recall and decay of every object, sequence and the whole set."""
    check_all_free({"--json": json_file, "--csv": csv_file, "--html": html_file}, overwrite)
    if frames is not None and not frames.is_dir():
        raise ValueError(f"--frames: there is no folder '{frames}'")
    dataset = load_dataset(protocol)
    conventions = _conventions(dataset, convention or [], strict_official)
    sequences = find_sequences(gt, conventions, frames=frames, sequence_list=sequence_list)
    workers = min(workers or os.cpu_count() or 1, len(sequences))
    evaluation = score_all(
        sequences,
        predictions,
        conventions,
        workers=workers,
        seen=seen_in_training(dataset, conventions, gt, meta, training_meta),
        progress=True,
    )
    if quality or html_file is not None:
        measured = measure_quality(
            sequences, predictions, evaluation.sequences, workers=workers, progress=True
        )
        evaluation = replace(evaluation, quality=measured)
    typer.echo(table(evaluation))
    say_what_is_left_out(evaluation)
    if html_file is not None:  # first: a picture of it may be damaged, and then nothing is written
        title = f"{predictions.resolve().name}, scored as {Path(protocol).stem}"
        write_report(html_file, evaluation, sequences, predictions, title=title)
    if json_file is not None:
        report = {"protocol": protocol, **evaluation.to_json(per_frame=per_frame)}
        write_json(json_file, report)
    if csv_file is not None:
        write_text(csv_file, to_csv(evaluation))


def _conventions(dataset: Dataset, changes: list[str], strict_official: bool) -> Conventions:
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"--convention must be NAME=VALUE, got {change!r}")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"--convention must be NAME=VALUE, got {change!r}") from error
    changed = replace_fields(dataset.conventions, values)
    return replace(changed, strict_official=True) if strict_official else changed


def seen_in_training(
    dataset: Dataset,
    conventions: Conventions,
    gt: Path,
    meta: Path | None,
    training_meta: Path | None,
) -> Seen | None:
    """Which objects have a category of the training set; None where categories do not count."""
    if conventions.mean_over != "categories":
        return None
    if training_meta is None:
        raise ValueError(
            "--training-meta is needed: the meta.json of the training set says which categories "
            "are seen (`sam2-hq evaluate --convention mean_over=objects` goes without)"
        )
    return seen_objects(meta or gt.parent / (dataset.categories or "meta.json"), training_meta)


def say_what_is_left_out(evaluation: Evaluation) -> None:
    """Name on stderr what the means are without."""
    if evaluation.missing:
        names = ", ".join(evaluation.missing)
        typer.echo(f"sam2-hq: no prediction, left out of the mean: {names}", err=True)
    if evaluation.unscored:
        names = ", ".join(evaluation.unscored)
        typer.echo(f"sam2-hq: on no frame that counts: {names}", err=True)
