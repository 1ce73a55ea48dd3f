"""J and F of the objects of one sequence, frame by frame, under given conventions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2_hq.data.masks import MAX_ID, VOID, BoolMask
from sam2_hq.data.read_ahead import read_ahead
from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.mask_folders import MaskFolder
from sam2_hq.evaluation.metrics import (
    BOUNDARY_TOLERANCE,
    SequenceStatistics,
    jaccard_and_boundary_f,
    statistics,
)

Masks = dict[int, BoolMask]


@dataclass(frozen=True)
class ObjectCurves:
    """J and F of one object over the frames that count."""

    frames: list[str]
    j: list[float]
    f: list[float]

    @property
    def j_and_f(self) -> list[float]:
        """Mean of J and F on every frame."""
        return [(j + f) / 2 for j, f in zip(self.j, self.f, strict=True)]


class NothingToScoreError(ValueError):
    """A sequence whose truth has no object on a frame that counts."""


class _BothMasks(NamedTuple):
    """Truth and prediction of one frame; `skipped` objects have no predicted file."""

    size: tuple[int, int]
    true: Masks
    predicted: Masks
    void: BoolMask | None
    skipped: list[int]


class _Pair(NamedTuple):
    """What one frame says of one object."""

    j: float
    f: float
    in_truth: bool
    in_prediction: bool


FramePairs = dict[int, _Pair | None]
"""By object id; None where a prediction is missing and shall be skipped."""

NOWHERE = _Pair(1.0, 1.0, False, False)


def score_sequence(
    truth: MaskFolder,
    prediction: MaskFolder,
    conventions: Conventions,
    *,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> dict[int, ObjectCurves]:
    """Compare all masks of a sequence.

    Args:
        truth: annotated masks; only their frames and objects are judged.
        prediction: masks of the same frames, in either layout.
        conventions: what counts; gaps between sequences are not looked at here.
        tolerance: of F, as in `boundary_f`.

    Returns:
        Scores by object id, ascending. An object without a frame that counts is left out.

    Raises:
        NothingToScoreError: if the sequence is too short, or its first frame has no object and
            only those of the first frame are judged.
        ValueError: if a mask is missing, damaged or of another size, or ids are not as they should
            be. The message names the file.
    """
    if not truth.frames:
        raise ValueError(f"'{truth.folder}' holds no mask")
    scored = _scored_frames(truth, conventions)
    first = {i: mask for i, mask in truth.read(truth.frames[0]).masks.items() if mask.any()}
    _check_first(truth, first, conventions)
    wanted = {frame for frames in scored.values() for frame in frames}
    read = partial(_read_both, truth, prediction, first, conventions)
    found = {
        frame: _compare(masks, tolerance)
        for frame, masks in read_ahead(read, (frame for frame in truth.frames if frame in wanted))
        if masks is not None
    }
    judged = _judged(first, found, conventions)
    _check_extra_ids(prediction, found, judged, conventions)
    _check_black_and_white(prediction, found, judged, conventions)
    scores = {}
    for object_id in judged:
        rows = [
            (frame, pair)
            for frame in scored.get(object_id, scored.get(None, []))
            if frame in found and (pair := found[frame].get(object_id, NOWHERE)) is not None
        ]
        was_seen = object_id in first or _was_given(truth, object_id, conventions)
        rows = _after_appearance(rows, was_seen, conventions)
        if rows:
            scores[object_id] = ObjectCurves(
                [frame for frame, _ in rows], [p.j for _, p in rows], [p.f for _, p in rows]
            )
        elif conventions.strict_official:
            raise ValueError(f"object {object_id} of '{truth.folder}' is on no scored frame")
    return scores


def summarise(values: list[float], conventions: Conventions) -> SequenceStatistics:
    """Mean, recall and decay of one object's J or F."""
    if conventions.statistics == "davis2017" or not conventions.strict_official:
        return statistics(values, strict_official=conventions.strict_official)
    return _statistics_2016(np.asarray(values))


def _statistics_2016(values: NDArray[np.float64]) -> SequenceStatistics:
    """Recall without the ends, decay without the first frame: the older DAVIS code."""
    inner = values[1:-1] if len(values) > 2 else values
    rest = values[1:] if len(values) > 1 else values
    return SequenceStatistics(
        float(values.mean()), float((inner > 0.5).mean()), statistics(rest).decay
    )


def _check_first(truth: MaskFolder, first: Masks, rules: Conventions) -> None:
    if rules.objects == "first_frame" and not first:
        hint = f"; {rules.void} means void here" if rules.void is not None else ""
        raise NothingToScoreError(f"'{truth.folder}' has no object on its first frame{hint}")


def _scored_frames(truth: MaskFolder, rules: Conventions) -> dict[int | None, list[str]]:
    """Frames by object; the key None stands for all objects of a packed folder."""
    owners: list[int | None] = [*truth.object_ids] if truth.is_per_object else [None]
    scored = {}
    for owner in owners:
        frames = truth.frames if owner is None else truth.frames_of(owner)
        start = 0 if rules.first_frame else 1
        stop = len(frames) if rules.last_frame else len(frames) - 1
        scored[owner] = frames[start:stop]
    if not any(scored.values()):
        raise NothingToScoreError(
            f"'{truth.folder}' has {len(truth.frames)} annotated frames: none is left to score "
            "without the first and last"
        )
    return scored


