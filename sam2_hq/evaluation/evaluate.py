"""Score a folder of predicted masks against the truth, sequence by sequence, and take the means."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple  # Any: JSON values

import numpy as np

from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import VideoSequence
from sam2_hq.evaluation.mask_folders import MaskFolder
from sam2_hq.evaluation.metrics import BOUNDARY_TOLERANCE
from sam2_hq.evaluation.processes import map_sequences
from sam2_hq.evaluation.quality import Quality
from sam2_hq.evaluation.scoring import (
    NothingToScoreError,
    ObjectCurves,
    score_sequence,
    summarise,
)

Scores = dict[int, ObjectCurves]

Seen = Mapping[tuple[str, int], bool]
"""Whether the category of an object, (sequence, id), is in the training set."""

STATISTICS = ("J", "F", "J_recall", "J_decay", "F_recall", "F_decay")


class Means(NamedTuple):
    """Statistics of one object, or their means over several."""

    j: float
    f: float
    j_recall: float
    j_decay: float
    f_recall: float
    f_decay: float

    @property
    def j_and_f(self) -> float:
        """The number that benchmarks rank by."""
        return (self.j + self.f) / 2

    def to_json(self) -> dict[str, float]:
        """With the published names, values from 0 to 1."""
        return {"J&F": self.j_and_f, **dict(zip(STATISTICS, self, strict=True))}

    @classmethod
    def over(cls, parts: Sequence[Means]) -> Means:
        """The unweighted mean."""
        return cls(*np.mean(np.array(parts), axis=0).tolist())


@dataclass(frozen=True)
class Evaluation:
    """All scores of a data set.

    sequences: scores by sequence and object, of sequences that have any.
    missing: sequences without a prediction that are left out.
    unscored: objects of the truth, as `sequence/id`, that are on no frame that counts, and
        sequences without any that is.
    seen: for means over categories, which objects have a category of the training set.
    quality: what `measure_quality` found, by sequence; empty if it was not asked.
    """

    conventions: Conventions
    sequences: Mapping[str, Scores]
    missing: Sequence[str] = ()
    unscored: Sequence[str] = ()
    seen: Seen = field(default_factory=dict)
    quality: Mapping[str, Quality] = field(default_factory=dict)

    def objects(self) -> Iterator[tuple[str, int, Means]]:
        """Sequence, object id and statistics of every object."""
        for name, scores in self.sequences.items():
            for object_id, values in scores.items():
                yield name, object_id, self._means(values)

    def sequence_means(self) -> dict[str, Means]:
        """Statistics by sequence, the mean of its objects."""
        by_name: dict[str, list[Means]] = {}
        for name, _, means in self.objects():
            by_name.setdefault(name, []).append(means)
        return {name: Means.over(parts) for name, parts in by_name.items()}

    def category_means(self) -> dict[str, Means]:
        """Statistics of seen and of unseen objects, where there are such."""
        groups: dict[str, list[Means]] = {}
        for name, object_id, means in self.objects():
            groups.setdefault(self._group(name, object_id), []).append(means)
        return {group: Means.over(parts) for group, parts in sorted(groups.items())}

    def overall(self) -> Means:
        """The number of the benchmark, averaged as it does."""
        if self.conventions.mean_over == "sequences":
            return Means.over(list(self.sequence_means().values()))
        if self.conventions.mean_over == "categories":
            return Means.over(list(self.category_means().values()))
        return Means.over([means for _, _, means in self.objects()])

    def object_quality(self, name: str, object_id: int) -> dict[str, float | None]:
        """Boundary IoU and flicker of an object; nothing if they were not measured."""
        found = self.quality.get(name)
        if found is None:
            return {}
        return {
            "boundary_iou": found.boundary_iou[object_id],
            "flicker": found.flicker.get(object_id),
        }

    def sequence_quality(self, name: str) -> dict[str, float | None]:
        """Boundary IoU and flicker of a sequence, means of its objects, and identity switches."""
        found = self.quality.get(name)
        if found is None:
            return {}
        values = (list(by_object.values()) for by_object in (found.boundary_iou, found.flicker))
        boundary_iou, flicker = (float(np.mean(v)) if v else None for v in values)
        return {
            "boundary_iou": boundary_iou,
            "flicker": flicker,
            "identity_switches": found.identity_switches,
        }

    def overall_quality(self) -> dict[str, float | None]:
        """Boundary IoU and flicker, averaged as J is, and all identity switches."""
        if not self.quality:
            return {}
        return {
            "boundary_iou": self._average({n: q.boundary_iou for n, q in self.quality.items()}),
            "flicker": self._average({n: q.flicker for n, q in self.quality.items()}),
            "identity_switches": sum(q.identity_switches for q in self.quality.values()),
        }

    def _average(self, values: Mapping[str, Mapping[int, float]]) -> float | None:
        groups: dict[str, list[float]] = {}
        for name, by_object in values.items():
            for object_id, value in by_object.items():
                groups.setdefault(self._group(name, object_id), []).append(value)
        return float(np.mean([np.mean(group) for group in groups.values()])) if groups else None

    def _group(self, name: str, object_id: int) -> str:
        """What is averaged first."""
        if self.conventions.mean_over == "categories":
            return "seen" if self.seen[name, object_id] else "unseen"
        return name if self.conventions.mean_over == "sequences" else ""

    def _means(self, values: ObjectCurves) -> Means:
        j, f = (summarise(v, self.conventions) for v in (values.j, values.f))
        return Means(j.mean, f.mean, j.recall, j.decay, f.recall, f.decay)

    def to_json(self, *, per_frame: bool = False) -> dict[str, Any]:
        """Global, sequences and objects as JSON values; `per_frame` adds the values over time."""
        sequences: dict[str, dict[str, Any]] = {
            name: {**means.to_json(), **self.sequence_quality(name), "objects": {}}
            for name, means in self.sequence_means().items()
        }
        for name, object_id, means in self.objects():
            entry: dict[str, Any] = {**means.to_json(), **self.object_quality(name, object_id)}
            if per_frame:
                scores = self.sequences[name][object_id]
                entry |= {"frames": scores.frames, "J_frames": scores.j, "F_frames": scores.f}
            sequences[name]["objects"][str(object_id)] = entry
        overall = {**self.overall().to_json(), **self.overall_quality()}
        result: dict[str, Any] = {"global": overall, "sequences": sequences}
        if self.conventions.mean_over == "categories":
            result["categories"] = {k: m.to_json() for k, m in self.category_means().items()}
        return result | {"missing": list(self.missing), "unscored": list(self.unscored)}


def evaluate(
    sequences: Sequence[VideoSequence],
    predictions: str | os.PathLike[str],
    conventions: Conventions,
    *,
    tolerance: float = BOUNDARY_TOLERANCE,
    workers: int = 1,
    seen: Seen | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score `predictions/<sequence>` for every sequence, in either layout of masks.

    Args:
        sequences: the truth.
        predictions: folder with a folder a sequence; others are not looked at.
        conventions: what counts.
        tolerance: of F, as in `boundary_f`.
        workers: processes; 1 scores in this one. With more, a script that calls this needs
            `if __name__ == "__main__":`, as for every new process of Python.
        seen: for means over categories, of every object; see `seen_objects`.
        progress: show a progress bar.

    Raises:
        ValueError: if there is nothing to score, an object has no category where they count, or a
            mask is not as it should be; the message names the file.
    """
    root, seen = Path(predictions), seen or {}
    if not root.is_dir():
        raise ValueError(f"predictions: there is no folder '{root}'")
    missing = [s.name for s in sequences if not (root / s.name).is_dir()]
    if missing and conventions.missing_sequences == "error":
        raise ValueError(f"sequence '{missing[0]}' has no folder in '{root}' ({len(missing)} miss)")
    scored = list(sequences)
    if conventions.missing_sequences == "skip":
        scored = [s for s in sequences if s.name not in missing]
    if not scored:
        raise ValueError(f"'{root}' has none of the {len(sequences)} sequences")
    needs_categories = conventions.mean_over == "categories"
    if needs_categories:
        named = {name for name, _ in seen}
        _refuse_without_category(f"sequence '{s.name}'" for s in scored if s.name not in named)
    score = partial(_score_one, root, conventions, tolerance)
    results = list(
        map_sequences(score, scored, workers=workers, progress="scoring" if progress else None)
    )
    pairs = zip(scored, results, strict=True)
    scores = {s.name: result.scores for s, result in pairs if result.scores}
    if not scores:
        reasons = (result.reason for result in results if result.reason)
        raise ValueError(next(reasons, "no object is on a frame that counts"))
    if needs_categories:
        objects = [(name, i) for name, found in scores.items() for i in found]
        _refuse_without_category(
            f"object {i} of sequence '{name}'" for name, i in objects if (name, i) not in seen
        )
    unscored = [name for result in results for name in result.unscored]
    skipped = missing if conventions.missing_sequences == "skip" else []
    return Evaluation(conventions, scores, skipped, unscored, seen)


