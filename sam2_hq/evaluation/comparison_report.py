"""The report of a comparison: differences with their intervals, sequences, frames that differ."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from sam2_hq.data.atomic import whole_file
from sam2_hq.data.frames import natural_key
from sam2_hq.evaluation.comparison import (
    CONFIDENCE,
    Comparison,
    Difference,
    Side,
    caution,
    change_column,
)
from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.evaluation.report import MAX_PICTURES, convention_facts, environment
from sam2_hq.evaluation.report_page import (
    SERIES,
    Html,
    data_table,
    facts,
    figure,
    legend,
    note,
    page,
    section,
)
from sam2_hq.evaluation.report_pictures import Sight, choose, panels
from sam2_hq.evaluation.report_plots import Curve, color_of, interval_plot, scores_over_time
from sam2_hq.evaluation.tables import Column, Value

COLORS = {"a": SERIES[0], "b": SERIES[1]}


def write_comparison_report(
    path: str | os.PathLike[str],
    comparison: Comparison,
    sequences: Sequence[VideoSequence],
    *,
    max_pictures: int = MAX_PICTURES,
) -> None:
    """Write a report that needs no other file and no network. It appears whole or not at all.

    Args:
        path: the HTML file.
        comparison: what to show.
        sequences: the truth; where they know their frames, pictures show these below the masks.
        max_pictures: frames shown at most, each about 160 kB.

    Raises:
        ValueError: if a picture or mask to show is missing or damaged.
        OSError: if the file cannot be written.
    """
    a, b = comparison.a.name, comparison.b.name
    num_sequences = len(comparison.sequences["J&F"])
    parts = [
        _differences(comparison),
        _sequence_table(comparison),
        _curves(comparison),
        _pictures(comparison, sequences, max_pictures),
        section(
            "How it was counted",
            "The conventions that decide the numbers, and what computed them.",
            facts(convention_facts(comparison.a.evaluation.conventions) | environment()),
        ),
    ]
    with whole_file(path) as partial:
        lead = f"Sequences: {num_sequences}. Scores are percent."
        partial.write_text(page(f"{a} and {b}", lead, parts), encoding="utf-8")


def _differences(comparison: Comparison) -> str:
    a, b = comparison.a.name, comparison.b.name
    heads = [
        Column("Metric", "text"),
        Column(a, "number"),
        Column(b, "number"),
        Column(f"{b} less {a}", "number"),
        Column(f"{CONFIDENCE:.0%} interval", "number"),
        Column("", "text", "Zero is in the middle."),
        Column("Better", "text"),
    ]
    return section(
        "Differences",
        f"Intervals are of paired differences, by drawing whole sequences ({CONFIDENCE:.0%} "
        "bootstrap). Where one holds zero, the data do not tell the two apart. "
        + caution(comparison),
        data_table(heads, [_difference_row(comparison, d) for d in comparison.differences]),
    )


def _difference_row(comparison: Comparison, difference: Difference) -> list[Value]:
    show, change = difference.metric.column.show, change_column(difference.metric).show
    interval = difference.interval
    names = {"a": comparison.a.name, "b": comparison.b.name, None: "not told apart"}
    return [
        difference.metric.column.title,
        show(difference.a),
        show(difference.b),
        change(interval.mean),
        f"{change(interval.low)} to {change(interval.high)}",
        Html(interval_plot(interval, _reach(comparison, difference))),
        names[difference.winner],
    ]


def _reach(comparison: Comparison, difference: Difference) -> float:
    """Shares have one scale, so that their intervals can be compared; every other has its own."""
    is_share = difference.metric.column.kind == "percent"
    alike = [
        d.interval
        for d in comparison.differences
        if d is difference or (is_share and d.metric.column.kind == "percent")
    ]
    return max(abs(end) for interval in alike for end in (interval.low, interval.high))


def _sequence_table(comparison: Comparison) -> str:
    a, b = comparison.a.name, comparison.b.name
    metrics = [d.metric for d in comparison.differences if d.metric.key not in ("J", "F")]
    heads = [Column("Sequence", "text"), Column(f"J&F, {a}", "bar"), Column(f"J&F, {b}", "bar")]
    heads += [change_column(metric) for metric in metrics]
    rows: list[list[Value]] = []
    for name, scores in comparison.sequences["J&F"].items():
        pairs = [comparison.sequences[metric.key].get(name) for metric in metrics]
        rows.append([name, *scores, *(pair and pair[1] - pair[0] for pair in pairs)])
    caption = f"Means over the objects of a sequence, then {b} less {a}. A click on a title sorts."
    return section("Sequences", caption, data_table(heads, rows))


def _curves(comparison: Comparison) -> str:
    cards = []
    sides = {"a": comparison.a, "b": comparison.b}
    for name in comparison.sequences["J&F"]:
        curves = {key: _curve(side, name, COLORS[key]) for key, side in sides.items()}
        caption = "".join(
            legend(curve.color, f"{sides[key].name}: {100 * np.mean(curve.values):.1f}")
            for key, curve in curves.items()
        )
        cards.append(figure(name, caption, scores_over_time(list(curves.values()))))
    return section(
        "Scores over time",
        "Mean of J and F over the objects on every frame that counts.",
        f'<div class="grid">{"".join(cards)}</div>',
    )


def _curve(side: Side, name: str, color: str) -> Curve:
    """Frame by frame the mean over the objects that count there."""
    values: dict[str, list[float]] = {}
    for scores in side.evaluation.sequences[name].values():
        for frame, value in zip(scores.frames, scores.j_and_f, strict=True):
            values.setdefault(frame, []).append(value)
    frames = sorted(values, key=natural_key)
    return Curve(color, frames, [float(np.mean(values[frame])) for frame in frames])


def _pictures(comparison: Comparison, sequences: Sequence[VideoSequence], max_pictures: int) -> str:
    a, b = comparison.a, comparison.b
    by_name = {sequence.name: sequence for sequence in sequences}
    cards = []
    for sight, first, second in _unlike_frames(comparison, max_pictures):
        sequence = by_name[sight.sequence]
        masks = {side.name: sequence.prediction_in(side.predictions) for side in (a, b)}
        shown = "".join(panels(sight, sequence.frames, masks | {"truth": sequence.truth}))
        caption = (
            note(f"frame {sight.frame}")
            + legend(color_of(sight.object_id), f"object {sight.object_id}")
            + note(f"J&F {100 * first:.1f} and {100 * second:.1f}")
        )
        cards.append(
            figure(sight.sequence, caption, f'<div class="panels">{shown}</div>', is_wide=True)
        )
    told = "Where J&F of the two differs most, cut out around the object; at most three a sequence."
    return section("Frames that differ", told if cards else "There is none.", *cards)


def _unlike_frames(comparison: Comparison, count: int) -> list[tuple[Sight, float, float]]:
    a, b = comparison.a.evaluation.sequences, comparison.b.evaluation.sequences
    pairs = {}
    for name in comparison.sequences["J&F"]:
        for i in a[name].keys() & b[name].keys():
            other = dict(zip(b[name][i].frames, b[name][i].j_and_f, strict=True))
            for frame, value in zip(a[name][i].frames, a[name][i].j_and_f, strict=True):
                if value != other.get(frame, value):
                    change = abs(value - other[frame])
                    pairs[Sight(-change, name, i, frame)] = (value, other[frame])
    return [(sight, *pairs[sight]) for sight in choose(list(pairs), a, count)]
