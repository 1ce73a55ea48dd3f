"""What counts: each convention on sequences that can be drawn, and whole sets against the tools."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_hq.data.masks import write_id_map
from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import load_dataset
from sam2_hq.evaluation.mask_folders import MaskFolder
from sam2_hq.evaluation.scoring import ObjectCurves, score_sequence, summarise
from tests.evaluation.folders import (
    SIZE,
    Ids,
    random_maps,
    square,
    write_packed,
    write_per_object,
)

EMPTY = np.zeros(SIZE, dtype=np.uint8)
HERE, BESIDE = square(1, 10, 10), square(1, 10, 22)


def scores(
    folder: Path, truth: list[Ids], prediction: list[Ids], rules: Conventions | None = None
) -> dict[int, ObjectCurves]:
    rules = rules or Conventions()
    return score_sequence(
        MaskFolder(write_packed(folder / "t", truth), rules.void, rules.is_binary),
        MaskFolder(write_packed(folder / "p", prediction), rules.void, rules.is_binary),
        rules,
    )


def test_first_and_last_frame_do_not_count(tmp_path: Path):
    found = scores(tmp_path, [HERE] * 4, [BESIDE, HERE, HERE, BESIDE])
    assert found == {1: ObjectCurves(["00001", "00002"], [1.0, 1.0], [1.0, 1.0])}


def test_first_and_last_frame_count_if_asked(tmp_path: Path):
    rules = Conventions(first_frame=True, last_frame=True)
    found = scores(tmp_path, [HERE] * 3, [BESIDE, HERE, BESIDE], rules)
    assert found[1].j == [0, 1, 0]


def test_an_absent_object_that_is_not_predicted_is_right(tmp_path: Path):
    found = scores(tmp_path, [HERE, EMPTY, HERE, HERE], [HERE, EMPTY, HERE, HERE])
    assert found[1].j == [1, 1]
    found = scores(tmp_path, [HERE, EMPTY, HERE, HERE], [HERE, HERE, EMPTY, HERE])
    assert found[1].j == found[1].f == [0, 0]


LATE = [HERE, HERE, HERE, HERE + square(2, 30, 40, side=8), HERE + square(2, 30, 40, side=8), HERE]
EARLY = [HERE, HERE, HERE + square(2, 30, 40, side=8), *LATE[3:]]


@pytest.mark.parametrize(
    ("rule", "prediction", "expected"),
    [
        ("count", LATE, [1, 1, 1, 1]),
        ("count", EARLY, [1, 0, 1, 1]),
        ("drop_unseen", LATE, [1, 1]),
        ("drop_unseen", EARLY, [0, 1, 1]),
        ("drop", LATE, [1]),
        ("drop", EARLY, [1]),
    ],
)
def test_frames_before_an_object_appears_count_as_asked(
    tmp_path: Path, rule: str, prediction: list[Ids], expected: list[float]
):
    rules = Conventions(before_appearance=rule)  # type: ignore[arg-type]
    assert scores(tmp_path, LATE, prediction, rules)[2].j == expected


@pytest.mark.parametrize("protocol", ["lvos", "youtube-vos"])
def test_an_object_that_leaves_after_the_first_frame_counts_from_there(
    tmp_path: Path, protocol: str
):
    rules = load_dataset(protocol).conventions
    two = square(2, 30, 40, side=8, on=HERE)
    truth, ghost = [two, HERE, HERE, HERE], [two, two, HERE, HERE]
    expected = [0.0, 1.0, 1.0][: 3 if rules.last_frame else 2]
    found = scores(tmp_path, truth, ghost, rules)
    assert found[2] == ObjectCurves(found[1].frames, expected, expected)


def test_only_objects_of_the_first_frame_are_judged_if_asked(tmp_path: Path):
    assert scores(tmp_path, LATE, LATE, Conventions(objects="first_frame")).keys() == {1}


def test_gaps_below_the_largest_id_are_objects_to_the_official_tool(tmp_path: Path):
    rules = Conventions(objects="first_frame", strict_official=True)
    assert scores(tmp_path, [3 * HERE] * 3, [3 * HERE] * 3, rules).keys() == {1, 2, 3}


def test_an_extra_id_costs_nothing_or_is_an_error(tmp_path: Path):
    extra = [HERE, HERE + square(9, 30, 40, side=4), HERE]
    assert scores(tmp_path, [HERE] * 3, extra)[1].j == [1]
    with pytest.raises(ValueError, match="has id 9 on frame 00001, the largest object is 1"):
        scores(tmp_path, [HERE] * 3, extra, Conventions(extra_ids="error"))


def test_void_is_background_excluded_or_an_object(tmp_path: Path):
    with_void = square(255, 10, 22, on=HERE)
    truth, prediction = [HERE, with_void, HERE], [HERE, square(1, 10, 22, on=HERE), HERE]
    judged = {
        "background": scores(tmp_path, truth, prediction, Conventions(void=255))[1].j,
        "exclude": scores(
            tmp_path, truth, prediction, Conventions(void=255, void_pixels="exclude")
        )[1].j,
    }
    assert judged == {"background": [0.5], "exclude": [1.0]}
    assert scores(tmp_path, truth, prediction).keys() == {1, 255}


def test_a_binary_set_has_one_object_whatever_its_ids(tmp_path: Path):
    rules = Conventions(is_binary=True)
    assert scores(tmp_path, [255 * HERE] * 3, [7 * HERE] * 3, rules)[1].j == [1]


@pytest.mark.parametrize(("gap", "expected"), [("zero", [0, 1]), ("skip", [1])])
def test_a_missing_frame_is_empty_or_left_out(tmp_path: Path, gap: str, expected: list[float]):
    rules = Conventions(missing_frames=gap)  # type: ignore[arg-type]
    truth = write_packed(tmp_path / "t", [HERE] * 4)
    prediction = write_packed(tmp_path / "p", [HERE] * 4)
    (prediction / "00001.png").unlink()
    assert score_sequence(MaskFolder(truth), MaskFolder(prediction), rules)[1].j == expected
    alone = write_per_object(tmp_path / "o", [HERE] * 4, [1])
    (alone / "001" / "00001.png").unlink()
    assert score_sequence(MaskFolder(truth), MaskFolder(alone), rules)[1].j == expected


def test_a_missing_frame_is_an_error_that_names_the_file(tmp_path: Path):
    truth = write_packed(tmp_path / "t", [HERE] * 4)
    prediction = write_packed(tmp_path / "p", [HERE] * 2)
    with pytest.raises(ValueError, match=r"p/00002\.png': no such file"):
        score_sequence(MaskFolder(truth), MaskFolder(prediction), Conventions())


def test_sparse_annotations_choose_the_frames(tmp_path: Path):
    truth = write_packed(tmp_path / "t", [HERE] * 4, step=4)
    prediction = write_packed(tmp_path / "p", [HERE] * 13)
    found = score_sequence(MaskFolder(truth), MaskFolder(prediction), Conventions())
    assert found[1].frames == ["00004", "00008"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: write_id_map(f, np.zeros((5, 6), dtype=np.uint8)), r"is \[5, 6\], the truth"),
        (lambda f: f.write_bytes(f.read_bytes()[:60]), "cannot be read"),
        (lambda f: f.write_bytes(b"no picture"), "cannot be read"),
    ],
)
def test_a_spoilt_mask_is_named(tmp_path: Path, spoil, message: str):  # type: ignore[no-untyped-def]
    truth = write_packed(tmp_path / "t", [HERE] * 3)
    prediction = write_packed(tmp_path / "p", [HERE] * 3)
    spoil(prediction / "00001.png")
    with pytest.raises(ValueError, match=message) as error:
        score_sequence(MaskFolder(truth), MaskFolder(prediction), Conventions())
    assert "00001" in str(error.value)


def test_a_black_and_white_prediction_is_not_taken_for_void(tmp_path: Path):
    rules = Conventions(void=255)
    with pytest.raises(ValueError, match="no id but 255, which means void"):
        scores(tmp_path, [HERE] * 3, [255 * HERE] * 3, rules)


def test_the_truth_scores_full_marks_where_it_holds_nothing_but_void(tmp_path: Path):
    maps = [HERE, 255 * HERE, HERE, HERE]
    found = scores(tmp_path, maps, maps, Conventions(void=255))
    assert found[1].j_and_f == [1.0, 1.0]


def test_sequences_that_cannot_be_scored_say_why(tmp_path: Path):
    with pytest.raises(ValueError, match="has 2 annotated frames: none is left"):
        scores(tmp_path / "short", [HERE] * 2, [HERE] * 2)
    with pytest.raises(ValueError, match="no object on its first frame"):
        scores(tmp_path / "none", [EMPTY] * 3, [HERE] * 3, Conventions(objects="first_frame"))
    with pytest.raises(ValueError, match="holds no mask"):
        score_sequence(MaskFolder(tmp_path / "x"), MaskFolder(tmp_path / "y"), Conventions())


def test_statistics_of_2016_look_at_fewer_frames():
    values = [1.0, 0.6, 0.6, 0.2, 0.2, 0.0]
    rules = Conventions(statistics="davis2016", strict_official=True)
    older, newer = (
        summarise(values, rules),
        summarise(values, replace(rules, strict_official=False)),
    )
    assert older.mean == newer.mean == pytest.approx(2.6 / 6)
    assert (older.recall, newer.recall) == (0.5, 0.5)
    assert older.decay == pytest.approx(0.6 - 0.1)
    assert newer.decay == pytest.approx(0.8 - 0.1)


@pytest.mark.parametrize("seed", range(4))
def test_sav_scores_are_those_of_vos_benchmark(tmp_path: Path, seed: int):
    tool = pytest.importorskip("vos_benchmark.benchmark")
    truth = random_maps(seed, num_frames=9, num_objects=3)
    prediction = [np.roll(ids, (1, 2), (0, 1)) for ids in truth]
    found = scores(tmp_path / "video", truth, prediction, load_dataset("sav").conventions)
    for root, maps in (("truth", truth), ("prediction", prediction)):
        write_packed(tmp_path / root / "video", maps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        roots = str(tmp_path / "truth"), str(tmp_path / "prediction")
        _, iou, f = tool.VideoEvaluator(*roots)("video")
    assert iou == pytest.approx({i: 100 * np.mean(s.j) for i, s in found.items()}, abs=1e-12)
    assert f == pytest.approx({i: 100 * np.mean(s.f) for i, s in found.items()}, abs=1e-12)


@pytest.mark.parametrize(
    "rules",
    [
        Conventions(),
        Conventions(before_appearance="drop_unseen"),
        Conventions(before_appearance="drop"),
        Conventions(objects="first_frame"),
        Conventions(objects="first_frame", extra_ids="error", strict_official=True),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_both_layouts_give_the_same_scores(tmp_path: Path, seed: int, rules: Conventions):
    truth = random_maps(seed, num_frames=9, num_objects=3)
    prediction = [np.roll(ids, (1, 2), (0, 1)) for ids in truth]
    if rules.extra_ids == "error":
        prediction = [np.where(ids == 3, 0, ids) for ids in prediction]
    packed = scores(tmp_path, truth, prediction, rules)
    write_per_object(tmp_path / "ot", truth, [1, 2, 3])
    write_per_object(tmp_path / "op", prediction, [1, 2, 3])
    for one, two in (("ot", "op"), ("ot", "p"), ("t", "op")):
        folders = MaskFolder(tmp_path / one), MaskFolder(tmp_path / two)
        assert score_sequence(*folders, rules) == packed


def test_an_empty_first_file_does_not_make_an_object_appear(tmp_path: Path):
    truth = MaskFolder(write_per_object(tmp_path / "t", LATE, [1, 2]))
    missed = MaskFolder(write_per_object(tmp_path / "p", [HERE] * len(LATE), [1, 2]))
    found = score_sequence(truth, missed, Conventions(before_appearance="drop"))
    assert found[2].j_and_f == [0.0]
    assert score_sequence(truth, missed, Conventions(objects="first_frame")).keys() == {1}


def test_an_object_whose_folder_begins_where_it_appears_loses_no_second_frame(tmp_path: Path):
    """As SA-V's folders do; the frame on which it is given counts in no layout."""
    rules = Conventions(before_appearance="drop")
    packed = scores(tmp_path, LATE, EARLY, rules)
    write_per_object(tmp_path / "ot", LATE, [1, 2])
    for file in sorted((tmp_path / "ot" / "002").glob("*.png")):
        if (np.asarray(Image.open(file)) > 0).any():
            break
        file.unlink()
    own = score_sequence(MaskFolder(tmp_path / "ot"), MaskFolder(tmp_path / "p"), rules)
    # The object's last frame is the last of its folder in both.
    assert own[2] == packed[2]