def _refuse_without_category(things: Iterable[str]) -> None:
    lacking = list(things)
    if lacking:
        raise ValueError(
            f"{lacking[0]} has no category in the meta file of the scored set "
            f"({len(lacking)} have none)"
        )


def seen_objects(meta: Path, training_meta: Path) -> Seen:
    """Whether the category of an object of YouTube-VOS occurs in the training set.

    Args:
        meta: `meta.json` of the evaluated set, `training_meta` that of the training set; both
            hold `{"videos": {name: {"objects": {id: {"category": ...}}}}}`.

    Raises:
        ValueError: if one of them is missing or another kind of file.
    """
    known = {category for _, _, category in _categories(training_meta)}
    return {(name, i): category in known for name, i, category in _categories(meta)}


def _categories(path: Path) -> Iterator[tuple[str, int, str]]:
    if not path.is_file():
        raise ValueError(f"categories '{path}': no such file")
    try:
        for name, video in json.loads(path.read_text(encoding="utf-8"))["videos"].items():
            for object_id, entry in video["objects"].items():
                yield name, int(object_id), entry["category"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"categories '{path}' is no YouTube-VOS meta file: {error!r}") from error


class _Result(NamedTuple):
    """Scores of a sequence, what of it is on no frame that counts, and why if that is all."""

    scores: Scores
    unscored: Sequence[str]
    reason: str = ""


