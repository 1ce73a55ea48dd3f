"""What a model sees on photos becomes objects to train on; what people labelled stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sam2_hq.training.packs import read_items, read_photos, write_items
from tests.training import toy_packs

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

from label_photos import LABEL, Finder, add, write_pack  # noqa: E402


class SeesGreen:
    """Stands for a model: everything green is a thing."""

    def find(self, photo: np.ndarray) -> list[np.ndarray]:
        return [photo[..., 1] > 127]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Of the red and the green disc on every photo, the red one alone has a mask."""
    both = toy_packs.photos(tmp_path / "both.zip")
    entries, files = read_items(both)
    for number, entry in enumerate(entries):
        height, width = 40, 48 + 8 * (number % 2)
        red = toy_packs.disc(height, width, 14, 20, 9).astype(np.uint8)
        files[entry["mask"]] = toy_packs.png(red, palette=True)
        entry["objects"], entry["source"] = [{"id": 1, "label": "disc"}], "ab"[number % 2]
        entry.pop("groups", None)
    return toy_packs.write_pack(tmp_path / "photos.zip", entries, files)


def masks(path: Path) -> list[list[np.ndarray]]:
    return [own for _, _, own in read_photos(path).stills()]


def test_what_is_found_comes_to_what_is_known(photos: Path, tmp_path: Path) -> None:
    assert write_pack(tmp_path / "more.zip", photos, SeesGreen()) == 4
    old, new = masks(photos), masks(tmp_path / "more.zip")
    for before, after in zip(old, new, strict=True):
        assert (len(before), len(after)) == (1, 2)
        np.testing.assert_array_equal(after[0], before[0])
    entry = read_photos(tmp_path / "more.zip").entries[0]
    assert [one["label"] for one in entry["objects"]] == ["disc", LABEL]
    assert entry["objects"][1]["area"] == pytest.approx(new[0][1].mean(), abs=1e-4)


def test_only_photos_of_a_source_are_looked_at(photos: Path, tmp_path: Path) -> None:
    assert write_pack(tmp_path / "more.zip", photos, SeesGreen(), ["b"]) == 2
    assert [len(own) for own in masks(tmp_path / "more.zip")] == [1, 2, 1, 2]


def test_parts_of_what_is_known_and_crumbs_are_left_out() -> None:
    known = np.zeros((40, 40), np.uint8)
    known[:20] = 3
    part, crumb, beside = (np.zeros((40, 40), bool) for _ in range(3))
    part[10:24, :20], crumb[30, 30], beside[25:35, 5:15] = True, True, True
    merged = add(known, [part, crumb, beside])
    np.testing.assert_array_equal(merged == 1, beside)
    np.testing.assert_array_equal(merged == 3, known == 3)
    assert set(np.unique(merged)) == {0, 1, 3}


def test_a_bad_photo_stays_as_it_is_and_is_named(photos: Path, tmp_path: Path, caplog) -> None:
    entries, files = read_items(photos)
    files[entries[1]["mask"]] = b"no picture"
    entries[2]["objects"] = None
    write_items(photos, entries, files)
    assert write_pack(tmp_path / "more.zip", photos, SeesGreen()) == 2
    again, kept = read_items(tmp_path / "more.zip")
    assert again[1:3] == entries[1:3]
    assert kept[entries[1]["mask"]] == b"no picture"
    for number in (1, 2):
        assert f"photos.zip:{entries[number]['id']}" in caplog.text


def test_outlines_that_do_not_count_leave_room_for_ids() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[:5] = 255
    thing = np.zeros((40, 40), bool)
    thing[20:30, 20:30] = True
    merged = add(labels, [thing])
    np.testing.assert_array_equal(merged == 1, thing)
    np.testing.assert_array_equal(merged == 255, labels == 255)


def test_small_things_lie_in_front_and_what_they_hide_is_dropped() -> None:
    large, small, most = (np.zeros((40, 40), bool) for _ in range(3))
    large[5:35, 5:35], small[10:20, 10:20], most[6:34, 7:34] = True, True, True
    merged = add(np.zeros((40, 40), np.uint8), [small, large])
    np.testing.assert_array_equal(merged == 2, small)
    np.testing.assert_array_equal(merged == 1, large & ~small)
    merged = add(np.zeros((40, 40), np.uint8), [large, most])
    np.testing.assert_array_equal(merged == 1, most)
    assert merged.max() == 1


def test_the_bundled_model_finds_a_disc_twice() -> None:
    disc = toy_packs.disc(96, 128, 60, 50, 24)
    found = Finder().find(toy_packs.painted(disc))
    overlaps = [(one & disc).sum() / (one | disc).sum() for one in found]
    assert max(overlaps) > 0.9
    assert all(one.mean() < 0.6 for one in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.zip"], "pack 'missing.zip' cannot be opened"),
        (["photos.zip", "--source", "sea"], "has no photo of ['sea']"),
    ],
)
def test_what_cannot_be_labelled_is_told_and_nothing_is_written(
    photos: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    script = str(TOOLS / "label_photos.py")
    done = subprocess.run(
        [sys.executable, script, *arguments, "--out", "more.zip"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "more.zip").exists()
