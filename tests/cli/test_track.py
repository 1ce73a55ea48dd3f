from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from sam2_hq.cli.track_job import SessionKeeper
from sam2_hq.data.frames import open_frames
from sam2_hq.data.masks import read_id_map
from sam2_hq.data.video import VideoWriter
from sam2_hq.ops.rle import rle_to_mask
from tests.batch.sets import write_model

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH = 48, 64
BOX = ("--box", "1:4,8,24,28")
SMALL = ("--override", "++model.image_size=128")
NAMES = [f"shot_{index + 8}" for index in range(5)]


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in written(folder)}


def last_line(stderr: str) -> str:
    return stderr.strip().splitlines()[-1]


def test_a_run_writes_masks_scores_and_an_overlay(run, clip: Path, out: Path):
    result = run(
        "track", clip, "-o", out, *SMALL, *BOX, "--point", "7@2:45,33", "--rle", "--per-object"
    )
    assert result.exit_code == 0, result.stderr
    objects = {f"objects/{key:03d}/{name}.png" for key in (1, 7) for name in NAMES}
    masks = {f"masks/{name}.png" for name in NAMES}
    assert written(out) == masks | objects | {"tracks.json", "masks.json", "overlay.mp4"}

    tracks = json.loads((out / "tracks.json").read_text())
    lengths = json.loads((out / "masks.json").read_text())
    assert [(row["index"], row["name"]) for row in tracks["frames"]] == list(enumerate(NAMES))
    for row, rle_row, name in zip(tracks["frames"], lengths["frames"], NAMES, strict=True):
        id_map = read_id_map(out / "masks" / f"{name}.png")
        assert id_map.shape == (HEIGHT, WIDTH)
        union = np.zeros((HEIGHT, WIDTH), bool)
        for key, scores in row["objects"].items():
            mask = read_id_map(out / "objects" / f"{int(key):03d}" / f"{name}.png") > 0
            np.testing.assert_array_equal(rle_to_mask(rle_row["objects"][key]), mask)
            assert scores["area"] == mask.sum()
            assert scores["present"] == (scores["object_score"] > 0)
            assert 0 <= scores["iou"] <= 1
            assert 0 <= scores["hq_disagreement"] <= 1
            check_box(scores["bbox"], mask)
            assert not (id_map == int(key))[~mask].any()
            union |= mask
        np.testing.assert_array_equal(id_map > 0, union)


def check_box(box: list[int] | None, mask: np.ndarray) -> None:
    if box is None:
        assert not mask.any()
        return
    x, y, width, height = box
    inside = mask[y : y + height, x : x + width]
    assert inside.sum() == mask.sum()
    assert inside[0].any()
    assert inside[-1].any()
    assert inside[:, 0].any()
    assert inside[:, -1].any()


def test_decord_gives_the_model_the_published_frames(run, tmp_path: Path, out: Path):
    pytest.importorskip("decord")
    video = tmp_path / "a.mp4"
    with VideoWriter(video, 25, (HEIGHT, WIDTH)) as writer:
        for shade in range(0, 120, 30):
            writer.write(np.full((HEIGHT, WIDTH, 3), shade, np.uint8))
    command = ("track", video, "-o", out, *SMALL, *BOX, "--no-overlay")
    result = run(*command, "--decoder", "decord")
    assert result.exit_code == 0, result.stderr
    assert len(list(out.glob("masks/*.png"))) == 4
    assert json.loads((out / "tracks.json").read_text())["request"]["decoder"] == "decord"
    other = run(*command, "--resume")
    assert other.exit_code == 2
    assert "decoder" in last_line(other.stderr)
    unknown = run(*command, "--decoder", "opencv", "--overwrite")
    assert last_line(unknown.stderr) == (
        "sam2-hq: --decoder must be one of pyav, decord, got 'opencv'"
    )


def test_the_overlay_plays_all_tracked_frames(run, clip: Path, out: Path):
    assert run("track", clip, "-o", out, *SMALL, *BOX, "--fps", "10", "--end", "3").exit_code == 0
    with open_frames(out / "overlay.mp4") as frames:
        assert (len(frames), frames.size) == (3, (HEIGHT, WIDTH))
        assert frames.fps == pytest.approx(10)


