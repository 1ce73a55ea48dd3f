"""Every mistake of a user: one clear line, exit code 2, nothing written."""

from __future__ import annotations

import json
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

HEIGHT, WIDTH = 48, 64
BOX = ("--box", "4,8,24,28")


def empty(folder: Path) -> list[object]:
    (folder / "empty").mkdir()
    return ["track", folder / "empty", *BOX]


def missing(folder: Path) -> list[object]:
    return ["track", folder / "nowhere", *BOX]


def truncated(folder: Path) -> list[object]:
    path = folder / "clip" / "shot_11.png"
    path.write_bytes(path.read_bytes()[:900])
    return ["track", folder / "clip", *BOX]


def not_an_image(folder: Path) -> list[object]:
    (folder / "clip" / "shot_13.png").write_text("a picture, honestly")
    return ["track", folder / "clip", *BOX]


def mixed_sizes(folder: Path) -> list[object]:
    Image.new("RGB", (30, 20)).save(folder / "clip" / "shot_13.png")
    return ["track", folder / "clip", *BOX]


def corrupt_video(folder: Path) -> list[object]:
    (folder / "film.mp4").write_bytes(b"\0" * 5000)
    return ["track", folder / "film.mp4", *BOX]


def mask_of_wrong_shape(folder: Path) -> list[object]:
    Image.fromarray(np.ones((9, 9), np.uint8)).save(folder / "mask.png")
    return ["track", folder / "clip", "--mask", folder / "mask.png"]


def mask_in_colour(folder: Path) -> list[object]:
    Image.new("RGB", (WIDTH, HEIGHT), (9, 8, 7)).save(folder / "mask.png")
    return ["track", folder / "clip", "--mask", folder / "mask.png"]


def empty_mask(folder: Path) -> list[object]:
    Image.new("L", (WIDTH, HEIGHT)).save(folder / "mask.png")
    return ["track", folder / "clip", "--mask", folder / "mask.png"]


def absent_mask(folder: Path) -> list[object]:
    return ["track", folder / "clip", "--mask", folder / "nowhere.png"]


def labels_that_do_not_fit(folder: Path) -> list[object]:
    entry = {"object": 1, "frame": 0, "points": [[5, 5]], "labels": [1, 1]}
    (folder / "p.json").write_text(json.dumps({"version": 1, "prompts": [entry]}))
    return ["track", folder / "clip", "--prompts", folder / "p.json"]


def absent_prompts_file(folder: Path) -> list[object]:
    return ["track", folder / "clip", "--prompts", folder / "nowhere.json"]


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return open, (str(self.path), "w")  # type: ignore[return-value]


def hostile_checkpoint(folder: Path) -> list[object]:
    (folder / "evil.pt").write_bytes(
        pickle.dumps({"model": Hostile(folder / "written")}, protocol=2)
    )
    return ["track", folder / "clip", *BOX, "--checkpoint", folder / "evil.pt"]


def foreign_checkpoint(folder: Path) -> list[object]:
    torch.save({"model": {"layer.weight": torch.zeros(3)}}, folder / "other.pt")
    return ["track", folder / "clip", *BOX, "--checkpoint", folder / "other.pt"]


def huge_number(folder: Path) -> list[object]:
    prompt = {"object": 1, "frame": 0, "box": [1, 2, 3, 10**400]}
    (folder / "huge.json").write_text(json.dumps({"version": 1, "prompts": [prompt]}))
    return ["track", folder / "clip", "--prompts", folder / "huge.json"]


def bottomless(folder: Path) -> list[object]:
    (folder / "deep.json").write_text("[" * 100_000)
    return ["track", folder / "clip", "--prompts", folder / "deep.json"]


def option(*words: str) -> Callable[[Path], list[object]]:
    return lambda folder: ["track", folder / "clip", *words]


def picture(command: str, *words: str) -> Callable[[Path], list[object]]:
    return lambda folder: [command, folder / "clip" / "shot_8.png", *words]


