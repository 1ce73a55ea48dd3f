"""What a run writes down: one JSON object a line, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path


class Journal:
    """Collects numbers of steps and writes their means."""

    def __init__(self, folder: Path, stage: str) -> None:
        self.path = folder / f"{stage}.jsonl"
        self._sums: dict[str, list[float]] = {}
        self._writer = _tensorboard(folder / "tensorboard" / stage)

    def add(self, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a step."""
        for name, value in numbers.items():
            self._sums.setdefault(name, []).append(value)

    def write(self, step: int, extra: Mapping[str, float]) -> None:
        """Write the means since the last time, with some numbers as they are."""
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        self._sums.clear()
        self.note(step, {**means, **extra})

    def note(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write numbers as they are."""
        known = {name: v if math.isfinite(v) else None for name, v in numbers.items()}
        line = {"step": step, "time": round(time.time(), 1)} | {
            name: value if value is None else round(value, 6) for name, value in known.items()
        }
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)


def _tensorboard(folder: Path):  # type: ignore[no-untyped-def]
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an extra of the user's choice
        return None
    return SummaryWriter(str(folder))
