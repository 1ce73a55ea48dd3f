"""J and F beside `vos-benchmark`, on the same masks, in turn: seconds, ratios, and equal digits.

    python benchmarks/evaluation_speed.py --out evaluation_speed.json
    python benchmarks/evaluation_speed.py --annotations GT --predictions PRED

Without folders the masks are blobs of 1, 8 and 30 % of a picture of 480p and of 1080p. `arrays`
scores masks in memory; `files` is a whole run, PNG reading included. One process is measured in CPU
time, since neighbours disturb wall time. Files are measured in wall time too, since ours reads the
next masks in a second thread. Exits with 1 if a score differs. Needs vos-benchmark beside the
package.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from vos_benchmark.benchmark import VideoEvaluator
from vos_benchmark.benchmark import benchmark as their_benchmark
from vos_benchmark.evaluator import Evaluator

from sam2_hq.benchmark.clock import Clock
from sam2_hq.benchmark.environment import describe_environment
from sam2_hq.data.atomic import whole_file
from sam2_hq.data.masks import read_id_map, write_id_map
from sam2_hq.evaluation.datasets import find_sequences, load_dataset
from sam2_hq.evaluation.evaluate import evaluate
from sam2_hq.evaluation.metrics import jaccard_and_boundary_f

SIZES = {"480p": (480, 854), "1080p": (1080, 1920)}
SHARES = (0.01, 0.08, 0.3)  # of the picture that an object covers
CONVENTIONS = load_dataset("sav").conventions  # what vos-benchmark counts

Ids = NDArray[np.uint8]
Scores = dict[str, tuple[float, float]]
"""J and F, 0 to 1, by sequence and object."""


def blob(rng: np.random.Generator, size: tuple[int, int], share: float) -> NDArray[np.bool_]:
    """[H, W]: a round shape with bays and capes, somewhere in the picture."""
    y, x = np.ogrid[: size[0], : size[1]]
    dy, dx = y - rng.uniform(0.3, 0.7) * size[0], x - rng.uniform(0.3, 0.7) * size[1]
    angles = np.linspace(-np.pi, np.pi, 721)
    waves = [rng.normal(0, 0.3 / k) * np.sin(k * angles + rng.uniform(0, 6)) for k in range(1, 16)]
    outline = np.sqrt(share * size[0] * size[1] / np.pi) * (1 + 0.3 * np.sum(waves, axis=0))
    turn = ((np.arctan2(dy, dx) + np.pi) / (2 * np.pi) * 720).astype(np.intp)
    return np.hypot(dy, dx) < outline[turn]


def id_maps(seed: int, size: tuple[int, int], num_frames: int) -> list[tuple[Ids, Ids]]:
    """Truth and prediction of each frame; the prediction is a few pixels off, and ragged."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(num_frames):
        truth = np.zeros(size, dtype=np.uint8)
        for number in reversed(range(len(SHARES))):
            truth[blob(rng, size, SHARES[number])] = number + 1
        prediction = np.roll(truth, rng.integers(-6, 7, 2), axis=(0, 1))
        prediction[blob(rng, size, 0.003)] = rng.integers(0, len(SHARES) + 1)
        pairs.append((truth, prediction))
    return pairs


def write_set(root: Path, size: tuple[int, int], num_frames: int) -> tuple[Path, Path]:
    """Two sequences in the layout of DAVIS."""
    for name, seed in (("one", 1), ("two", 2)):
        for side in ("truth", "prediction"):
            (root / side / name).mkdir(parents=True)
        for number, pair in enumerate(id_maps(seed, size, num_frames)):
            for side, ids in zip(("truth", "prediction"), pair, strict=True):
                write_id_map(root / side / name / f"{number:05d}.png", ids)
    return root / "truth", root / "prediction"


def link_set(root: Path, annotations: Path, predictions: Path) -> tuple[Path, Path]:
    """Links to the folders given, since the other program writes beside the predictions."""
    folders = (root / "truth", root / "prediction")
    names = sorted(p.name for p in predictions.iterdir() if (annotations / p.name).is_dir())
    for folder, source in zip(folders, (annotations, predictions), strict=True):
        folder.mkdir()
        for name in names:
            (folder / name).symlink_to((source / name).resolve())
    return folders


def our_arrays(pairs: list[tuple[Ids, Ids]]) -> Scores:
    """Score id maps in memory."""
    found: dict[int, list[tuple[float, float]]] = {}
    for truth, prediction in pairs:
        for i in np.flatnonzero(np.bincount(truth.ravel()))[1:].tolist():
            scores = jaccard_and_boundary_f(prediction == i, truth == i)
            found.setdefault(i, []).append(scores)
    return {str(i): _mean(values) for i, values in found.items()}


def their_arrays(pairs: list[tuple[Ids, Ids]]) -> Scores:
    """The same with the other program."""
    evaluator = Evaluator()
    for truth, prediction in pairs:
        evaluator.feed_frame(prediction, truth)
    return {str(i): scores for i, scores in _percent(*evaluator.conclude()).items()}