CASES: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "empty folder": (empty, "no image"),
    "missing folder": (missing, "nowhere"),
    "truncated file": (truncated, "shot_11.png"),
    "not an image": (not_an_image, "shot_13.png"),
    "frames of different sizes": (mixed_sizes, "shot_13.png"),
    "corrupt video": (corrupt_video, "film.mp4"),
    "NaN point": (option("--point", "nan,5"), "finite"),
    "point outside": (option("--point", "5,500"), "inside"),
    "label that is none": (option("--point", "5,5,7"), "label must be"),
    "labels that do not fit": (labels_that_do_not_fit, "labels must be one a point"),
    "inverted box": (option("--box", "24,8,4,28"), "x0 < x1"),
    "empty box": (option("--box", "4,8,4,28"), "x0 < x1"),
    "mask of wrong shape": (mask_of_wrong_shape, "mask must be"),
    "mask in colour": (mask_in_colour, "mask.png"),
    "empty mask": (empty_mask, "empty"),
    "absent mask": (absent_mask, "nowhere.png"),
    "absent prompts file": (absent_prompts_file, "nowhere.json"),
    "object id": (option("--box", "0:4,8,24,28"), "object id must be 1 to 255"),
    "prompt on no frame": (option("--box", "@5:4,8,24,28"), "frame must be 0 to 4, got 5"),
    "start outside": (option(*BOX, "--start", "5"), "--start must be 0 to 4, got 5"),
    "end outside": (option(*BOX, "--end", "6"), "--end must be 1 to 5"),
    "end before start": (option(*BOX, "--start", "3", "--end", "3"), "--end must be 4 to 5"),
    "end behind a backward start": (option(*BOX, "--backward", "--end", "2"), "--end"),
    "no prompt": (option(), "--point"),
    "no frames a second": (option(*BOX, "--fps", "0"), "--fps must be 0.001 to 1000"),
    "too many frames a second": (option(*BOX, "--fps", "5000"), "--fps must be 0.001 to 1000"),
    "memory": (option(*BOX, "--max-memory", "0"), "--max-memory must be at least 1"),
    "dtype": (option(*BOX, "--dtype", "int8"), "dtype must be one of"),
    "HQ mode": (option(*BOX, "--hq-mode", "on"), "hq_mode must be one of"),
    "resume and overwrite": (option(*BOX, "--resume", "--overwrite"), "give one"),
    "unknown option": (option(*BOX, "--speed", "9"), "--speed"),
    "absent checkpoint": (option(*BOX, "--checkpoint", "nowhere.pt"), "nowhere.pt"),
    "hostile checkpoint": (hostile_checkpoint, "evil.pt"),
    "foreign checkpoint": (foreign_checkpoint, "not a SAM 2 checkpoint"),
    "unknown config": (option(*BOX, "--config", "sam2.1_hq_hiera_q"), "sam2.1_hq_hiera_"),
    "unknown override": (option(*BOX, "--override", "++model.image_sise=128"), "image_size"),
    "no model left": (option(*BOX, "--override", "~model"), "key 'model'"),
    "number beyond all pictures": (huge_number, "a box must be x0, y0, x1, y1 in pixels"),
    "bottomless prompts": (bottomless, "is not a JSON file"),
    "unreadable override": (option(*BOX, "--override", "model.image_size"), "model.image_size"),
    "unknown device": (option(*BOX, "--device", "abacus"), "device must be"),
    "segment without prompt": (picture("segment"), "--point"),
    "segment another frame": (picture("segment", "--box", "@1:4,8,24,28"), "frame must be 0"),
    "segment outside": (picture("segment", "--point", "5,500"), "inside"),
    "everything with no clicks": (picture("everything", "--points-per-side", "0"), "points_per"),
}
if not torch.cuda.is_available():
    CASES["absent CUDA"] = (option(*BOX, "--device", "cuda"), "cuda")


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_line_and_writes_nothing(run, clip: Path, out: Path, name: str):
    make, words = CASES[name]
    arguments = make(clip.parent)
    target = out.with_suffix(".png") if arguments[0] == "segment" else out
    before = sorted(clip.parent.rglob("*"))
    result = run(*arguments, "-o", target)
    assert result.exit_code == 2, result.output
    line = result.stderr.split("\r")[-1].strip().splitlines()[-1]
    assert line.startswith("sam2-hq: ")
    assert words in line
    assert "Traceback" not in result.stderr
    assert sorted(clip.parent.rglob("*")) == before


def test_debugging_shows_where_it_came_from(run, clip: Path, out: Path):
    result = run("--debug", "track", clip, "-o", out, "--box", "24,8,4,28")
    assert isinstance(result.exception, ValueError)


@contextmanager
def disk_that_takes_files_of(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_and_nothing_is_written(run, clip: Path, out: Path):
    with disk_that_takes_files_of(1):
        result = run("track", clip, "-o", out, *BOX)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    assert not out.exists()


def test_a_run_that_filled_the_disk_can_be_resumed(run, clip: Path, out: Path):
    with disk_that_takes_files_of(4000):  # a mask fits, a session does not
        assert run("track", clip, "-o", out, *BOX).exit_code == 2
    assert not [path for path in out.rglob("*") if "part" in path.name]
    resumed = run("track", clip, "-o", out, *BOX, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert len(list(out.glob("masks/*.png"))) == 5
