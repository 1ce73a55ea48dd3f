"""Validation numbers are those of the evaluation, on what a recipe names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_hq.data.masks import write_id_map
from sam2_hq.evaluation.datasets import find_sequences, load_dataset
from sam2_hq.training import validate
from sam2_hq.training.config import DataOptions, FolderOptions, PackOptions, TrainingConfig
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.still_readers import HQSEG_VALIDATION_FOLDERS
from sam2_hq.training.trainer import Phase, TrainerOptions
from sam2_hq.training.validate import (
    AnnotatedClip,
    make_validation,
    validate_clips,
    validate_stills,
)
from tests.toy import disc_mask, masks_by_frame, toy_clip, toy_predictor
from tests.training import toy_packs
from tests.training.scenes import toy_model

NUM_FRAMES = 4
DAVIS = load_dataset("davis2017")
STILL_NUMBERS = {"iou_box", "boundary_iou_box", "iou_click_1", "iou_click_3"}
STEPS = TrainerOptions(phases=(Phase(1.0, 64, 2),), num_steps=4, validate_steps=2)


def write_clip(root: Path) -> Path:
    """A folder in DAVIS layout with one video of a disc."""
    images, masks = root / "JPEGImages" / "disc", root / "Annotations" / "disc"
    for folder in (images, masks):
        folder.mkdir(parents=True)
    for number, frame in enumerate(toy_clip(NUM_FRAMES)):
        Image.fromarray(frame).save(images / f"{number:05d}.png")
        write_id_map(masks / f"{number:05d}.png", disc_mask(number).astype(np.uint8))
    return root


def recipe(**data) -> TrainingConfig:
    clips = {"num_frames": 3, "still_share": 0.0}
    return TrainingConfig("video", DataOptions(**clips, **data), STEPS)


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    return (mask & truth).sum() / (mask | truth).sum()


def test_clips_are_measured_as_davis_measures_them(tmp_path) -> None:
    root, model = write_clip(tmp_path), toy_predictor()
    sequences = find_sequences(root / "Annotations", DAVIS.conventions, frames=root / "JPEGImages")
    numbers = validate_clips(model, [AnnotatedClip(sequences[0], DAVIS)], SampleLog())
    state = model.init_state(str(root / "JPEGImages" / "disc"))
    model.add_new_mask(state, 0, 1, disc_mask(0))
    found = masks_by_frame(model.propagate_in_video(state))
    # DAVIS leaves the first and the last frame out.
    inner = [overlap(found[i][0, 0].numpy() > 0, disc_mask(i)) for i in range(1, NUM_FRAMES - 1)]
    assert numbers["j"] == pytest.approx(np.mean(inner))
    assert numbers["j_and_f"] == pytest.approx((numbers["j"] + numbers["f"]) / 2)


def test_pictures_are_asked_by_box_and_clicks() -> None:
    truth = toy_packs.disc(48, 64, 30, 20, 12)
    still = ("a", toy_packs.painted(truth), [truth])
    scores = validate_stills(toy_model().eval(), [still])
    assert set(scores) == STILL_NUMBERS
    assert all(0 <= value <= 1 for value in scores.values())
    with pytest.raises(ValueError, match="masks"):
        validate_stills(toy_model().eval(), [(*still[:2], [])])


def test_a_recipe_names_packs_and_folders_to_validate_on(tmp_path) -> None:
    toy_packs.photos(tmp_path / "photos_val.zip")
    root = write_clip(tmp_path / "videos")
    train = recipe(
        packs=PackOptions(str(tmp_path)), validation=(FolderOptions("davis", str(root)),)
    )
    numbers = make_validation(train, SampleLog())(toy_predictor())
    assert set(numbers) == STILL_NUMBERS | {"j_and_f", "j", "f"}
    assert all(0 <= value <= 1 for value in numbers.values())


def test_folders_of_pictures_are_measured_by_boxes_and_clicks(tmp_path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    truth = toy_packs.disc(48, 64, 30, 20, 12)
    for name in ("a", "b"):
        Image.fromarray(toy_packs.painted(truth)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(truth.astype(np.uint8) * np.uint8(255)).save(
            tmp_path / "masks" / f"{name}.png"
        )
    folder = FolderOptions("images_masks", str(tmp_path))
    validate = make_validation(recipe(folders=(folder,), validation=(folder,)), SampleLog())
    model = toy_model().eval()
    alone = validate_stills(model, [("a", toy_packs.painted(truth), [truth])])
    assert validate(model) == pytest.approx(alone)
    (tmp_path / "masks" / "b.png").write_bytes(b"torn")
    log = SampleLog()
    make_validation(recipe(folders=(folder,), validation=(folder,)), log)(model)
    assert [name.rpartition("/")[2] for name in log.names] == ["b.png"]


def test_hqseg_is_measured_on_the_four_sets_that_hq_sam_is_measured_on(tmp_path) -> None:
    for images, masks in HQSEG_VALIDATION_FOLDERS.values():
        for folder in (images, masks):
            (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(toy_clip(1)[0]).save(tmp_path / images / "a.jpg")
        Image.fromarray(disc_mask(0).astype(np.uint8) * np.uint8(255)).save(
            tmp_path / masks / "a.png"
        )
    folder = (FolderOptions("hqseg44k", str(tmp_path)),)
    train = recipe(folders=folder, validation=folder)  # the training sets are not there
    assert set(make_validation(train, SampleLog())(toy_predictor())) == STILL_NUMBERS


def test_a_bad_video_is_named_and_the_others_are_measured(tmp_path) -> None:
    folders = [write_clip(tmp_path / name) for name in ("good", "same", "bad", "short")]
    for mask in (folders[2] / "Annotations" / "disc").iterdir():
        mask.write_bytes(b"torn")
    for number in range(2, NUM_FRAMES):  # two frames: DAVIS counts neither the first nor the last
        (folders[3] / "Annotations" / "disc" / f"{number:05d}.png").unlink()
        (folders[3] / "JPEGImages" / "disc" / f"{number:05d}.png").unlink()
    model, log = toy_predictor(), SampleLog()
    measured = [
        make_validation(recipe(folders=chosen, validation=chosen), log)(model)
        for chosen in (
            tuple(FolderOptions("davis", str(folder)) for folder in chosen)
            for chosen in (folders[:1], folders)
        )
    ]
    assert measured[0] == pytest.approx(measured[1])
    assert log.counts == {"disc": 2}


def test_masks_of_black_and_white_are_one_object(tmp_path) -> None:
    root = write_clip(tmp_path)
    ids = FolderOptions("davis", str(root))
    by_id = make_validation(recipe(folders=(ids,), validation=(ids,)), SampleLog())(toy_predictor())
    for number in range(NUM_FRAMES):
        white = disc_mask(number).astype(np.uint8) * np.uint8(255)
        Image.fromarray(white).save(root / "Annotations" / "disc" / f"{number:05d}.png")
    log = SampleLog()
    found = make_validation(recipe(folders=(ids,), validation=(ids,)), log)(toy_predictor())
    assert found == pytest.approx(by_id)
    assert not log.count


def test_a_video_whose_objects_come_late_keeps_its_ids(tmp_path) -> None:
    root = write_clip(tmp_path)
    nobody = np.zeros(disc_mask(0).shape, np.uint8)
    write_id_map(root / "Annotations" / "disc" / "00000.png", nobody)
    folder, log = FolderOptions("youtube_vos", str(root)), SampleLog()
    found = make_validation(recipe(folders=(folder,), validation=(folder,)), log)(toy_predictor())
    assert set(found) == {"j_and_f", "j", "f"}
    assert not log.count


def test_the_memory_stage_is_measured_as_the_model_shows_its_masks(tmp_path, monkeypatch) -> None:
    folder = FolderOptions("davis", str(write_clip(tmp_path)))
    asked = []
    monkeypatch.setattr(validate, "validate_clips", lambda *_, hq_mode: asked.append(hq_mode) or {})
    for stage in ("video", "memory"):
        train = replace(recipe(folders=(folder,), validation=(folder,)), stage=stage)
        make_validation(train, SampleLog())(toy_predictor())
    assert asked == ["off", "correct"]


def test_pictures_without_a_usable_mask_are_refused_at_the_start(tmp_path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    Image.fromarray(toy_clip(1)[0]).save(tmp_path / "images" / "a.png")
    (tmp_path / "masks" / "a.png").write_bytes(b"torn")
    folder = FolderOptions("images_masks", str(tmp_path))
    with pytest.raises(ValueError, match=r"no picture in '.*images' can be used"):
        make_validation(recipe(folders=(folder,), validation=(folder,)), SampleLog())


def test_the_hq_stage_is_measured_with_its_hq_masks(tmp_path) -> None:
    toy_packs.photos(tmp_path / "photos_val.zip")
    plain = recipe(packs=PackOptions(str(tmp_path)))
    model = toy_predictor()
    before, after = (
        make_validation(train, SampleLog())(model) for train in (plain, replace(plain, stage="hq"))
    )
    assert set(after) == STILL_NUMBERS | {f"{name}_off" for name in STILL_NUMBERS}
    assert {name: after[f"{name}_off"] for name in STILL_NUMBERS} == before
    assert {name: after[name] for name in STILL_NUMBERS} != before


def test_videos_are_scored_as_the_benchmark_of_their_layout_scores_them(tmp_path) -> None:
    root, model = write_clip(tmp_path), toy_predictor()
    found = []
    for layout in ("davis", "youtube_vos"):
        folder = (FolderOptions(layout, str(root)),)
        found.append(make_validation(recipe(folders=folder, validation=folder), SampleLog())(model))
    state = model.init_state(str(root / "JPEGImages" / "disc"))
    model.add_new_mask(state, 0, 1, disc_mask(0))
    masks = masks_by_frame(model.propagate_in_video(state))
    # YouTube-VOS counts the last frame, DAVIS does not.
    for numbers, last in zip(found, (NUM_FRAMES - 1, NUM_FRAMES), strict=True):
        wanted = [overlap(masks[i][0, 0].numpy() > 0, disc_mask(i)) for i in range(1, last)]
        assert numbers["j"] == pytest.approx(np.mean(wanted))


def test_nothing_to_validate_on_is_said(tmp_path) -> None:
    folder = FolderOptions("images_masks", str(tmp_path))
    with pytest.raises(ValueError, match=r"validate_steps needs .*photos_val or .*validation"):
        make_validation(recipe(folders=(folder,)), SampleLog())


def test_masklets_in_json_cannot_be_validated_on(tmp_path) -> None:
    frames = tmp_path / "JPEGImages_24fps" / "a"
    frames.mkdir(parents=True)
    Image.fromarray(toy_clip(1)[0]).save(frames / "00000.jpg")
    (tmp_path / "Annotations_6fps").mkdir()
    (tmp_path / "Annotations_6fps" / "a_manual.json").write_text('{"masklet": [[]]}')
    folder = FolderOptions("sav", str(tmp_path))
    with pytest.raises(ValueError, match="masks as pictures"):
        make_validation(recipe(folders=(folder,), validation=(folder,)), SampleLog())


def test_a_model_that_cannot_track_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a video predictor"):
        validate_clips(object(), [], SampleLog())  # type: ignore[arg-type]
