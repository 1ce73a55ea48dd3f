"""The report of an evaluation: one HTML file with tables, scores over time and the worst frames."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from sam2_hq.data.atomic import whole_file
from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.evaluation.evaluate import Evaluation
from sam2_hq.evaluation.report_page import (
    data_table,
    facts,
    figure,
    legend,
    note,
    page,
    section,
    tiles,
)
from sam2_hq.evaluation.report_pictures import Sight, panels, worst_frames
from sam2_hq.evaluation.report_plots import Curve, color_of, scores_over_time
from sam2_hq.evaluation.tables import Column, Value

MAX_PICTURES = 24

SCORES = {
    "J&F": Column("J&F", "bar", "Mean of J and F, the number that benchmarks rank by."),
    "J": Column("J", "percent", "Region similarity: intersection over union."),
    "F": Column("F", "percent", "Contour accuracy: harmonic mean of precision and recall."),
    "J_recall": Column("J recall", "percent", "Share of frames with J above 0.5."),
    "F_recall": Column("F recall", "percent", "Share of frames with F above 0.5."),
    "J_decay": Column("J decay", "percent", "J of the first quarter less J of the last."),
    "F_decay": Column("F decay", "percent", "F of the first quarter less F of the last."),
}
QUALITY = {
    "boundary_iou": Column("Boundary IoU", "percent", "IoU of the bands along the outlines."),
    "flicker": Column("Flicker", "percent", "Area that changes and changes back at once."),
    "identity_switches": Column("Id switches", "count", "Objects that took another one's place."),
}


def write_report(
    path: str | os.PathLike[str],
    evaluation: Evaluation,
    sequences: Sequence[VideoSequence],
    predictions: str | os.PathLike[str],
    *,
    title: str = "Evaluation",
    max_pictures: int = MAX_PICTURES,
) -> None:
    """Write a report that needs no other file and no network. It appears whole or not at all.

    Args:
        path: the HTML file.
        evaluation: all scores; what `measure_quality` found is shown if it is there.
        sequences: the truth; where they know their frames, pictures show these below the masks.
        predictions: folder with a folder a sequence.
        title: of the page, such as the name of the protocol or the model.
        max_pictures: worst frames shown at most, each about 100 kB.

    Raises:
        ValueError: if a picture or mask to show is missing or damaged.
        OSError: if the file cannot be written.
    """
    lead = (
        f"Sequences: {len(evaluation.sequences)}, objects: "
        f"{sum(len(objects) for objects in evaluation.sequences.values())}. Scores are percent."
    )
    parts = [
        tiles(_overall(evaluation)),
        _tables(evaluation),
        _curves(evaluation),
        _pictures(evaluation, sequences, Path(predictions), max_pictures),
        section(
            "How it was counted",
            "The conventions that decide the numbers, and what computed them.",
            facts(_left_out(evaluation) | convention_facts(evaluation.conventions) | environment()),
        ),
    ]
    with whole_file(path) as partial:
        partial.write_text(page(title, lead, parts), encoding="utf-8")


def convention_facts(conventions: Conventions) -> dict[str, str]:
    """What counts, in words for a page."""
    values = {name.replace("_", " "): value for name, value in asdict(conventions).items()}
    return {
        name: {True: "yes", False: "no", None: "none"}.get(value, str(value).replace("_", " "))
        for name, value in values.items()
    }


def environment() -> dict[str, str]:
    """What computed the numbers. No time, so that the same masks give the same report."""
    try:
        own = version("sam2-hq")
    except PackageNotFoundError:
        own = "not installed"
    return {
        "sam2-hq": own,
        "Python": f"{platform.python_version()}, NumPy {np.__version__}",
        "System": platform.platform(terse=True),
    }


def _overall(evaluation: Evaluation) -> dict[Column, Value]:
    values = {**evaluation.overall().to_json(), **evaluation.overall_quality()}
    return {column: values[key] for key, column in (SCORES | QUALITY).items() if key in values}


def _tables(evaluation: Evaluation) -> str:
    quality = QUALITY if evaluation.quality else {}
    columns = SCORES | quality
    rows: list[list[Value]] = []
    for name, means in evaluation.sequence_means().items():
        values = {**means.to_json(), **evaluation.sequence_quality(name)}
        rows.append([name, len(evaluation.sequences[name]), *(values[key] for key in columns)])
    heads = [Column("Sequence", "text"), Column("Objects", "count"), *columns.values()]
    caption = "Means over the objects of a sequence. A click on a title sorts."
    parts = [section("Sequences", caption, data_table(heads, rows))]
    if any(len(objects) > 1 for objects in evaluation.sequences.values()):
        parts.append(
            _object_table(
                evaluation, {k: c for k, c in columns.items() if k != "identity_switches"}
            )
        )
    return "\n".join(parts)


def _object_table(evaluation: Evaluation, columns: Mapping[str, Column]) -> str:
    rows: list[list[Value]] = []
    for name, object_id, means in evaluation.objects():
        values = {**means.to_json(), **evaluation.object_quality(name, object_id)}
        rows.append([name, object_id, *(values[key] for key in columns)])
    heads = [Column("Sequence", "text"), Column("Object", "count"), *columns.values()]
    return section("Objects", "One line an object.", data_table(heads, rows))


def _curves(evaluation: Evaluation) -> str:
    cards = []
    for name, objects in evaluation.sequences.items():
        curves = [Curve(color_of(i), v.frames, v.j_and_f) for i, v in objects.items()]
        caption = [
            legend(curve.color, f"{i}: {100 * np.mean(curve.values):.1f}")
            for i, curve in zip(objects, curves, strict=True)
        ]
        if curves:
            cards.append(figure(name, "".join(caption), scores_over_time(curves)))
    return section(
        "Scores over time",
        "Mean of J and F on every frame that counts; one colour an object.",
        f'<div class="grid">{"".join(cards)}</div>',
    )


def _pictures(
    evaluation: Evaluation, sequences: Sequence[VideoSequence], predictions: Path, count: int
) -> str:
    by_name = {sequence.name: sequence for sequence in sequences}
    cards = []
    for sight in worst_frames(evaluation.sequences, count):
        sequence = by_name[sight.sequence]
        masks = {"prediction": sequence.prediction_in(predictions), "truth": sequence.truth}
        shown = "".join(panels(sight, sequence.frames, masks))
        caption = note(f"frame {sight.frame}") + _sight_scores(evaluation, sight)
        cards.append(
            figure(sight.sequence, caption, f'<div class="panels">{shown}</div>', is_wide=True)
        )
    if not cards:
        return section("Worst frames", "There is none: every mask is that of the truth.")
    return section(
        "Worst frames",
        "The lowest mean of J and F, cut out around the object; at most three a sequence.",
        *cards,
    )


def _sight_scores(evaluation: Evaluation, sight: Sight) -> str:
    values = evaluation.sequences[sight.sequence][sight.object_id]
    at = values.frames.index(sight.frame)
    return (
        legend(color_of(sight.object_id), f"object {sight.object_id}")
        + note(f"J {100 * values.j[at]:.1f}")
        + note(f"F {100 * values.f[at]:.1f}")
    )


def _left_out(evaluation: Evaluation) -> dict[str, str]:
    told = {
        "without a prediction, left out": ", ".join(evaluation.missing),
        "on no frame that counts": ", ".join(evaluation.unscored),
    }
    return {name: text for name, text in told.items() if text}
