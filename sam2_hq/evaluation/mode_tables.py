"""Scores of several HQ modes of one run, and what each gains over the first."""

from __future__ import annotations

from collections.abc import Mapping

Scores = Mapping[str, float | None]


def side_by_side(title: str, rows: Mapping[str, Scores]) -> str:
    """One line a mode in percent with two digits, then one line a difference.

    Args:
        title: above the names.
        rows: scores from 0 to 1 by name and column, None where there is none; the columns are those
            of the first row.
    """
    first, *others = rows
    lines = {name: [_percent(value) for value in row.values()] for name, row in rows.items()}
    for name in others:
        pairs = zip(rows[name].values(), rows[first].values(), strict=True)
        lines[f"{name} - {first}"] = [_difference(*pair) for pair in pairs]
    width = max(len(title), *map(len, lines))
    columns = list(rows[first])
    text = [_line(title, columns, width, columns)]
    text += [_line(name, cells, width, columns) for name, cells in lines.items()]
    return "\n".join(text)


def _line(name: str, cells: list[str], width: int, columns: list[str]) -> str:
    padded = (f"{cell:>{max(6, len(column))}}" for cell, column in zip(cells, columns, strict=True))
    return f"{name:{width}}  " + "  ".join(padded)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _difference(value: float | None, base: float | None) -> str:
    return "-" if value is None or base is None else f"{100 * (value - base):+.2f}"
