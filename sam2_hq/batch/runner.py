"""Run a job: what is not done goes to an engine, what comes back into the folder of the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from tqdm import tqdm

from sam2_hq.batch.engines import Engine, Outcomes
from sam2_hq.batch.folders import RunFolder
from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.local import LocalEngine
from sam2_hq.batch.manifest import Record
from sam2_hq.evaluation.datasets import VideoSequence


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    records: one for every sequence of the job, in natural order of their names.
    num_skipped: how many of them were done before.
    """

    records: tuple[Record, ...]
    num_skipped: int

    @property
    def failed(self) -> list[Record]:
        """Those without a result."""
        return [record for record in self.records if record.status == "failed"]


def run_dataset(
    job: DatasetJob,
    *,
    engine: Engine | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> RunSummary:
    """Track every sequence that is not done yet; a failing one does not stop the rest.

    Killed at any moment and started again, it goes on: what is done stays, and the masks are those
    of a run that was not interrupted. A sequence that failed is tried again.

    Args:
        job: what to track, with what, and where results go.
        engine: who does it; None tracks in this process.
        overwrite: start again in a folder that holds a run, whatever its settings.
        progress: show a progress bar.

    Raises:
        ValueError, TypeError, OSError: if the data set or the model cannot be had, or the output
            folder holds something else or is in use by another run; then nothing was written.
    """
    sequences = job.sequences()
    names = [sequence.name for sequence in sequences]
    settings, folder = job.settings(), RunFolder(job.out)
    with folder.held():
        records = folder.check(settings, names, overwrite=overwrite)
        waiting = [sequence for sequence in sequences if sequence.name not in records]
        num_skipped = len(names) - len(waiting)
        bar = tqdm(total=len(names), initial=num_skipped, desc="tracking", disable=not progress)
        with bar, _clean(folder, waiting), closing(_outcomes(engine, job, waiting)) as outcomes:
            for number, (record, masks) in enumerate(outcomes):
                # Not before a worker has proved that the model opens: nothing is cleared in vain.
                if number == 0:
                    folder.begin(settings, overwrite=overwrite)
                folder.add(record, masks)
                records[record.name] = record
                bar.update()
    return RunSummary(tuple(records[name] for name in names), num_skipped)


def _outcomes(engine: Engine | None, job: DatasetJob, waiting: list[VideoSequence]) -> Outcomes:
    if waiting:
        yield from (engine or LocalEngine(workers=0)).run(job, waiting)


@contextmanager
def _clean(folder: RunFolder, waiting: list[VideoSequence]) -> Iterator[None]:
    """Without unfinished results before and after."""
    names = [sequence.name for sequence in waiting]
    folder.discard_unfinished(names)
    try:
        yield
    finally:
        folder.discard_unfinished(names)
