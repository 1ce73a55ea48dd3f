"""Two results on the same data side by side, with intervals of what differs.

Sequences are independent, objects and frames of one are not: what is drawn for an interval is whole
sequences, for both sides at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple  # Any: JSON values

import numpy as np

from sam2_hq.evaluation.evaluate import Evaluation
from sam2_hq.evaluation.intervals import Interval, bootstrap_interval
from sam2_hq.evaluation.tables import Column

CONFIDENCE = 0.95
FEW_SEQUENCES = 10
"""Below it a bootstrap interval is too short: these sequences cannot stand for all others."""

LEAST_TO_TELL = 6
"""With fewer, all of them on one side is chance more often than once in twenty (2 / 2**5)."""

ObjectValues = dict[tuple[str, int], float]
"""By sequence and object; what belongs to a sequence as a whole is that of object 0."""


class Speed(NamedTuple):
    """What one sequence cost."""

    frames_per_second: float
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Side:
    """One of the two.

    name: as in the tables.
    predictions: folder with a folder a sequence.
    evaluation: with its quality measured.
    speeds: by sequence, where they are known.
    """

    name: str
    predictions: Path
    evaluation: Evaluation
    speeds: Mapping[str, Speed] = field(default_factory=dict)


class Metric(NamedTuple):
    """One line of a comparison; `better` says which way."""

    key: str
    column: Column
    better: Literal["higher", "lower"]


METRICS = (
    Metric("J&F", Column("J&F", "percent"), "higher"),
    Metric("J", Column("J", "percent"), "higher"),
    Metric("F", Column("F", "percent"), "higher"),
    Metric("boundary_iou", Column("Boundary IoU", "percent"), "higher"),
    Metric("flicker", Column("Flicker", "percent"), "lower"),
    Metric("identity_switches", Column("Id switches a sequence", "number"), "lower"),
    Metric("frames_per_second", Column("Frames a second", "number"), "higher"),
    Metric("peak_memory_mib", Column("Peak memory, MiB", "number"), "lower"),
)


class Difference(NamedTuple):
    """A metric of both sides, and the interval of B less A over so many sequences."""

    metric: Metric
    a: float
    b: float
    interval: Interval
    num_sequences: int

    @property
    def winner(self) -> Literal["a", "b"] | None:
        """The better side if the interval is on one side of zero; few sequences have none."""
        if self.num_sequences < LEAST_TO_TELL or self.interval.low <= 0 <= self.interval.high:
            return None
        return "b" if (self.interval.mean > 0) == (self.metric.better == "higher") else "a"


@dataclass(frozen=True)
class Comparison:
    """Both sides, all differences, and the values by sequence: metric -> name -> (A, B)."""

    a: Side
    b: Side
    differences: tuple[Difference, ...]
    sequences: Mapping[str, Mapping[str, tuple[float, float]]]

    def to_json(self) -> dict[str, Any]:
        """Shares from 0 to 1, memory in MiB; `winner` is a, b or null."""
        metrics = {
            d.metric.key: {
                "a": d.a,
                "b": d.b,
                "difference": d.interval.mean,
                "low": d.interval.low,
                "high": d.interval.high,
                "winner": d.winner,
            }
            for d in self.differences
        }
        names = sorted({name for values in self.sequences.values() for name in values})
        return {
            "a": self.a.name,
            "b": self.b.name,
            "confidence": CONFIDENCE,
            "metrics": metrics,
            "sequences": {
                name: {key: list(v[name]) for key, v in self.sequences.items() if name in v}
                for name in names
            },
        }


def compare(a: Side, b: Side) -> Comparison:
    """Compare what both sides have: metrics, sequences and objects that one lacks are left out.

    Means are over objects, or over sequences where the conventions say so.

    Raises:
        ValueError: if the sides have no sequence in common, or the same name.
    """
    if a.name == b.name:
        raise ValueError(f"a and b must have different names, both are '{a.name}'")
    differences, sequences = [], {}
    by_sequence = a.evaluation.conventions.mean_over == "sequences"
    first, second = _values(a), _values(b)
    for metric in METRICS:
        left, right = first[metric.key], second[metric.key]
        if pairs := _pairs(left, right):
            sequences[metric.key] = {name: _mean_pair(both) for name, both in pairs.items()}
            weights = [1 if by_sequence else len(both) for both in pairs.values()]
            differences.append(_difference(metric, sequences[metric.key], weights))
    if "J&F" not in sequences:
        raise ValueError(f"'{a.name}' and '{b.name}' have no object in common")
    return Comparison(a, b, tuple(differences), sequences)


def caution(comparison: Comparison) -> str:
    """What to say beside intervals of few sequences; nothing if there are enough."""
    count = len(comparison.sequences["J&F"])
    if count >= FEW_SEQUENCES:
        return ""
    if count < LEAST_TO_TELL:
        return f"Few sequences ({count}): it takes {LEAST_TO_TELL} to tell two sides apart."
    return f"Few sequences ({count}): the intervals are too short."


def table(comparison: Comparison) -> str:
    """One line a metric, for a terminal."""
    names = {"a": comparison.a.name, "b": comparison.b.name}
    head = ["", *names.values(), "difference", f"{CONFIDENCE:.0%} interval", "better"]
    lines = [head]
    for d in comparison.differences:
        show, change = d.metric.column.show, change_column(d.metric).show
        interval = f"{change(d.interval.low)} to {change(d.interval.high)}"
        winner = names[d.winner] if d.winner else "not told apart"
        lines.append(
            [d.metric.column.title, show(d.a), show(d.b), change(d.interval.mean), interval, winner]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(w) for cell, w in zip(line[1:-1], widths[1:-1], strict=True)]
            + [line[-1]]
        )
        for line in lines
    ]
    return "\n".join([*rows, *filter(None, [caution(comparison)])])


def change_column(metric: Metric) -> Column:
    """How the difference of a metric is shown."""
    is_share = metric.column.kind == "percent"
    return Column(metric.column.title, "points" if is_share else "change")


def _values(side: Side) -> dict[str, ObjectValues]:
    values: dict[str, ObjectValues] = {metric.key: {} for metric in METRICS}
    for name, object_id, means in side.evaluation.objects():
        found = {**means.to_json(), **side.evaluation.object_quality(name, object_id)}
        for key in ("J&F", "J", "F", "boundary_iou", "flicker"):
            value = found.get(key)
            if value is not None:
                values[key][name, object_id] = value
    for name, quality in side.evaluation.quality.items():
        values["identity_switches"][name, 0] = quality.identity_switches
    for name, speed in side.speeds.items():
        values["frames_per_second"][name, 0] = speed.frames_per_second
        if speed.peak_memory_bytes is not None:
            values["peak_memory_mib"][name, 0] = speed.peak_memory_bytes / 2**20
    return values


def _pairs(a: ObjectValues, b: ObjectValues) -> dict[str, list[tuple[float, float]]]:
    """By sequence, the values of objects that both have."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for (name, object_id), value in a.items():
        if (name, object_id) in b:
            pairs.setdefault(name, []).append((value, b[name, object_id]))
    return pairs


def _mean_pair(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    first, second = np.mean(pairs, axis=0).tolist()
    return first, second


def _difference(
    metric: Metric, by_sequence: Mapping[str, tuple[float, float]], weights: list[int]
) -> Difference:
    values = np.array(list(by_sequence.values()))
    a, b = np.average(values, axis=0, weights=weights).tolist()
    interval = bootstrap_interval(
        values[:, 1] - values[:, 0], weights=weights, confidence=CONFIDENCE
    )
    return Difference(metric, a, b, interval, len(values))