def _judged(first: Masks, found: dict[str, FramePairs], rules: Conventions) -> list[int]:
    if rules.objects == "first_frame":
        if rules.strict_official:
            return list(range(1, max(first, default=0) + 1))
        return sorted(first)
    present = {i for pairs in found.values() for i, pair in pairs.items() if pair and pair.in_truth}
    if rules.before_appearance == "drop":
        present |= first.keys()  # they have appeared, and count from then on, also where they left
    return sorted(present)


def _check_extra_ids(
    prediction: MaskFolder, found: dict[str, FramePairs], judged: list[int], rules: Conventions
) -> None:
    is_official_error = rules.strict_official and rules.objects == "first_frame"
    if rules.extra_ids == "ignore" and not is_official_error:
        return
    for frame, pairs in found.items():
        for i, pair in pairs.items():
            if pair and pair.in_prediction and i > max(judged, default=0):
                raise ValueError(
                    f"'{prediction.folder}' has id {i} on frame {frame}, the largest object is "
                    f"{max(judged, default=0)}"
                )


def _check_black_and_white(
    prediction: MaskFolder, found: dict[str, FramePairs], judged: list[int], rules: Conventions
) -> None:
    """White is 255, void or an id like any other, and then everything is missed."""
    ids = {
        i for pairs in found.values() for i, pair in pairs.items() if pair and pair.in_prediction
    }
    if not ids and rules.void == VOID and not rules.is_binary:
        # Void pixels are not in the pairs; a folder without an object is rare, so read it again.
        frames = (frame for frame in found if prediction.has_any(frame))
        ids = {VOID} if any(prediction.read(frame).void is not None for frame in frames) else ids
    if ids == {VOID} and judged and VOID not in judged and not rules.strict_official:
        hint = ", which means void here" if rules.void == VOID else ""
        raise ValueError(
            f"'{prediction.folder}' has no id but {VOID}{hint}, the truth has {judged[0]}; "
            "a black and white mask must use 1"
        )


def _was_given(truth: MaskFolder, object_id: int, rules: Conventions) -> bool:
    """Whether an object appears on the first frame of its own folder, which is not scored."""
    if rules.before_appearance != "drop" or rules.first_frame or not truth.is_per_object:
        return False
    if object_id not in truth.object_ids:
        return False
    own = truth.read(truth.frames_of(object_id)[0]).masks
    return object_id in own and bool(own[object_id].any())


def _after_appearance(
    rows: list[tuple[str, _Pair]], was_seen: bool, rules: Conventions
) -> list[tuple[str, _Pair]]:
    """The frames that count, of which none is before the object was seen."""
    if rules.before_appearance == "drop_unseen":
        seen = (i for i, (_, pair) in enumerate(rows) if pair.in_truth or pair.in_prediction)
        return rows[next(seen, len(rows)) :]
    if rules.before_appearance == "drop" and not was_seen:
        seen = (i for i, (_, pair) in enumerate(rows) if pair.in_truth)
        return rows[next(seen, len(rows)) + 1 :]
    return rows


def _read_both(
    truth: MaskFolder, prediction: MaskFolder, first: Masks, rules: Conventions, frame: str
) -> _BothMasks | None:
    """Masks of a frame; None to skip it."""
    size, true, void = truth.read(frame)
    needed = [i for i in true if rules.objects == "annotated" or i in first]
    missing = _missing(prediction, frame, needed, rules)
    skips = rules.missing_frames == "skip"
    if skips and not (prediction.is_per_object or prediction.has(frame)):
        return None
    return _BothMasks(
        size,
        true,
        _read_prediction(prediction, frame, size),
        void if rules.void_pixels == "exclude" else None,
        missing if skips else [],
    )


def _compare(masks: _BothMasks, tolerance: float) -> FramePairs:
    """Scores of all objects in truth or prediction."""
    nothing = np.zeros(masks.size, dtype=bool)
    pairs: FramePairs = {}
    for i in masks.true.keys() | masks.predicted.keys():
        mask, other = masks.true.get(i, nothing), masks.predicted.get(i, nothing)
        pairs[i] = _Pair(
            *jaccard_and_boundary_f(other, mask, tolerance=tolerance, void=masks.void),
            bool(mask.any()),
            bool(other.any()),
        )
    return pairs | dict.fromkeys(masks.skipped)


def _missing(
    prediction: MaskFolder, frame: str, needed: list[int], rules: Conventions
) -> list[int]:
    """Objects without a predicted file."""
    if not prediction.is_per_object:
        files = {} if prediction.has(frame) else dict.fromkeys([*needed, 0], prediction.file(frame))
    else:
        files = {i: prediction.file(frame, i) for i in needed if not prediction.has(frame, i)}
    if files and rules.missing_frames == "error":
        raise ValueError(f"mask '{next(iter(files.values()))}': no such file")
    return list(files)


def _read_prediction(prediction: MaskFolder, frame: str, size: tuple[int, int]) -> Masks:
    found = prediction.read_beside(frame, size)
    if found is None:
        return {}
    if not prediction.is_per_object and max(found.masks, default=0) > MAX_ID:
        raise ValueError(
            f"mask '{prediction.file(frame)}' has id {max(found.masks)}, ids end at {MAX_ID}"
        )
    return found.masks
