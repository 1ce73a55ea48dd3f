"""Score what a run has tracked, and put the scores where the results are."""

from __future__ import annotations

from dataclasses import replace

from sam2_hq.batch.folders import RunFolder
from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.runner import RunSummary
from sam2_hq.data.atomic import write_json
from sam2_hq.evaluation.evaluate import Evaluation, Seen, evaluate
from sam2_hq.evaluation.quality import measure_quality
from sam2_hq.evaluation.report import write_report


def score_run(
    job: DatasetJob,
    summary: RunSummary,
    protocol: str,
    *,
    workers: int = 1,
    seen: Seen | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score the sequences that are done; write `scores.json`, `report.html` and the manifest.

    Args:
        job: what was tracked, and in its `dataset` what counts.
        summary: how the run ended; sequences that failed are listed as missing.
        protocol: the name of what counts.
        workers, seen, progress: as of `evaluate`.

    Raises:
        ValueError: if nothing is done, the annotations leave nothing to score, or another run is
            writing into the folder.
    """
    failed = {record.name for record in summary.failed}
    sequences = [s for s in job.sequences() if s.name not in failed]
    if not sequences:
        raise ValueError(f"all {len(failed)} sequences failed, there is nothing to score")
    evaluation = evaluate(
        sequences, job.out, job.dataset.conventions, workers=workers, seen=seen, progress=progress
    )
    quality = measure_quality(
        sequences, job.out, evaluation.sequences, workers=workers, progress=progress
    )
    evaluation = replace(evaluation, quality=quality, missing=sorted(failed))
    folder = RunFolder(job.out)
    title = f"{job.root.name}, scored as {protocol}"
    # Not while processes are at work: they would keep the lock of a killed run.
    with folder.held():
        _write(folder, protocol, evaluation)
        write_report(folder.report, evaluation, sequences, job.out, title=title)
    return evaluation


def _write(folder: RunFolder, protocol: str, evaluation: Evaluation) -> None:
    tree = {"protocol": protocol, **evaluation.to_json()}
    write_json(folder.scores, tree)
    records = folder.manifest.read()
    for name, scores in tree["sequences"].items():
        if name in records:  # unless another run has begun again since
            records[name] = replace(records[name], scores=scores)
    folder.manifest.rewrite(records.values())