def _score_one(
    root: Path, conventions: Conventions, tolerance: float, sequence: VideoSequence
) -> _Result:
    prediction = MaskFolder(
        root / sequence.name, void=conventions.void, is_binary=conventions.is_binary
    )
    truth = sequence.truth
    if not prediction.folder.is_dir():
        conventions = replace(conventions, missing_frames="zero")
    try:
        scores = score_sequence(truth, prediction, conventions, tolerance=tolerance)
    except NothingToScoreError as error:
        if conventions.strict_official:
            raise
        return _Result({}, [sequence.name], str(error))
    left = sorted(_known_objects(truth, conventions) - scores.keys())
    if not scores and not left:
        return _Result({}, [sequence.name], f"'{truth.folder}' has no object")
    return _Result(scores, [f"{sequence.name}/{i}" for i in left])


def _known_objects(truth: MaskFolder, rules: Conventions) -> set[int]:
    """Ids of the truth as far as they can be without scores: with folders all, else at the ends."""
    if truth.is_per_object:
        return {*truth.object_ids}
    # The first mask of a late object may be on the last frame, or on the last one that counts.
    ends = truth.frames[:1] + (truth.frames[-2:] if rules.objects == "annotated" else [])
    return {i for frame in ends for i in truth.read(frame).masks}