def test_a_folder_may_be_named_by_the_time_of_day(run, clip: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("track", clip, "-o", "10:30", *SMALL, *BOX, "--end", "2")
    assert result.exit_code == 0, result.stderr
    with open_frames(tmp_path / "10:30" / "overlay.mp4") as frames:
        assert len(frames) == 2


@pytest.mark.parametrize(
    ("options", "tracked"),
    [
        (["--box", "@2:4,8,24,28"], [2, 3, 4]),
        (["--box", "@2:4,8,24,28", "--start", "1", "--end", "3"], [1, 2]),
        (["--box", "@2:4,8,24,28", "--backward"], [0, 1, 2]),
        (["--box", "@2:4,8,24,28", "--backward", "--start", "4", "--end", "1"], [2, 3, 4]),
    ],
)
def test_only_the_frames_asked_for_are_tracked(run, clip: Path, out: Path, options, tracked):
    result = run("track", clip, "-o", out, *SMALL, "--no-overlay", *options)
    assert result.exit_code == 0, result.stderr
    masks = {f"masks/{NAMES[index]}.png" for index in tracked}
    assert written(out) == masks | {"tracks.json"}
    frames = json.loads((out / "tracks.json").read_text())["frames"]
    assert [row["index"] for row in frames] == tracked


def test_a_mask_prompt_comes_back_on_its_frame(run, clip: Path, out: Path, tmp_path: Path):
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[10:26, 6:22], ids[28:42, 40:54] = 1, 2
    ids[:, 60] = 3  # thinner than what the model sees
    Image.fromarray(ids).save(tmp_path / "ids.png")
    result = run("track", clip, "-o", out, *SMALL, "--no-overlay", "--mask", tmp_path / "ids.png")
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(read_id_map(out / "masks" / f"{NAMES[0]}.png"), ids)
    frames = json.loads((out / "tracks.json").read_text())["frames"]
    areas = [frames[0]["objects"][str(key)]["area"] for key in (1, 2, 3)]
    assert areas == [(ids == key).sum() for key in (1, 2, 3)]


def test_a_painted_mask_shares_no_pixel_when_asked(run, clip: Path, out: Path, tmp_path: Path):
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[10:26, 6:22], ids[:, 30] = 2, 2
    Image.fromarray(ids).save(tmp_path / "ids.png")
    options = ["--override", "++model.non_overlap_masks=true", "--per-object", "--mask"]
    result = run(
        "track", clip, "-o", out, *SMALL, "--no-overlay", *BOX, *options, tmp_path / "ids.png"
    )
    assert result.exit_code == 0, result.stderr
    one, two = (read_id_map(out / f"objects/00{key}/{NAMES[0]}.png") > 0 for key in (1, 2))
    np.testing.assert_array_equal(two, ids == 2)
    assert not (one & two).any()


def test_options_of_the_model_reach_it(run, clip: Path, out: Path):
    options = ["--hq-mode", "off", "--max-memory", "6", "--dtype", "bfloat16"]
    result = run("track", clip, "-o", out, *SMALL, "--no-overlay", *BOX, *options)
    assert result.exit_code == 0, result.stderr
    tracks = json.loads((out / "tracks.json").read_text())
    assert tracks["hq_mode"] == "off"
    assert tracks["request"]["max_memory"] == 6
    assert tracks["request"]["dtype"] == "bfloat16"


def test_a_folder_with_files_is_not_written_into_unless_told(run, clip: Path, out: Path):
    assert run("track", clip, "-o", out, *SMALL, "--no-overlay", *BOX, "--end", "2").exit_code == 0
    before = contents(out)
    refused = run("track", clip, "-o", out, *SMALL, "--no-overlay", *BOX)
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert contents(out) == before
    box = ("--box", "3@3:4,8,24,28")
    assert run("track", clip, "-o", out, *SMALL, "--no-overlay", *box, "--overwrite").exit_code == 0
    assert written(out) == {"masks/shot_11.png", "masks/shot_12.png", "tracks.json"}


def test_overwriting_spares_a_folder_that_is_not_ours(run, clip: Path, out: Path):
    (out / "masks").mkdir(parents=True)
    (out / "masks" / "precious.png").write_text("years of work")
    result = run("track", clip, "-o", out, *SMALL, *BOX, "--overwrite")
    assert result.exit_code == 2
    assert written(out) == {"masks/precious.png"}


def test_overwriting_spares_files_that_no_run_wrote(run, clip: Path, out: Path):
    assert run("track", clip, "-o", out, *SMALL, "--no-overlay", *BOX).exit_code == 0
    (out / "objects").mkdir()
    mine = ["masks/notes.txt", "objects/mesh.obj", "objects/a/b.png"]
    for name in mine:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("years of work")
    (out / ".overlay.mp4.7-ab.partial").touch()  # of a run that was killed
    result = run("track", clip, "-o", out, *SMALL, "--no-overlay", *BOX, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert written(out) == {f"masks/{name}.png" for name in NAMES} | {"tracks.json", *mine}
    (out / "tracks.json").write_text("[]")
    result = run("track", clip, "-o", out, *SMALL, *BOX, "--overwrite")
    assert result.exit_code == 2
    assert "no run of sam2-hq track" in last_line(result.stderr)


def test_a_run_killed_before_it_began_can_be_overwritten(run, clip: Path, out: Path):
    (out / ".resume").mkdir(parents=True)
    (out / "masks").mkdir()
    (out / "masks" / "old.png").touch()
    assert run("track", clip, "-o", out, *SMALL, "--no-overlay", *BOX, "--resume").exit_code == 2
    result = run("track", clip, "-o", out, *SMALL, "--no-overlay", *BOX, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert written(out) == {f"masks/{name}.png" for name in NAMES} | {"tracks.json"}


def test_saving_takes_at_most_a_tenth_of_the_time():
    now, saved = [0.0], []

    class Folder:
        def save_session(self, _, done: int) -> None:
            saved.append(done)
            now[0] += 1  # second

    keeper = SessionKeeper(
        cast("Any", Folder()), cast("Any", None), cast("Any", None), lambda: now[0]
    )
    for done in range(100):
        now[0] += 0.5  # a frame
        keeper.save_if_due(done)
    assert saved[0] == 0
    assert 5 <= len(saved) <= now[0] / 10 + 1
    keeper.save(100)  # at the end, or when it is stopped
    assert saved[-1] == 100


def saved_sessions(out: Path) -> list[str]:
    """Sessions of frame 3 and later; the folder may come or go while we look."""
    try:
        names = os.listdir(out / ".resume")
    except FileNotFoundError:
        return []
    return [name for name in names if re.fullmatch(r"session-.*[3-9]\.safetensors", name)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_goes_on_to_the_same_files(
    run, long_clip: Path, tmp_path: Path, number: int
):
    out, whole = tmp_path / "out", tmp_path / "whole"
    options = [*BOX, *SMALL, "--point", "2@1:45,33", "--rle", "--no-overlay"]
    command = [sys.executable, "-m", "sam2_hq.cli.main", "track", long_clip, "-o", out, *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not saved_sessions(out):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, number)
        stderr = process.communicate()[1]
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert ("--resume goes on" in stderr) == (number == signal.SIGINT)
    assert not (out / "tracks.json").exists()
    finished = {path: path.stat().st_mtime_ns for path in out.glob("masks/*.png")}
    assert 0 < len(finished) < 30

    resumed = run("track", long_clip, "-o", out, *options, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert run("track", long_clip, "-o", whole, *options).exit_code == 0
    assert contents(out) == contents(whole)
    # A kill costs at most the frames since the last saved session.
    kept = [path for path, changed in finished.items() if path.stat().st_mtime_ns == changed]
    assert len(kept) >= 3


def test_resuming_with_other_prompts_is_refused(run, clip: Path, out: Path):
    assert run("track", clip, "-o", out, *SMALL, "--no-overlay", *BOX).exit_code == 0
    before = contents(out)
    result = run(
        "track", clip, "-o", out, *SMALL, "--no-overlay", "--box", "1:4,8,24,30", "--resume"
    )
    assert result.exit_code == 2
    assert "prompts was" in last_line(result.stderr)
    assert contents(out) == before


def test_resuming_with_other_weights_under_the_same_path_is_refused(
    run, clip: Path, out: Path, tmp_path: Path
):
    model = write_model(tmp_path / "model")
    checkpoint = Path(model.checkpoint)
    words = ("track", clip, "-o", out, *BOX, "--no-overlay")
    words = (*words, "--checkpoint", checkpoint, "--config", model.config)
    assert run(*words).exit_code == 0
    assert run(*words, "--resume").exit_code == 0
    save_file({k: v + 1 for k, v in load_file(checkpoint).items()}, checkpoint)
    before = contents(out)
    result = run(*words, "--resume")
    assert result.exit_code == 2
    assert "checkpoint_sha256 was" in last_line(result.stderr)
    assert contents(out) == before


def test_resuming_a_complete_run_changes_nothing(run, clip: Path, out: Path):
    assert run("track", clip, "-o", out, *SMALL, *BOX).exit_code == 0
    before = contents(out)
    assert run("track", clip, "-o", out, *SMALL, *BOX, "--no-overlay", "--resume").exit_code == 0
    assert contents(out) == before


def test_resuming_where_nothing_was_begun_begins(run, clip: Path, out: Path):
    assert run("track", clip, "-o", out, *SMALL, "--no-overlay", *BOX, "--resume").exit_code == 0
    assert "tracks.json" in written(out)
