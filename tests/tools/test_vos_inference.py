"""The published script's flags and folders."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2_hq.batch.runner import run_dataset
from sam2_hq.data.masks import davis_palette, read_id_map
from sam2_hq.model_spec import ModelSpec
from tests.batch.sets import corner, files, job, write_model, write_sequence
from tests.evaluation.folders import write_per_object
from tests.toy import SIZE

SCRIPT = Path(__file__).parents[2] / "tools" / "vos_inference.py"
LATE = {0: corner(1, left=True), 3: corner(2, left=False)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def track(
    tmp_path: Path, model: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, bytes]]:
    """Run the script on `tmp_path/set` with more flags; the masks it wrote."""

    def run(*flags: Any) -> dict[str, bytes]:
        told = {
            "--sam2_cfg": model.config,
            "--sam2_checkpoint": model.checkpoint,
            "--base_video_dir": tmp_path / "set/JPEGImages",
            "--input_mask_dir": tmp_path / "set/Annotations",
            "--output_mask_dir": tmp_path / "out",
            "--device": "cpu",
        }
        words = [str(word) for pair in told.items() for word in pair]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words, *map(str, flags)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return files(tmp_path / "out")

    return run


def test_masks_are_those_of_the_runner_in_the_davis_palette(
    track, tmp_path: Path, model: ModelSpec
):
    write_sequence(tmp_path / "set", "dog")
    written = track()
    run_dataset(job(tmp_path / "set", tmp_path / "runner", model))
    assert written == files(tmp_path / "runner")
    from PIL import Image

    with Image.open(tmp_path / "out/dog/00000.png") as image:
        assert image.mode == "P"
        palette = image.getpalette()
    assert palette == davis_palette().ravel().tolist()


def test_late_objects_are_tracked_on_request_and_else_named(track, tmp_path: Path, capsys):
    write_sequence(tmp_path / "set", "dog", masks=LATE)
    for flags, ids in (([], [1]), (["--track_object_appearing_later_in_video"], [1, 2])):
        written = track(*flags, "--overwrite")
        assert len(written) == 6
        assert set(np.unique(read_id_map(tmp_path / "out/dog/00003.png"))) == {0, *ids}
        told = "appear later and were not tracked: dog/2"
        assert (told in capsys.readouterr().err) == (2 not in ids)


def test_one_folder_an_object_is_read_and_written_with_three_digits(track, tmp_path: Path):
    write_sequence(tmp_path / "set", "dog", masks={})
    folder = tmp_path / "set/Annotations/dog"
    write_per_object(folder, [corner(7, left=True)], [7])
    (folder / "007").rename(folder / "7")
    assert sorted(track("--per_obj_png_file")) == [f"dog/007/{i:05d}.png" for i in range(6)]
    assert set(np.unique(read_id_map(tmp_path / "out/dog/007/00000.png"))) == {0, 1}


def test_every_mask_can_be_a_prompt(track, tmp_path: Path):
    moved = {0: corner(1, left=True), 4: corner(1, left=False)}
    write_sequence(tmp_path / "set", "dog", masks=moved)
    first = track()
    every = track("--use_all_masks", "--overwrite")
    assert first["dog/00000.png"] == every["dog/00000.png"]
    # As published, a mask given on a later frame is attended to before that frame comes.
    assert first["dog/00003.png"] != every["dog/00003.png"]
    assert first["dog/00004.png"] != every["dog/00004.png"]
    # A painted mask is the answer of its frame, up to the stretch to model pixels and back.
    agree = read_id_map(tmp_path / "out/dog/00004.png") == moved[4]
    assert agree.mean() > 0.97


def test_a_list_chooses_and_a_threshold_floods(track, tmp_path: Path):
    for name in ("ant", "bee"):
        write_sequence(tmp_path / "set", name, num_frames=3)
    chosen = tmp_path / "list.txt"
    chosen.write_text("bee\n\n")
    written = track("--video_list_file", chosen, "--score_thresh", "-1000")
    assert sorted(written) == [f"bee/{i:05d}.png" for i in range(3)]
    assert read_id_map(tmp_path / "out/bee/00002.png").all()


def test_void_can_be_named(track, tmp_path: Path):
    ids = corner(1, left=True)
    ids[:10] = 255
    write_sequence(tmp_path / "set", "dog", num_frames=2, masks={0: ids})
    track()
    assert (read_id_map(tmp_path / "out/dog/00000.png") == 255).any()
    track("--void", 255, "--overwrite")
    assert not (read_id_map(tmp_path / "out/dog/00000.png") == 255).any()


def test_postprocessing_is_off_unless_asked_for(track, tmp_path: Path):
    write_sequence(tmp_path / "set", "dog", num_frames=2)
    track()
    with pytest.raises(SystemExit) as stop:
        track("--apply_postprocessing")
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--base_video_dir", "nowhere"], "--base_video_dir: there is no folder 'nowhere'"),
        (["--input_mask_dir", "nowhere"], "annotations: there is no folder"),
        (["--sam2_checkpoint", "nothing.pt"], "there is no checkpoint nothing.pt"),
        (["--hq_mode", "on"], "hq_mode must be one of"),
    ],
)
def test_a_mistake_is_one_line(track, tmp_path: Path, capsys, flags: list[str], message: str):
    write_sequence(tmp_path / "set", "dog", num_frames=2)
    with pytest.raises(SystemExit) as stop:
        track(*flags)
    assert stop.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("vos_inference: ")
    assert message in last


def test_a_failing_video_is_named_and_the_exit_code_tells(track, tmp_path: Path, capsys):
    write_sequence(tmp_path / "set", "dog", num_frames=2)
    write_sequence(tmp_path / "set", "eel", num_frames=2, masks={0: np.zeros(SIZE, dtype=np.uint8)})
    with pytest.raises(SystemExit) as stop:
        track()
    assert stop.value.code == 1
    assert "'eel' failed" in capsys.readouterr().err
    assert len(files(tmp_path / "out")) == 2
