"""What was measured, as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any  # Any: JSON values

from sam2_hq.benchmark.clock import Timing
from sam2_hq.benchmark.plan import Speed


def facts(entries: Mapping[str, Any]) -> str:
    """One line an entry that says something."""
    width = max(map(len, entries))
    told = {name: value for name, value in entries.items() if value not in (None, [])}
    return "\n".join(f"{name:{width}}  {value}" for name, value in told.items())


def table(path: str, speeds: Sequence[Speed], reading: Timing | None = None) -> str:
    """One line a stage and number of objects; times in milliseconds.

    Args:
        path: "video" or "image".
        speeds: by number of objects.
        reading: of a frame of the video.
    """
    lines = [
        f"{path + ', objects':>14}  {'stage':16}{'median ms':>11}{'quartiles ms':>20}"
        f"{'a second':>10}{'times':>7}"
    ]
    if reading is not None:
        lines.append(_line("", "read", reading))
    for speed in speeds:
        lines += [_line(str(speed.objects), *stage) for stage in speed.stages.items()]
        lines += _video_lines(speed)
        memory = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in speed.memory.items())
        lines.append(f"{speed.objects:>14}  peak: {memory or 'unknown'}")
    return "\n".join(lines)


def _line(objects: str, stage: str, timing: Timing) -> str:
    low, middle, high = (
        1000 * s for s in (timing.first_quartile, timing.median, timing.third_quartile)
    )
    quartiles = f"{low:.2f} .. {high:.2f}"
    return (
        f"{objects:>14}  {stage:16}{middle:11.2f}{quartiles:>20}"
        f"{timing.per_second:10.2f}{timing.count:7}"
    )


def _video_lines(speed: Speed) -> Iterator[str]:
    if speed.pass_seconds:
        yield (
            f"{speed.objects:>14}  whole passes, as published: "
            f"{speed.published_fps:.2f} frames a second"
        )
    if speed.verbs:
        shares = ", ".join(f"{verb} {1000 * s:.2f}" for verb, s in speed.verbs.items())
        yield f"{speed.objects:>14}  of a frame, ms: {shares}"
