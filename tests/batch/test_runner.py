"""A data set is tracked whole: what is written, what is skipped, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sam2_hq.batch.folders import RunFolder
from sam2_hq.batch.runner import run_dataset
from sam2_hq.batch.scores import score_run
from sam2_hq.data.masks import read_id_map
from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import Dataset
from sam2_hq.model_spec import ModelSpec
from tests.batch.sets import NUM_FRAMES, corner, disc_ids, files, job, write_sequence
from tests.evaluation.folders import write_per_object
from tests.toy import SIZE, toy_predictor

LATE = {0: corner(1, left=True), 3: corner(2, left=False)}


def frames_and_first_mask(root: Path, name: str) -> tuple[str, np.ndarray[Any, Any]]:
    first = read_id_map(root / "Annotations" / name / "00000.png")
    return str(root / "JPEGImages" / name), first


def test_masks_are_those_of_the_predictor(root: Path, out: Path, model: ModelSpec):
    summary = run_dataset(job(root, out, model, names=("bee",)))
    frames, first = frames_and_first_mask(root, "bee")
    predictor = toy_predictor()
    state = predictor.init_state(frames)
    for object_id in (1, 3):
        predictor.add_new_mask(state, 0, object_id, first == object_id)
    for frame, ids, masks in predictor.propagate_in_video(state):
        logits = torch.cat([torch.zeros_like(masks[:1]), masks])[:, 0]
        expected = np.array([0, *ids])[logits.argmax(dim=0)]
        assert (read_id_map(out / "bee" / f"{frame:05d}.png") == expected).all()
    (record,) = summary.records
    assert (record.status, record.frames, record.objects) == ("done", NUM_FRAMES, 2)
    assert record.seconds > 0
    assert record.peak_rss_bytes > 50e6


SAID = {
    "box": {"box": [60, 40, 74, 54]},
    "click": {"points": [[67, 47]], "labels": [1]},
}


@pytest.mark.parametrize("prompt", SAID)
def test_an_object_can_be_given_by_what_a_user_would_say(
    tmp_path: Path, out: Path, model: ModelSpec, prompt: str
):
    square = np.zeros(SIZE, dtype=np.uint8)
    square[40:55, 60:75] = 5
    write_sequence(tmp_path / "set", "dog", masks={0: square})
    run_dataset(job(tmp_path / "set", out, model, prompt=prompt))
    predictor = toy_predictor()
    state = predictor.init_state(str(tmp_path / "set/JPEGImages/dog"))
    predictor.add_new_points_or_box(state, 0, 5, **SAID[prompt])
    for frame, _, masks in predictor.propagate_in_video(state):
        expected = (masks[0, 0] > 0).numpy() * 5
        assert (read_id_map(out / "dog" / f"{frame:05d}.png") == expected).all()


def test_objects_that_appear_late_join_on_their_frame(tmp_path: Path, model: ModelSpec):
    write_sequence(tmp_path / "set", "dog", masks=LATE)
    run_dataset(job(tmp_path / "set", tmp_path / "late", model))
    run_dataset(
        job(tmp_path / "set", tmp_path / "first", model, dataset=Dataset(late_objects=False))
    )
    late, first = (
        [
            set(np.unique(read_id_map(file))) - {0}
            for file in sorted((tmp_path / o / "dog").iterdir())
        ]
        for o in ("late", "first")
    )
    assert len(late) == len(first) == NUM_FRAMES
    assert all(2 not in ids for ids in [*late[:3], *first])
    assert 2 in late[3]


def test_frames_before_the_first_object_get_empty_masks(tmp_path: Path, model: ModelSpec):
    write_sequence(tmp_path / "set", "dog", masks={2: corner(1, left=True)})
    run_dataset(job(tmp_path / "set", tmp_path / "out", model))
    masks = [read_id_map(file) for file in sorted((tmp_path / "out/dog").iterdir())]
    assert len(masks) == NUM_FRAMES
    assert [mask.any() for mask in masks[:3]] == [False, False, True]


def test_one_folder_an_object_has_every_frame_and_keeps_overlaps(tmp_path: Path, model: ModelSpec):
    write_sequence(tmp_path / "set", "dog", masks=LATE)
    # Logits above -1000 are everywhere, so both objects cover the picture.
    flood = job(
        tmp_path / "set", tmp_path / "out", model,
        dataset=Dataset(per_object=True), score_threshold=-1000.0,
    )  # fmt: skip
    run_dataset(flood)
    folders = {folder.name: sorted(folder.iterdir()) for folder in (tmp_path / "out/dog").iterdir()}
    assert {name: len(masks) for name, masks in folders.items()} == {"001": 6, "002": 6}
    areas = {name: [int(read_id_map(m).sum()) for m in masks] for name, masks in folders.items()}
    everything = SIZE[0] * SIZE[1]
    assert areas == {"001": [everything] * 6, "002": [0] * 3 + [everything] * 3}


def test_an_object_that_is_not_tracked_has_empty_masks_in_its_folder(
    tmp_path: Path, model: ModelSpec
):
    write_sequence(tmp_path / "set", "dog", masks={})
    maps = [LATE[0]] * 3 + [LATE[3]] * 3
    write_per_object(tmp_path / "set/Annotations/dog", maps, [1, 2, 3])  # 3 never appears
    for late, untracked in ((True, None), (False, [2, 3])):
        mine = job(
            tmp_path / "set", tmp_path / f"out-{late}", model,
            dataset=Dataset(per_object=True, late_objects=late),
        )  # fmt: skip
        summary = run_dataset(mine)
        assert summary.records[0].untracked == untracked
        for object_id in untracked or [3]:
            masks = list((mine.out / f"dog/{object_id:03d}").iterdir())
            assert len(masks) == NUM_FRAMES
            assert not any(read_id_map(mask).any() for mask in masks)
        scores = score_run(mine, summary, "mine").to_json()["sequences"]["dog"]["objects"]
        # Frames 1 to 4 count; on two of them object 2 is nowhere.
        assert (scores["2"]["J"] == 0.5) if untracked else (scores["2"]["J"] > 0.5)


def test_packed_masks_cannot_hold_object_0(tmp_path: Path, model: ModelSpec):
    write_sequence(tmp_path / "set", "dog", masks={})
    maps = [corner(1, left=True)]
    write_per_object(tmp_path / "set/Annotations/dog", maps, [0, 1])
    packed = run_dataset(job(tmp_path / "set", tmp_path / "packed", model))
    assert "object 0, a packed mask holds 1 to 255" in packed.failed[0].error
    layout = Dataset(per_object=True)
    assert not run_dataset(job(tmp_path / "set", tmp_path / "out", model, dataset=layout)).failed
    assert {p.name for p in (tmp_path / "out/dog").iterdir()} == {"000", "001"}


def test_void_is_no_object(tmp_path: Path, model: ModelSpec):
    ids = disc_ids(0, 1)
    ids[ids == 3] = 255
    write_sequence(tmp_path / "set", "dog", masks={0: ids})
    layout = Dataset(conventions=Conventions(void=255))
    (record,) = run_dataset(job(tmp_path / "set", tmp_path / "out", model, dataset=layout)).records
    assert record.objects == 1


def test_a_failing_sequence_does_not_stop_the_rest_and_is_tried_again(
    root: Path, tmp_path: Path, out: Path, model: ModelSpec
):
    mine = tmp_path / "set"
    shutil.copytree(root, mine)
    picture = mine / "JPEGImages/bee/00004.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    summary = run_dataset(job(mine, out, model))
    assert [record.status for record in summary.records] == ["done", "failed", "done"]
    told = RunFolder(out).manifest.read()["bee"]
    assert "00004.jpg" in told.error
    assert "Traceback" in told.traceback
    assert sorted(p.name for p in out.iterdir()) == [
        "ant",
        "cat",
        "manifest.jsonl",
        "settings.json",
    ]
    picture.write_bytes(whole)
    before = files(out)
    again = run_dataset(job(mine, out, model))
    assert (again.num_skipped, again.failed) == (2, [])
    assert {k: v for k, v in files(out).items() if not k.startswith("bee/")} == before
    assert RunFolder(out).manifest.read()["bee"].status == "done"


def test_a_sequence_without_a_first_mask_fails_by_name(
    root: Path, tmp_path: Path, out: Path, model: ModelSpec
):
    write_sequence(tmp_path / "set", "dog", masks={0: np.zeros(SIZE, dtype=np.uint8)})
    (record,) = run_dataset(job(tmp_path / "set", out, model)).failed
    assert "dog' has no object on any frame" in record.error


def test_what_is_done_is_not_done_again(root: Path, out: Path, model: ModelSpec):
    run_dataset(job(root, out, model, names=("ant",)))
    stamp = (out / "ant/00000.png").stat().st_mtime_ns
    summary = run_dataset(job(root, out, model))
    assert summary.num_skipped == 1
    assert (out / "ant/00000.png").stat().st_mtime_ns == stamp
    assert [record.name for record in summary.records] == ["ant", "bee", "cat"]


def test_a_result_that_a_kill_kept_from_appearing_is_made(root: Path, out: Path, model: ModelSpec):
    run_dataset(job(root, out, model, names=("ant",)))
    expected = files(out)
    (out / "ant").rename(out / ".ant.00c0ffee.partial")
    run_dataset(job(root, out, model, names=("ant",)))
    assert files(out) == expected
    assert sorted(p.name for p in out.iterdir()) == ["ant", "manifest.jsonl", "settings.json"]


def test_a_result_that_was_half_removed_is_made_again(
    root: Path, out: Path, model: ModelSpec, monkeypatch: pytest.MonkeyPatch
):
    run_dataset(job(root, out, model))
    expected = files(out)
    removed: list[str] = []
    unlink = os.unlink

    def removes_three(name: Any, **where: Any) -> None:
        if str(name).endswith(".png"):
            if len(removed) == 3:
                raise KeyboardInterrupt
            removed.append(name)
        unlink(name, **where)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", removes_three)
        with pytest.raises(KeyboardInterrupt):
            run_dataset(job(root, out, model), overwrite=True)
    summary = run_dataset(job(root, out, model))
    assert summary.num_skipped == 2
    assert files(out) == expected
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"prompt": "box"}, "prompt"),
        ({"score_threshold": 1.0}, "score_threshold"),
        ({"dataset": Dataset(late_objects=False)}, "late_objects"),
        ({"hq_mode": "off"}, "hq_mode"),
        ({"overrides": ("++model.fill_hole_area=3",)}, "overrides"),
    ],
)
def test_results_of_other_settings_are_not_mixed(
    root: Path, out: Path, model: ModelSpec, changes: dict[str, Any], key: str
):
    run_dataset(job(root, out, model, names=("ant",)))
    before = files(out)
    if key in ("hq_mode", "overrides"):
        changes = {"names": ("ant",)} | {"model": replace(model, **changes)}
    other = replace(job(root, out, model), **changes)
    with pytest.raises(ValueError, match=f"has results with {key} .*--overwrite"):
        run_dataset(other)
    assert files(out) == before
    summary = run_dataset(replace(other, names=("bee",)), overwrite=True)
    assert summary.num_skipped == 0
    assert not (out / "ant").exists()


def test_a_checkpoint_is_known_by_its_content(
    root: Path, tmp_path: Path, out: Path, model: ModelSpec
):
    mine = tmp_path / "last.safetensors"
    shutil.copy(model.checkpoint, mine)
    spec = replace(model, checkpoint=str(mine))
    run_dataset(job(root, out, spec, names=("ant",)))
    with mine.open("ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match="has results with checkpoint_sha256"):
        run_dataset(job(root, out, spec, names=("ant",)))


def test_a_config_is_known_by_its_content_and_not_by_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.yaml"
    mine.write_text("defaults: [/sam2.1/sam2.1_hq_hiera_n, _self_]\n")
    near, far = (ModelSpec(config=path).identity() for path in ("mine.yaml", str(mine)))
    assert near == far
    with mine.open("a") as file:
        file.write("model: {num_maskmem: 3}\n")
    assert ModelSpec(config="mine.yaml").identity()["config_sha256"] != near["config_sha256"]


def test_a_bundled_checkpoint_is_known_by_its_content_too():
    by_name, by_default = ModelSpec("sam2.1_hq_hiera_nano").identity(), ModelSpec().identity()
    assert by_name["checkpoint_sha256"] == by_default["checkpoint_sha256"] is not None


def test_a_published_checkpoint_is_known_by_its_content_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetched = tmp_path / "sam2_hq" / "sam2.1_hiera_tiny.pt"
    fetched.parent.mkdir()
    digests = []
    for content in (b"first", b"second"):
        fetched.write_bytes(content)
        digests.append(ModelSpec("sam2.1_hiera_tiny").identity()["checkpoint_sha256"])
    assert digests == [hashlib.sha256(content).hexdigest() for content in (b"first", b"second")]


def test_a_folder_with_a_checkpoint_is_known_by_its_content_too(tmp_path: Path):
    (tmp_path / "mine.safetensors").write_bytes(b"some")
    known = ModelSpec(str(tmp_path)).identity()
    assert known["checkpoint_sha256"] == hashlib.sha256(b"some").hexdigest()


def test_settings_say_what_was_asked_for(root: Path, out: Path, model: ModelSpec):
    run_dataset(job(root, out, model, names=("ant",)))
    settings = json.loads((out / "settings.json").read_text())
    assert settings["config"] == Path(model.config or "").name
    assert settings["prompt"] == "mask"


def no_annotations(root: Path, out: Path) -> None:
    shutil.rmtree(root / "Annotations")


def no_frames_of_one(root: Path, out: Path) -> None:
    shutil.rmtree(root / "JPEGImages/bee")


def a_file_as_output(root: Path, out: Path) -> None:
    out.write_text("x")


def files_of_others(root: Path, out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("x")


def nothing(root: Path, out: Path) -> None:
    pass


Case = tuple[Callable[[Path, Path], None], dict[str, Any], str]
REFUSED: dict[str, Case] = {
    "no annotations": (no_annotations, {}, "annotations: there is no folder"),
    "no masks of one": (nothing, {"names": ("fox",)}, "'fox' has no annotations"),
    "no frames of one": (no_frames_of_one, {}, "'bee' has no frames in"),
    "a name twice": (nothing, {"names": ("ant", "ant")}, "names has 'ant' twice"),
    "a path as a name": (nothing, {"names": ("../Annotations/ant",)}, "name of one folder"),
    "an unknown prompt": (nothing, {"prompt": "word"}, "prompt must be one of mask, box"),
    "a file as output": (a_file_as_output, {}, "out must be a folder"),
    "files of others": (files_of_others, {}, "holds files, but no run"),
    "no checkpoint": (nothing, {"model": ModelSpec("nothing.pt")}, r"no checkpoint nothing\.pt"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_mistake_is_refused_before_anything_is_written(
    root: Path, tmp_path: Path, out: Path, model: ModelSpec, case: str, overwrite: bool
):
    change, changes, message = REFUSED[case]
    mine = tmp_path / "set"
    shutil.copytree(root, mine)
    change(mine, out)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_dataset(job(mine, out, **{"model": model} | changes), overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_the_way_is_not_replaced(root: Path, out: Path, model: ModelSpec):
    run_dataset(job(root, out, model, names=("ant",)))
    (out / "bee").mkdir()
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="bee' is in the way"):
            run_dataset(job(root, out, model), overwrite=overwrite)


def test_a_model_that_does_not_open_leaves_an_earlier_run_as_it_is(
    root: Path, out: Path, model: ModelSpec
):
    run_dataset(job(root, out, model, names=("ant",)))
    before = files(out)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        run_dataset(job(root, out, ModelSpec("nothing.pt")), overwrite=True)
    assert files(out) == before


def test_a_second_run_into_the_same_folder_is_refused(root: Path, out: Path, model: ModelSpec):
    mine = job(root, out, model, names=("bee",))
    with RunFolder(out).held(), pytest.raises(ValueError, match="another run is writing into"):
        run_dataset(mine)
    assert not out.exists()
    summary = run_dataset(mine)
    before = files(out)
    with RunFolder(out).held(), pytest.raises(ValueError, match="another run is writing into"):
        score_run(mine, summary, "davis2017")
    assert files(out) == before
