"""`manifest.jsonl`: one line a sequence, added when it is done and on the disk before it is.

A line that a killed run left unfinished is forgotten by the next one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal  # Any: JSON values

from sam2_hq.data.atomic import whole_file


@dataclass(frozen=True)
class Record:
    """What became of one sequence.

    worker: which one had it: host, process and device.
    attempts: workers that tried; more than one if some were lost.
    frames, objects: how many were tracked.
    untracked: ids of objects that appear later and were not asked for.
    seconds: reading, tracking and writing.
    peak_rss_bytes: most memory of the worker's process meanwhile, None where that is not known.
    peak_cuda_bytes: most GPU memory meanwhile, None without CUDA.
    error, traceback: of a failure, on one line and in full.
    scores: means as of `Means.to_json`, with those of each object, where it was scored.
    """

    name: str
    status: Literal["done", "failed"]
    worker: str
    attempts: int = 1
    frames: int = 0
    objects: int = 0
    untracked: list[int] | None = None
    seconds: float = 0.0
    peak_rss_bytes: int | None = None
    peak_cuda_bytes: int | None = None
    error: str | None = None
    traceback: str | None = None
    scores: dict[str, Any] | None = None

    @classmethod
    def failure(cls, name: str, worker: str, error: str, traceback: str | None = None) -> Record:
        """A sequence without a result."""
        return cls(name, "failed", worker, error=" ".join(error.split()), traceback=traceback)

    @property
    def frames_per_second(self) -> float:
        """Tracked frames a second, all objects together; 0 without any."""
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def peak_memory_bytes(self) -> int | None:
        """Of the device that the model was on."""
        return self.peak_rss_bytes if self.peak_cuda_bytes is None else self.peak_cuda_bytes

    def after(self, attempts: int) -> Record:
        """The same after so many attempts."""
        return replace(self, attempts=attempts)

    def to_json(self) -> dict[str, Any]:
        """As in the manifest; what is not known is left out."""
        known = {key: value for key, value in asdict(self).items() if value is not None}
        if self.status == "done":
            known["frames_per_second"] = round(self.frames_per_second, 3)
        return known

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Record:
        """The reverse of `to_json`.

        Raises:
            TypeError: if a field is missing or unknown.
        """
        return cls(**{key: value for key, value in tree.items() if key != "frames_per_second"})


class Manifest:
    """The file; the last line about a sequence holds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Record]:
        """Records by name.

        Raises:
            ValueError: if a whole line is no record.
        """
        records = {}
        for number, line in enumerate(self._whole_lines(), start=1):
            try:
                record = Record.from_json(json.loads(line))
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"'{self.path}' line {number} is no record: {error}") from error
            records[record.name] = record
        return records

    def add(self, record: Record) -> None:
        """Append a line; it is on the disk when this returns."""
        line = json.dumps(record.to_json(), ensure_ascii=False) + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def forget_unfinished_line(self) -> None:
        """Cut off what a killed run left behind the last line."""
        if self.path.is_file():
            whole = sum(len(line) for line in self._whole_lines())
            with self.path.open("r+b") as file:
                file.truncate(whole)

    def rewrite(self, records: Iterable[Record]) -> None:
        """Put these, one line each, in the place of all lines."""
        lines = [json.dumps(record.to_json(), ensure_ascii=False) for record in records]
        with whole_file(self.path) as partial:
            partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def _whole_lines(self) -> list[bytes]:
        if not self.path.is_file():
            return []
        lines = self.path.read_bytes().splitlines(keepends=True)
        return [line for line in lines if line.endswith(b"\n")]
