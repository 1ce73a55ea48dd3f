"""Run a job: a queue of sequences, whatever engine works on it, and a folder that says what is done.

OUT/<sequence>/...     masks; the folder appears whole
OUT/manifest.jsonl     a line a sequence: time, memory, scores, or why it failed
OUT/settings.json      what decided the masks; another run may not mix its own in
"""

from __future__ import annotations

from dataclasses import dataclass

from sam2_hq.batch.engines import Engine
from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.manifest import Record


@dataclass(frozen=True)
class RunSummary:
    """How a run ended: a record for every sequence of the job, in their order."""

    records: tuple[Record, ...]
    num_skipped: int

    @property
    def failed(self) -> list[Record]:
        """Those without a result."""
        return [record for record in self.records if record.status == "failed"]


def run_dataset(
    job: DatasetJob, *, engine: Engine | None = None, overwrite: bool = False, progress: bool = True
) -> RunSummary:
    """Track what is not done yet."""
    raise NotImplementedError
