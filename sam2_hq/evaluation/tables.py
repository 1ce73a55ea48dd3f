"""Scores as text: a table for people, CSV for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sam2_hq.evaluation.evaluate import Evaluation

COLUMNS = ("J&F", "J", "F", "J_recall", "J_decay", "F_recall", "F_decay")
QUALITY_COLUMNS = ("boundary_iou", "flicker")

Value = str | float | None
Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Column:
    """One column of a table, or one number of a row of tiles.

    kind: how numbers are shown: a share as percent, with a bar behind it for "bar"; a difference of
        shares in points with its sign; a whole count; a number with one digit, and its change.
    tip: said when the pointer rests on the title.
    """

    title: str
    kind: Literal["text", "percent", "bar", "points", "count", "number", "change"] = "percent"
    tip: str = ""

    def show(self, value: Value) -> str:
        """The value as plain text; a dash if there is none."""
        if value is None:
            return "–"
        if isinstance(value, str):
            return value
        if self.kind == "points":
            return f"{100 * value:+.1f}".replace("-", "−")
        if self.kind == "count":
            return f"{value:,.0f}"
        if self.kind in ("number", "change"):
            sign = "+" if self.kind == "change" else ""
            return f"{value:{sign},.1f}".replace("-", "−")
        return f"{100 * value:.1f}".replace("-", "−")


def table(evaluation: Evaluation) -> str:
    """One line an object and the global scores at the end, in percent with one digit."""
    lines = list(_rows(evaluation))
    columns = _columns(evaluation)
    width = max(len(name) for name, _, _ in lines)
    head = f"{'sequence':{width}}  {'id':>3}" + "".join(f"  {c:>8}" for c in columns)
    body = [
        f"{name:{width}}  {object_id:>3}"
        + "".join(f"  {_percent(values.get(c)):>{max(8, len(c))}}" for c in columns)
        for name, object_id, values in lines
    ]
    if evaluation.quality:
        body.append(f"identity switches: {evaluation.overall_quality()['identity_switches']}")
    return "\n".join([head, *body])


def to_csv(evaluation: Evaluation) -> str:
    """The same lines with all digits, values from 0 to 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = _columns(evaluation)
    writer.writerow(["sequence", "object", *columns])
    for name, object_id, values in _rows(evaluation):
        cells = (values.get(c) for c in columns)
        writer.writerow([name, object_id, *("" if v is None else repr(v) for v in cells)])
    return text.getvalue()


def _columns(evaluation: Evaluation) -> tuple[str, ...]:
    return COLUMNS + QUALITY_COLUMNS if evaluation.quality else COLUMNS


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _rows(evaluation: Evaluation) -> Iterator[tuple[str, str, Values]]:
    for name, object_id, means in evaluation.objects():
        quality = evaluation.object_quality(name, object_id)
        yield name, str(object_id), {**means.to_json(), **quality}
    if evaluation.conventions.mean_over == "categories":
        for group, means in evaluation.category_means().items():
            yield f"{group} categories", "", means.to_json()
    yield "global", "", {**evaluation.overall().to_json(), **evaluation.overall_quality()}
