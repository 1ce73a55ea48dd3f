"""Score masks as SA-V does, with the published flags and table.

    python tools/sav_evaluator.py --gt_root sav_val/Annotations_6fps --pred_root outputs

Writes `results.csv` into the folder of the predictions. `sam2-hq evaluate --protocol sav` has more
to offer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sam2_hq.cli.evaluate import say_what_is_left_out
from sam2_hq.cli.files import write_text
from sam2_hq.cli.main import USER_MISTAKES, explain
from sam2_hq.evaluation.datasets import find_sequences, load_dataset, subfolders
from sam2_hq.evaluation.evaluate import Evaluation, Means, evaluate


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    try:
        evaluation = _evaluate(options)
        text = "\n".join(_lines(evaluation)) + "\n"
        write_text(options.pred_root / "results.csv", text)
    except USER_MISTAKES as error:
        parser.exit(1, f"sav_evaluator: {explain(error)}\n")
    if not options.quiet:
        print(text, end="")
    say_what_is_left_out(evaluation)


def _evaluate(options: argparse.Namespace) -> Evaluation:
    gt_root = options.gt_root
    # A data set's own root stands for the folder of its annotations.
    if gt_root.is_dir() and "Annotations" in subfolders(gt_root):
        gt_root = gt_root / "Annotations"
    skips = not options.do_not_skip_first_and_last_frame
    conventions = replace(
        load_dataset("sav").conventions,
        first_frame=not skips,
        last_frame=not skips,
        missing_sequences="error" if options.strict else "skip",
    )
    sequences = find_sequences(gt_root, conventions)
    if options.strict:
        _refuse_more(options.pred_root, {sequence.name for sequence in sequences})
    workers = min(options.num_processes, len(sequences))
    return evaluate(
        sequences, options.pred_root, conventions, workers=workers, progress=not options.quiet
    )


def _refuse_more(pred_root: Path, known: set[str]) -> None:
    more = [name for name in subfolders(pred_root) if name not in known]
    if more:
        raise ValueError(f"--strict: sequence '{more[0]}' is predicted, but has no annotations")


def _lines(evaluation: Evaluation) -> Iterator[str]:
    """The published columns: percent with one digit, object ids with three."""
    rows = [(name, f"{number:03d}", means) for name, number, means in evaluation.objects()]
    rows.insert(0, ("Global score", "", evaluation.overall()))
    width = max(len("sequence"), *(len(name) for name, _, _ in rows))
    yield f"{'sequence':<{width}},{'obj':>4}, {'J&F':>5}, {'J':>5}, {'F':>5}"
    for name, number, means in rows:
        yield f"{name:<{width}},{number:>4}, {_percents(means)}"


def _percents(means: Means) -> str:
    return ", ".join(f"{100 * value:5.1f}" for value in (means.j_and_f, means.j, means.f))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("sav_evaluator", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--gt_root", type=Path, required=True, help="a folder of masks a video")
    add("--pred_root", type=Path, required=True, help="the same, predicted; gets results.csv")
    add("-n", "--num_processes", type=int, default=16)
    add("-s", "--strict", action="store_true", help="both must have the same videos")
    add("-q", "--quiet", action="store_true", help="no table")
    add("--do_not_skip_first_and_last_frame", action="store_true")
    return parser


if __name__ == "__main__":
    main()
