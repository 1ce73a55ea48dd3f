"""What people hand to `evaluate` by mistake: one clear line, exit code 2, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.folders import Ids, square, write_packed

HERE = square(1, 10, 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`gt` and `pred` of one sequence, all right."""
    write_packed(tmp_path / "gt" / "dog", [HERE] * 5)
    write_packed(tmp_path / "pred" / "dog", [HERE] * 5)
    return tmp_path


def mask(folder: Path) -> Path:
    """A prediction that counts."""
    return folder / "pred" / "dog" / "00002.png"


def save(pixels: Ids) -> Callable[[Path], object]:
    return lambda folder: Image.fromarray(pixels).save(mask(folder))


def all_masks(pixels: Ids) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        for file in mask(folder).parent.iterdir():
            Image.fromarray(pixels).save(file)

    return spoil


def cut_short(folder: Path) -> None:
    mask(folder).write_bytes(mask(folder).read_bytes()[:60])


def unreadable(folder: Path) -> None:
    mask(folder).write_text("a mask, honestly")


def no_prediction_of_a_sequence(folder: Path) -> None:
    (folder / "pred" / "dog").rename(folder / "pred" / "cat")


def no_truth(folder: Path) -> None:
    (folder / "gt" / "dog").rename(folder / "gt" / ".dog")


def no_annotations(folder: Path) -> None:
    (folder / "gt").rename(folder / "annotations")


def first_frame_without_objects(folder: Path) -> None:
    write_packed(folder / "gt" / "dog", [HERE * 0])


def two_layouts(folder: Path) -> None:
    write_packed(folder / "pred" / "dog" / "001", [HERE])


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing annotation folder": (no_annotations, "annotations: there is no folder"),
    "no sequence": (no_truth, "gt' has no folder of a sequence"),
    "no prediction": (no_prediction_of_a_sequence, "sequence 'dog' has no folder in"),
    "missing mask": (lambda folder: mask(folder).unlink(), "dog/00002.png': no such file"),
    "another size": (save(HERE[:20]), "is [20, 56], the truth is [40, 56] (height, width)"),
    "colours instead of ids": (save(np.stack([HERE] * 3, 2)), "has mode RGB; a palette or gray"),
    "black and white": (all_masks(HERE * np.uint8(255)), "a black and white mask must use 1"),
    "id above 255": (save(HERE.astype(np.uint16) * 300), "00002.png' has id 300"),
    "16 bits of black and white": (save(HERE.astype(np.uint16) * 65535), "has id 65535"),
    "cut short": (cut_short, "00002.png' cannot be read"),
    "no picture": (unreadable, "00002.png' cannot be read"),
    "nothing to follow": (first_frame_without_objects, "dog' has no object on its first frame"),
    "two layouts": (two_layouts, "one layout is needed"),
}


@pytest.mark.parametrize("protocol", ["davis2017", "mose"])
@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_nothing_is_written(run, folder: Path, case: str, protocol: str):
    spoil, message = CASES[case]
    spoil(folder)
    before = sorted(folder.rglob("*"))
    words = ["evaluate", folder / "pred", "--gt", folder / "gt", "--protocol", protocol]
    files = ["--json", folder / "a.json", "--csv", folder / "a.csv", "--html", folder / "a.html"]
    result = run(*words, *files, "--workers", 1)
    assert result.exit_code == 2, result.output
    line = result.stderr.split("\r")[-1].strip().splitlines()[-1]
    assert line.startswith("sam2-hq: ")
    assert message in line
    assert "Traceback" not in result.stderr
    assert sorted(folder.rglob("*")) == before


def test_sixteen_bits_are_fine_as_long_as_the_ids_are(run, folder: Path):
    save(HERE.astype(np.uint16))(folder)
    words = ["evaluate", folder / "pred", "--gt", folder / "gt", "--protocol", "mose"]
    result = run(*words, "--workers", 1)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1].split()[1:4] == ["100.0"] * 3


def test_a_folder_in_the_place_of_a_file_is_told_before_work_is_done(run, folder: Path):
    words = ["evaluate", folder / "pred", "--gt", folder / "gt", "--protocol", "mose"]
    result = run(*words, "--json", folder)
    assert result.exit_code == 2
    assert result.stderr == f"sam2-hq: cannot write '{folder}': it is a folder\n"
    assert result.stdout == ""


@pytest.mark.parametrize("option", ["--json", "--csv", "--html"])
def test_what_is_there_is_not_written_over(run, folder: Path, option: str):
    file = folder / "old"
    file.write_text("precious")
    words = ["evaluate", folder / "pred", "--gt", folder / "gt", "--protocol", "mose", option, file]
    refused = run(*words, "--workers", 1)
    assert refused.exit_code == 2
    assert f"'{file}' exists; --overwrite replaces it" in refused.stderr
    assert file.read_text() == "precious"
    assert run(*words, "--workers", 1, "--overwrite").exit_code == 0
    assert file.read_text() != "precious"


def test_two_results_in_one_file_are_refused_before_work_is_done(run, folder: Path):
    words = ["evaluate", folder / "pred", "--gt", folder / "gt", "--protocol", "mose"]
    same = folder / "gt" / ".." / "scores"
    result = run(*words, "--json", folder / "scores", "--csv", same)
    assert result.exit_code == 2
    assert (
        result.stderr == f"sam2-hq: --json and --csv must be different files, both are '{same}'\n"
    )
    assert not same.exists()
