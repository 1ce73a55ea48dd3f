"""Boundary IoU, flicker and identity switches of folders of masks."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import find_sequences
from sam2_hq.evaluation.evaluate import Evaluation, evaluate
from sam2_hq.evaluation.quality import Quality, measure_quality
from tests.evaluation.folders import Ids, square, write_packed, write_per_object
from tests.evaluation.oracles import boundary_iou

ALL = Conventions(first_frame=True, last_frame=True)
PAIR = square(2, 24, 36, on=square(1, 4, 4))
SWAPPED = square(1, 24, 36, on=square(2, 4, 4))
NEAR = square(2, 24, 36, on=square(1, 5, 6))


def measure(folder: Path, rules: Conventions = ALL) -> dict[str, Quality]:
    sequences = find_sequences(folder / "gt", rules)
    scores = evaluate(sequences, folder / "pred", rules).sequences
    return measure_quality(sequences, folder / "pred", scores)


def write(folder: Path, truth: list[Ids], prediction: list[Ids]) -> None:
    write_packed(folder / "gt" / "pair", truth)
    write_packed(folder / "pred" / "pair", prediction)


def test_calm_masks_near_the_truth(tmp_path: Path):
    write(tmp_path, [PAIR] * 5, [NEAR] * 5)
    found = measure(tmp_path)["pair"]
    assert found.boundary_iou[1] == pytest.approx(boundary_iou(NEAR == 1, PAIR == 1))
    assert found.boundary_iou[2] == 1
    assert found.flicker == {1: 0, 2: 0}
    assert found.identity_switches == 0


def test_objects_that_swap_are_seen_without_a_truth_of_that_frame(tmp_path: Path):
    """Annotated on every fourth frame; the swap lies between."""
    write_packed(tmp_path / "gt" / "pair", [PAIR] * 3, step=4)
    write_packed(tmp_path / "pred" / "pair", [PAIR] * 5 + [SWAPPED] * 2 + [PAIR] * 2)
    found = measure(tmp_path)["pair"]
    assert found.identity_switches == 4
    assert found.boundary_iou == {1: 1, 2: 1}


def test_both_layouts_are_measured_alike(tmp_path: Path):
    truth, prediction = [PAIR] * 5, [NEAR, PAIR, square(1, 4, 4), PAIR, NEAR]
    write(tmp_path / "packed", truth, prediction)
    write_per_object(tmp_path / "split" / "gt" / "pair", truth, [1, 2])
    write_per_object(tmp_path / "split" / "pred" / "pair", prediction, [1, 2])
    packed = measure(tmp_path / "packed")["pair"]
    assert packed == measure(tmp_path / "split")["pair"]
    assert packed.flicker[2] == pytest.approx(1 / 3)


def test_what_is_not_predicted_is_empty(tmp_path: Path):
    rules = Conventions(first_frame=True, last_frame=True, missing_frames="zero")
    write(tmp_path, [PAIR] * 4, [PAIR] * 3)
    assert measure(tmp_path, rules)["pair"].boundary_iou == {1: 0.75, 2: 0.75}
    for file in (tmp_path / "pred" / "pair").iterdir():
        file.unlink()
    found = measure(tmp_path, rules)["pair"]
    assert found.boundary_iou == {1: 0, 2: 0}
    assert found.flicker == {}


def test_void_belongs_to_nobody(tmp_path: Path):
    void = Conventions(first_frame=True, last_frame=True, void=255)
    truth = square(255, 0, 0, side=40, on=None)
    truth = square(1, 4, 4, on=truth)
    write(tmp_path, [truth] * 3, [square(1, 4, 4, side=20)] * 3)
    assert measure(tmp_path, void)["pair"].boundary_iou == {1: 1}


def test_a_mask_of_another_size_is_named(tmp_path: Path):
    write_packed(tmp_path / "gt" / "pair", [PAIR] * 3, step=2)
    write_packed(tmp_path / "pred" / "pair", [PAIR, PAIR[:9], PAIR, PAIR, PAIR])
    with pytest.raises(ValueError, match=r"mask '00001' in .* is \[9, 56\]"):
        measure(tmp_path)


@pytest.mark.parametrize(
    ("mean_over", "expected"), [("objects", 0.5), ("sequences", 0.625), ("categories", 0.625)]
)
def test_means_are_taken_as_those_of_j(mean_over: str, expected: float):
    rules = Conventions(mean_over=mean_over)  # type: ignore[arg-type]
    quality = {
        "a": Quality({1: 0.25, 2: 0.25}, {1: 0.1}, 2),
        "b": Quality({1: 1.0}, {1: 0.3}, 1),
    }
    seen = {("a", 1): False, ("a", 2): False, ("b", 1): True}
    evaluation = Evaluation(rules, {}, seen=seen, quality=quality)
    overall = evaluation.overall_quality()
    assert overall["boundary_iou"] == pytest.approx(expected)
    assert overall["flicker"] == pytest.approx(0.2)
    assert overall["identity_switches"] == 3
    assert evaluation.object_quality("a", 2) == {"boundary_iou": 0.25, "flicker": None}


def test_a_sequence_is_the_mean_of_its_objects_also_where_categories_are_averaged():
    quality = {"a": Quality({1: 0.2, 2: 0.4, 3: 0.9}, {1: 0.1, 2: 0.2, 3: 0.6}, 2)}
    seen = {("a", 1): True, ("a", 2): True, ("a", 3): False}
    evaluation = Evaluation(Conventions(mean_over="categories"), {}, seen=seen, quality=quality)
    found = evaluation.sequence_quality("a")
    assert found == pytest.approx({"boundary_iou": 0.5, "flicker": 0.3, "identity_switches": 2})
