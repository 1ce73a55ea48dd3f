"""Plots of a report, as SVG text: scores over time, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from sam2_hq.data.frames import natural_key
from sam2_hq.evaluation.intervals import Interval
from sam2_hq.evaluation.report_page import SERIES

MAX_POINTS = 160
"""Of one line; longer ones show the lowest score of each stretch, so that no failure is hidden."""

WIDTH, HEIGHT = 320, 128
LEFT, RIGHT, TOP, BOTTOM = 28, 6, 8, 18


def color_of(object_id: int) -> str:
    """The colour of an object, `#rrggbb`."""
    return SERIES[(object_id - 1) % len(SERIES)]


class Curve(NamedTuple):
    """Values on frames that are known by name."""

    color: str
    frames: Sequence[str]
    values: Sequence[float]


def scores_over_time(curves: Sequence[Curve]) -> str:
    """Lines over the frames of all of them, values from 0 to 1."""
    names = sorted({name for curve in curves for name in curve.frames}, key=natural_key)
    place = {name: index / max(len(names) - 1, 1) for index, name in enumerate(names)}
    rules = [_rule(share, f"{100 * share:.0f}") for share in (0.0, 0.5, 1.0)]
    lines = [
        _line(curve.color, [(place[n], v) for n, v in zip(curve.frames, curve.values, strict=True)])
        for curve in curves
    ]
    ends = (
        f'<text x="{LEFT}" y="{HEIGHT - 4}">{escape(names[0])}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(names[-1])}</text>'
    )
    label = f"score over {len(names)} frames"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(rules)}{''.join(lines)}{ends}</svg>"
    )


def lowest_of_stretches(
    points: Sequence[tuple[float, float]], max_points: int = MAX_POINTS
) -> list[tuple[float, float]]:
    """At most `max_points` of them: cut into stretches of one length, the lowest of each."""
    stretch = -(-len(points) // max_points)
    parts = (points[start : start + stretch] for start in range(0, len(points), stretch or 1))
    return [min(part, key=lambda point: point[1]) for part in parts]


def interval_plot(interval: Interval, reach: float) -> str:
    """A dot with its interval on a line from -`reach` to `reach`, zero in the middle."""
    width, middle = 160, 80
    scale = (middle - 6) / reach if reach else 0.0
    low, dot, high = (middle + scale * v for v in (interval.low, interval.mean, interval.high))
    return (
        f'<svg viewBox="0 0 {width} 18" style="width:{width}px" role="img" '
        'aria-label="difference and its interval">'
        f'<line class="zero" x1="{middle}" x2="{middle}" y1="1" y2="17"/>'
        f'<line class="mark" x1="{low:.1f}" x2="{high:.1f}" y1="9" y2="9" stroke-width="2"/>'
        f'<circle class="mark" cx="{dot:.1f}" cy="9" r="4"/></svg>'
    )


def _rule(share: float, label: str) -> str:
    y = _y(share)
    return (
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>'
    )


def _line(color: str, points: Sequence[tuple[float, float]]) -> str:
    drawn = [(_x(share), _y(value)) for share, value in lowest_of_stretches(points)]
    if len(drawn) == 1:
        return f'<circle cx="{drawn[0][0]:.1f}" cy="{drawn[0][1]:.1f}" r="3" fill="{color}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
    return f'<polyline class="series" stroke="{color}" points="{path}"/>'


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(value: float) -> float:
    return TOP + (1 - value) * (HEIGHT - TOP - BOTTOM)
