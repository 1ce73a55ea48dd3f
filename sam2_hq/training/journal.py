"""What a run writes down: one JSON object a line, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from sam2_hq.data.atomic import whole_file


class Journal:
    """Collects numbers of steps and writes their means.

    pending: numbers of the steps since the last line, by name; they go into the checkpoint.
    """

    def __init__(self, folder: Path, stage: str, num_done: int = 0) -> None:
        """Open the journal of a stage, and strike out what comes after step `num_done`.

        A killed run may have written lines, the last one torn, about steps that are done again.
        """
        self.path = folder / f"{stage}.jsonl"
        self.pending: dict[str, list[float]] = {}
        if self.path.is_file():
            _cut(self.path, num_done)
        self._writer = _tensorboard(folder / "tensorboard" / stage, num_done)

    def add(self, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a step."""
        for name, value in numbers.items():
            self.pending.setdefault(name, []).append(value)

    def write(self, step: int, extra: Mapping[str, float]) -> None:
        """Write the means since the last time, with some numbers as they are."""
        means = {name: sum(values) / len(values) for name, values in self.pending.items()}
        self.pending.clear()
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

    def show(self, step: int, picture: Path) -> None:
        """Give TensorBoard a picture of predictions."""
        if self._writer is not None:
            with Image.open(picture) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._writer.add_image("predictions", pixels, step, dataformats="HWC")


def _cut(path: Path, num_done: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if (step := _step_of(line)) is not None and step <= num_done]
    if len(kept) < len(lines):
        with whole_file(path) as partial:
            partial.write_text("".join(kept), encoding="utf-8")


def _step_of(line: str) -> int | None:
    """The step of a line, None for a torn one."""
    try:
        return int(json.loads(line)["step"])
    except ValueError:
        return None


def _tensorboard(folder: Path, num_done: int):  # type: ignore[no-untyped-def]
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an extra of the user's choice
        return None
    return SummaryWriter(str(folder), purge_step=num_done + 1 if num_done else None)
