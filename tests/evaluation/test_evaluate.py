"""Means over objects, sequences and categories; data sets from files; and the command on top."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sam2_hq.cli.main import app
from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import (
    dataset_names,
    find_sequences,
    load_dataset,
    open_dataset,
    read_sequence_list,
)
from sam2_hq.evaluation.evaluate import evaluate
from sam2_hq.evaluation.quality import measure_quality
from tests.evaluation.folders import random_maps, square, write_packed

HERE, HALF = square(1, 10, 10), square(1, 10, 16)
BOTH = square(2, 30, 40, side=8, on=HERE)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """Truth and prediction: `one` has one object, a third of it found; `two` has two, all found."""
    write_packed(tmp_path / "gt" / "one", [HERE] * 6)
    write_packed(tmp_path / "pred" / "one", [HALF] * 6)
    write_packed(tmp_path / "gt" / "two", [BOTH] * 6)
    write_packed(tmp_path / "pred" / "two", [BOTH] * 6)
    return tmp_path / "gt", tmp_path / "pred"


@pytest.fixture
def run() -> Callable[..., Any]:
    runner = CliRunner()
    return lambda *words: runner.invoke(app, ["evaluate", *map(str, words)])


def test_means_are_over_objects_or_over_sequences(sets: tuple[Path, Path]):
    gt, pred = sets
    by_object, by_sequence = Conventions(), Conventions(mean_over="sequences")
    assert evaluate(find_sequences(gt, by_object), pred, by_object).overall().j == pytest.approx(
        (1 / 3 + 1 + 1) / 3
    )
    found = evaluate(find_sequences(gt, by_sequence), pred, by_sequence)
    assert found.overall().j == pytest.approx((1 / 3 + 1) / 2)


def test_several_processes_give_what_one_gives(sets: tuple[Path, Path]):
    sequences = find_sequences(sets[0], Conventions())
    one, two = (evaluate(sequences, sets[1], Conventions(), workers=n) for n in (1, 2))
    assert one.to_json(per_frame=True) == two.to_json(per_frame=True)


def test_a_missing_sequence_is_an_error_zero_or_left_out(sets: tuple[Path, Path]):
    gt, pred = sets
    write_packed(gt / "three", [HERE] * 6)
    for rule, j, missing in (("zero", (1 / 3 + 2) / 4, []), ("skip", (1 / 3 + 2) / 3, ["three"])):
        rules = Conventions(missing_sequences=rule)  # type: ignore[arg-type]
        found = evaluate(find_sequences(gt, rules), pred, rules)
        assert found.overall().j == pytest.approx(j)
        assert found.missing == missing
    with pytest.raises(ValueError, match="sequence 'three' has no folder"):
        evaluate(find_sequences(gt, Conventions()), pred, Conventions())


def test_an_object_on_no_frame_that_counts_is_named(sets: tuple[Path, Path]):
    gt, pred = sets
    write_packed(gt / "three", [BOTH, *[HERE] * 5])
    write_packed(pred / "three", [HERE] * 6)
    rules = load_dataset("sav").conventions
    assert evaluate(find_sequences(gt, rules), pred, rules).unscored == ["three/2"]


UNSCORABLE = {
    "has 1 annotated frames": (Conventions(), [HERE]),
    "has no object on its first frame": (
        Conventions(objects="first_frame"),
        [HERE * 0] + [HERE] * 5,
    ),
}


@pytest.mark.parametrize("reason", UNSCORABLE)
def test_a_sequence_with_nothing_to_score_is_named_and_the_rest_is_scored(
    sets: tuple[Path, Path], reason: str
):
    gt, pred = sets
    rules, maps = UNSCORABLE[reason]
    without = evaluate(find_sequences(gt, rules), pred, rules)
    write_packed(gt / "short", maps)
    write_packed(pred / "short", maps)
    sequences = find_sequences(gt, rules)
    found = evaluate(sequences, pred, rules)
    assert (without.unscored, found.unscored) == ([], ["short"])
    assert found.to_json() == {**without.to_json(), "unscored": ["short"]}
    write_packed(pred / "short", [ids[:20] for ids in maps])  # of another size: nobody measures it
    assert measure_quality(sequences, pred, found.sequences).keys() == {"one", "two"}
    write_packed(pred / "short", maps)
    with pytest.raises(ValueError, match=f"short' {reason}"):
        evaluate([s for s in sequences if s.name == "short"], pred, rules)
    strict = replace(rules, strict_official=True)
    with pytest.raises(ValueError, match=f"short' {reason}"):
        evaluate(sequences, pred, strict)


def test_a_sequence_without_any_object_is_named(sets: tuple[Path, Path]):
    gt, pred = sets
    for folder in sets:
        write_packed(folder / "bare", [HERE * 0] * 6)
    sequences = find_sequences(gt, Conventions())
    assert evaluate(sequences, pred, Conventions()).unscored == ["bare"]
    with pytest.raises(ValueError, match="bare' has no object"):
        evaluate([s for s in sequences if s.name == "bare"], pred, Conventions())


@pytest.mark.parametrize(("protocol", "left_out"), [("lvos", [2, 3]), ("youtube-vos", [2])])
def test_an_object_that_appears_too_late_to_count_is_named(
    tmp_path: Path, protocol: str, left_out: list[int]
):
    rules = replace(load_dataset(protocol).conventions, mean_over="objects")
    third = square(3, 0, 40, side=6, on=HERE)  # gone again on the last frame
    write_packed(tmp_path / "gt" / "dog", [HERE, HERE, HERE, HERE, third, BOTH])
    found = evaluate(find_sequences(tmp_path / "gt", rules), tmp_path / "gt", rules)
    assert found.unscored == [f"dog/{i}" for i in left_out]


def test_the_json_has_the_promised_keys(run, sets: tuple[Path, Path], tmp_path: Path):
    gt, pred = sets
    out = tmp_path / "out.json"
    result = run(pred, "--gt", gt, "--protocol", "davis2017", "--json", out, "--per-frame")
    assert result.exit_code == 0, result.stderr
    report = json.loads(out.read_text())
    assert report["global"]["J"] == pytest.approx((1 / 3 + 2) / 3)
    assert report["global"]["J&F"] == (report["global"]["J"] + report["global"]["F"]) / 2
    two = report["sequences"]["two"]
    assert two["J"] == two["objects"]["1"]["F"] == two["objects"]["2"]["J_recall"] == 1
    one = report["sequences"]["one"]["objects"]["1"]
    assert one["frames"] == ["00001", "00002", "00003", "00004"]
    assert one["J_frames"] == pytest.approx([1 / 3] * 4)
    assert one["J_recall"] == one["J_decay"] == 0


def test_table_and_csv_have_a_line_an_object(run, sets: tuple[Path, Path], tmp_path: Path):
    gt, pred = sets
    out = tmp_path / "out.csv"
    result = run(pred, "--gt", gt, "--protocol", "mose", "--csv", out)
    assert result.exit_code == 0, result.stderr
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(r["sequence"], r["object"]) for r in rows] == [
        ("one", "1"),
        ("two", "1"),
        ("two", "2"),
        ("global", ""),
    ]
    assert float(rows[-1]["J"]) == pytest.approx((1 / 3 + 2) / 3)
    assert f"{100 * float(rows[-1]['J']):.1f}" in result.stdout.splitlines()[-1]


def test_youtube_vos_averages_seen_and_unseen_categories(
    run, sets: tuple[Path, Path], tmp_path: Path
):
    gt, pred = sets
    objects = {"one": {"1": "ape"}, "two": {"1": "ape", "2": "yak"}}
    videos = {
        name: {"objects": {i: {"category": c} for i, c in kinds.items()}}
        for name, kinds in objects.items()
    }
    (tmp_path / "meta.json").write_text(json.dumps({"videos": videos}))
    (tmp_path / "train.json").write_text(json.dumps({"videos": {"x": videos["one"]}}))
    arguments = [pred, "--gt", gt, "--protocol", "youtube-vos"]
    assert "--training-meta is needed" in run(*arguments).stderr
    out = tmp_path / "out.json"
    result = run(*arguments, "--training-meta", tmp_path / "train.json", "--json", out)
    assert result.exit_code == 0, result.stderr
    report = json.loads(out.read_text())
    assert report["categories"]["seen"]["J"] == pytest.approx((1 / 3 + 1) / 2)
    assert report["categories"]["unseen"]["J"] == 1
    assert report["global"]["J"] == pytest.approx(((1 / 3 + 1) / 2 + 1) / 2)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ({"other": {"1": "ape"}}, "sequence 'one' has no category in the meta file"),
        ({"one": {"1": "ape"}, "two": {"1": "ape"}}, "object 2 of sequence 'two' has no category"),
        ({"one": {"x": "ape"}}, "meta.json' is no YouTube-VOS meta file: ValueError"),
    ],
)
def test_a_meta_file_that_lacks_what_is_scored_is_named(
    run, sets: tuple[Path, Path], tmp_path: Path, objects: dict[str, dict[str, str]], message: str
):
    videos = {
        name: {"objects": {i: {"category": c} for i, c in kinds.items()}}
        for name, kinds in objects.items()
    }
    (tmp_path / "meta.json").write_text(json.dumps({"videos": videos}))
    (tmp_path / "train.json").write_text('{"videos": {}}')
    words = [sets[1], "--gt", sets[0], "--protocol", "youtube-vos", "--workers", 1]
    result = run(*words, "--training-meta", tmp_path / "train.json")
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]


def test_a_convention_can_be_changed_by_name(run, sets: tuple[Path, Path]):
    gt, pred = sets
    (pred / "one" / "00002.png").unlink()
    arguments = [pred, "--gt", gt, "--protocol", "davis2017"]
    assert "one/00002.png': no such file" in run(*arguments).stderr
    assert run(*arguments, "--convention", "missing_frames=zero").exit_code == 0
    assert "conventions have no 'frame'" in run(*arguments, "--convention", "frame=zero").stderr
    wrong = run(*arguments, "--convention", "missing_frames=none").stderr
    assert "missing_frames must be one of error, zero, skip, got 'none'" in wrong


def test_mistakes_are_told_in_one_line(run, sets: tuple[Path, Path], tmp_path: Path):
    gt, pred = sets
    out = tmp_path / "out.json"
    out.write_text("precious")
    names = tmp_path / "names.txt"
    names.write_text("one\n\none\n")
    plain = [pred, "--gt", gt, "--protocol"]
    for words, message in (
        ([pred, "--gt", gt / "nothing", "--protocol", "sav"], "there is no folder"),
        ([gt / "nothing", "--gt", gt, "--protocol", "sav"], "there is no folder"),
        ([*plain, "davis2018"], "dataset must be one of davis2016, davis2017"),
        ([*plain, "sav", "--json", out], "exists; --overwrite replaces it"),
        ([*plain, "sav", "--csv", tmp_path / "no" / "x.csv"], "there is no folder"),
        ([*plain, "sav", "--sequence-list", names], "has 'one' twice"),
        ([*plain, "sav", "--convention", "void=["], "--convention must be NAME=VALUE"),
        ([*plain, "sav", "--sequence-list", tmp_path / "no"], "no such file"),
    ):
        result = run(*words)
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert out.read_text() == "precious"


def test_every_packaged_data_set_can_be_read():
    assert {"davis2016", "davis2017", "sav", "mose", "youtube-vos", "lvos"} <= set(dataset_names())
    for name in dataset_names():
        assert load_dataset(name).annotations.startswith("Annotations")


def test_a_data_set_of_ones_own_is_a_small_file(tmp_path: Path):
    write_packed(tmp_path / "masks" / "a10", random_maps(0, num_frames=3, num_objects=1))
    write_packed(tmp_path / "masks" / "a9", random_maps(0, num_frames=3, num_objects=1))
    file = tmp_path / "mine.yaml"
    file.write_text("annotations: masks\nconventions: {void: 255}\n")
    found = open_dataset(tmp_path, load_dataset(file))
    assert [s.name for s in found] == ["a9", "a10"]
    assert found[0].truth.void == 255
    assert found[0].frames == tmp_path / "JPEGImages" / "a9"
    file.write_text("anotations: masks\n")
    with pytest.raises(ValueError, match="unknown key 'anotations'"):
        load_dataset(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frames:", "frames must be text, got None"),
        ("sequence_list: [a, b]", r"sequence_list must be text or null, got \['a', 'b'\]"),
        ("per_object: each", "per_object must be true or false, got 'each'"),
        ("conventions: mose", "conventions must hold keys and values, got 'mose'"),
    ],
)
def test_a_value_that_a_data_set_cannot_have_is_named(tmp_path: Path, text: str, message: str):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"mine.yaml'.* {message}"):
        load_dataset(file)


def test_a_list_of_sequences_may_have_blank_lines(tmp_path: Path):
    file = tmp_path / "val.txt"
    file.write_text("bear\n\n camel \n")
    assert read_sequence_list(file) == ["bear", "camel"]


def test_a_list_may_begin_with_the_mark_that_windows_editors_write(tmp_path: Path):
    file = tmp_path / "val.txt"
    file.write_text("bear\r\ncamel\r\n", encoding="utf-8-sig")
    assert read_sequence_list(file) == ["bear", "camel"]


def test_a_list_of_davis_2016_has_a_line_a_frame(tmp_path: Path):
    file = tmp_path / "val.txt"
    file.write_text(
        "".join(
            f"/JPEGImages/480p/{name}/{i:05d}.jpg /Annotations/480p/{name}/{i:05d}.png \n"
            for name in ("bear", "camel")
            for i in range(3)
        )
    )
    assert read_sequence_list(file) == ["bear", "camel"]


def test_object_folders_are_numbers_that_differ(tmp_path: Path):
    for name in ("1", "001"):
        write_packed(tmp_path / "a" / "s" / name, [np.ones((4, 5), dtype=np.uint8)] * 3)
    with pytest.raises(ValueError, match="are the same object"):
        evaluate(find_sequences(tmp_path / "a", Conventions()), tmp_path / "a", Conventions())
    write_packed(tmp_path / "b" / "s" / "cat", [np.ones((4, 5), dtype=np.uint8)] * 3)
    with pytest.raises(ValueError, match="must be named by a number"):
        evaluate(find_sequences(tmp_path / "b", Conventions()), tmp_path / "b", Conventions())


def test_a_folder_of_ones_own_needs_no_official_list(tmp_path: Path, caplog):
    for name in ("bear", "camel"):
        write_packed(tmp_path / "Annotations/480p" / name, [square(1, 10, 10)] * 2)
        (tmp_path / "JPEGImages/480p" / name).mkdir(parents=True)
    davis = load_dataset("davis2017")
    assert [one.name for one in open_dataset(tmp_path, davis)] == ["bear", "camel"]
    assert "taking every sequence" in caplog.text
    official = tmp_path / "ImageSets/2017/val.txt"
    official.parent.mkdir(parents=True)
    official.write_text("camel\n")
    assert [one.name for one in open_dataset(tmp_path, davis)] == ["camel"]