def capitals(folder: Path) -> None:
    for file in sorted(folder.rglob("*.png")):
        file.rename(file.with_suffix(".PNG"))


def test_masks_with_a_suffix_in_capitals_are_read(tmp_path: Path):
    expected = scores(tmp_path, LATE, EARLY)
    write_per_object(tmp_path / "ot", LATE, [1, 2])
    write_per_object(tmp_path / "op", EARLY, [1, 2])
    for name in ("t", "p", "ot", "op"):
        capitals(tmp_path / name)
    for truth, prediction in (("t", "p"), ("ot", "op")):
        folders = MaskFolder(tmp_path / truth), MaskFolder(tmp_path / prediction)
        assert score_sequence(*folders, Conventions()) == expected


def test_a_frame_with_two_files_is_named(tmp_path: Path):
    folder = write_packed(tmp_path / "t", [HERE] * 3)
    (folder / "00001.PNG").write_bytes((folder / "00001.png").read_bytes())
    with pytest.raises(ValueError, match="are the same mask"):
        score_sequence(MaskFolder(folder), MaskFolder(folder), Conventions())


def test_hidden_folders_beside_masks_are_left_alone(tmp_path: Path):
    packed = write_packed(tmp_path / "t", [HERE] * 3)
    alone = write_per_object(tmp_path / "o", [HERE] * 3, [1])
    for folder in (packed, alone):
        write_packed(folder / ".thumbnails", [HERE])
    assert score_sequence(MaskFolder(packed), MaskFolder(alone), Conventions())[1].j == [1]


def test_an_object_that_nobody_judges_needs_no_folder(tmp_path: Path):
    late = square(2, 25, 40, on=HERE)
    truth = MaskFolder(write_packed(tmp_path / "t", [HERE, late, late, late]))
    prediction = MaskFolder(write_per_object(tmp_path / "p", [HERE] * 4, [1]))
    found = score_sequence(truth, prediction, Conventions(objects="first_frame"))
    assert {i: s.j_and_f for i, s in found.items()} == {1: [1.0, 1.0]}
    with pytest.raises(ValueError, match=r"002/00001.png': no such file"):
        score_sequence(truth, prediction, Conventions())


def test_objects_of_folders_have_first_and_last_frames_of_their_own(tmp_path: Path):
    for object_id in (0, 1):
        write_per_object(tmp_path / "t", [np.full(SIZE, object_id)] * 5, [object_id])
    (tmp_path / "t" / "001" / "00000.png").unlink()
    found = score_sequence(MaskFolder(tmp_path / "t"), MaskFolder(tmp_path / "t"), Conventions())
    assert {i: s.frames for i, s in found.items()} == {
        0: ["00001", "00002", "00003"],
        1: ["00002", "00003"],
    }
