"""Scores as text: a table for people, CSV for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from sam2_hq.evaluation.evaluate import Evaluation, Means

COLUMNS = ("J&F", "J", "F", "J_recall", "J_decay", "F_recall", "F_decay")


def table(evaluation: Evaluation) -> str:
    """One line an object and the global scores at the end, in percent with one digit."""
    lines = list(_rows(evaluation))
    width = max(len(name) for name, _, _ in lines)
    head = f"{'sequence':{width}}  {'id':>3}  " + "  ".join(f"{c:>8}" for c in COLUMNS)
    body = [
        f"{name:{width}}  {object_id:>3}  "
        + "  ".join(f"{100 * means.to_json()[c]:8.1f}" for c in COLUMNS)
        for name, object_id, means in lines
    ]
    return "\n".join([head, *body])


def to_csv(evaluation: Evaluation) -> str:
    """The same lines with all digits, values from 0 to 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sequence", "object", *COLUMNS])
    for name, object_id, means in _rows(evaluation):
        values = means.to_json()
        writer.writerow([name, object_id, *(repr(values[c]) for c in COLUMNS)])
    return text.getvalue()


def _rows(evaluation: Evaluation) -> Iterator[tuple[str, str, Means]]:
    for name, object_id, means in evaluation.objects():
        yield name, str(object_id), means
    if evaluation.conventions.mean_over == "categories":
        for group, means in evaluation.category_means().items():
            yield f"{group} categories", "", means
    yield "global", "", evaluation.overall()