def our_files(truth: Path, prediction: Path, workers: int) -> Scores:
    """Score folders."""
    sequences = find_sequences(truth, CONVENTIONS)
    found = evaluate(sequences, prediction, CONVENTIONS, workers=workers)
    return {f"{name}/{i}": (means.j, means.f) for name, i, means in found.objects()}


def their_files(truth: Path, prediction: Path, workers: int) -> Scores:
    """The same with the other program; without its pool where one process is asked for."""
    if workers == 1:
        score = VideoEvaluator(str(truth), str(prediction))
        results = [score(folder.name) for folder in sorted(truth.iterdir())]
    else:
        *_, (by_name,) = their_benchmark(
            [str(truth)], [str(prediction)], num_processes=workers, verbose=False
        )
        results = [(name, *scores) for name, scores in by_name.items()]
    return {
        f"{name}/{i}": scores for name, iou, f in results for i, scores in _percent(iou, f).items()
    }


def take_turns(
    ours: Callable[[], Scores], theirs: Callable[[], Scores], clock: Clock, repeats: int
) -> dict[str, Any]:
    """Seconds of both, their ratio turn by turn, and the largest difference of a score."""
    seconds: dict[str, list[float]] = {"sam2_hq": [], "vos-benchmark": []}
    scores: list[Scores] = []
    for _ in range(repeats + 1):
        scores.clear()
        for name, work in zip(seconds, (ours, theirs), strict=True):
            seconds[name].append(clock.time(lambda work=work: scores.append(work())))
    for values in seconds.values():
        del values[0]  # the first turn warms up
    assert scores[0].keys() == scores[1].keys()
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    return {
        "median_seconds": {name: median(values) for name, values in seconds.items()},
        "ratio": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
        "largest_difference": float(
            max(np.abs(np.subtract(scores[0][k], scores[1][k])).max() for k in scores[0])
        ),
        "objects": len(scores[0]),
        "turns": repeats,
    }


def compare(truth: Path, prediction: Path, repeats: int, workers: int) -> dict[str, Any]:
    """Arrays, files in one process, files in several."""
    one, wall = Clock(cpu_time=True), Clock()
    first = min(truth.iterdir())
    pairs = [
        (read_id_map(file), read_id_map(prediction / first.name / file.name))
        for file in sorted(first.glob("*.png"))[1:-1]
    ]
    return {
        "arrays, one process": take_turns(
            lambda: our_arrays(pairs), lambda: their_arrays(pairs), one, repeats
        ),
        "files, one process": take_turns(
            lambda: our_files(truth, prediction, 1),
            lambda: their_files(truth, prediction, 1),
            one,
            repeats,
        ),
        "files, one, wall time": take_turns(
            lambda: our_files(truth, prediction, 1),
            lambda: their_files(truth, prediction, 1),
            wall,
            repeats,
        ),
        f"files, {workers} processes": take_turns(
            lambda: our_files(truth, prediction, workers),
            lambda: their_files(truth, prediction, workers),
            wall,
            repeats,
        ),
    }


@contextmanager
def mask_sets(options: argparse.Namespace) -> Iterator[dict[str, tuple[Path, Path]]]:
    """Folders of truth and prediction by name."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        if options.annotations is not None:
            yield {"given": link_set(root, options.annotations, options.predictions)}
        else:
            yield {
                name: write_set(root / name, SIZES[name], options.frames) for name in options.sizes
            }


def _percent(iou: dict[int, float], f: dict[int, float]) -> Scores:
    return {i: (iou[i] / 100, f[i] / 100) for i in iou}  # type: ignore[misc]


def _mean(values: list[tuple[float, float]]) -> tuple[float, float]:
    j, f = np.mean(values, axis=0).tolist()
    return j, f


def main() -> None:
    """Compare on every set; print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, help="a folder of id maps a sequence")
    parser.add_argument("--predictions", type=Path, help="the same, with what is scored")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--frames", type=int, default=24, help="of a synthetic sequence")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    options = parser.parse_args()
    if (options.annotations is None) != (options.predictions is None):
        parser.error("--annotations and --predictions go together")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    report: dict[str, Any] = {"environment": describe_environment(torch.device("cpu")), "sets": {}}
    with mask_sets(options) as sets:
        for name, folders in sets.items():
            report["sets"][name] = compare(*folders, options.repeats, options.workers)
            for kind, found in report["sets"][name].items():
                ours, theirs = found["median_seconds"].values()
                ratio = found["ratio"]
                print(
                    f"{name:6} {kind:20} ours {ours:7.3f} s, theirs {theirs:7.3f} s, faster by "
                    f"{ratio['median']:5.1f} ({ratio['min']:.1f} to {ratio['max']:.1f}), "
                    f"scores differ by at most {found['largest_difference']:.0e}",
                    flush=True,
                )
    if options.out is not None:
        with whole_file(options.out) as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n")
    found = [kind for kinds in report["sets"].values() for kind in kinds.values()]
    # A mean of at most some hundred float64 values, in another order.
    sys.exit(any(kind["largest_difference"] > 1e-12 for kind in found))


if __name__ == "__main__":
    main()
