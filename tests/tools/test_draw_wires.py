"""Thin things are drawn with exact masks, and the packs of them train like any other."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_hq.training.packs import read_cutouts
from sam2_hq.training.sample_log import SampleLog
from tests.training.toy_packs import cutouts

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

from draw_wires import THINGS, Sheet, cut_out, draw_thing, write_pack  # noqa: E402


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / "draw_wires.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_pack_holds_every_kind_of_thing_and_opens_as_cutouts(tmp_path):
    done = run("--out", tmp_path / "wires.zip", "--count", len(THINGS))
    assert done.returncode == 0, done.stderr
    log = SampleLog()
    gallery = read_cutouts(tmp_path / "wires.zip", allow=["permissive"], log=log)
    assert not log.summary()
    assert {entry["label"] for entry in gallery.entries} == set(THINGS)


def test_the_same_seed_draws_the_same_pack(tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        write_pack(tmp_path / name, 2, seed)
    first, again, other = (read_cutouts(tmp_path / n).pixels for n in ("first", "again", "other"))
    assert first.equal(again)
    assert not first.equal(other)


def test_another_packs_items_come_first_as_they_are(tmp_path):
    old = read_cutouts(cutouts(tmp_path / "old.zip"))
    write_pack(tmp_path / "both.zip", 2, 0, tmp_path / "old.zip")
    both = read_cutouts(tmp_path / "both.zip")
    assert len(both) == len(old) + 2
    assert both.entries[: len(old)] == old.entries
    height, width = old.sizes[0]
    assert both.pixels[0, :, :height, :width].equal(old.pixels[0, :, :height, :width])


def test_one_sees_between_the_spokes_of_a_wheel():
    wheel = np.asarray(draw_thing("wheel", np.random.default_rng(1)))
    height, width = wheel.shape[:2]
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - height / 2, x - width / 2) < 0.4 * height
    covered = (wheel[..., 3] > 127)[inside].mean()
    assert 0.02 < covered < 0.6


def test_soft_edges_keep_the_colour_of_the_thing():
    sheet = Sheet(np.random.default_rng(0))
    sheet.plate(np.array([(0.1, 0.2), (0.9, 0.3), (0.5, 0.9)]), (200, 100, 50))
    picture = np.asarray(cut_out(sheet)).astype(int)
    edge = picture[(picture[..., 3] > 20) & (picture[..., 3] < 230)]
    solid = picture[picture[..., 3] == 255]
    assert len(edge) > 50
    np.testing.assert_allclose(edge[:, :3].mean(0), solid[:, :3].mean(0), rtol=0.1)


def test_fineness_of_a_full_shape_and_of_a_wheel(tmp_path):
    write_pack(tmp_path / "wires.zip", len(THINGS), 0)
    with zipfile.ZipFile(tmp_path / "wires.zip") as archive:
        lines = [json.loads(one) for one in archive.read("index.jsonl").decode().splitlines()]
        for line in lines:
            with Image.open(archive.open(line["rgba"])) as picture:
                assert picture.size == (line["w"], line["h"])
    thin = {line["label"]: line["thin"] for line in lines}
    assert thin["bicycle"] > 50
    assert thin["wheel"] > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", 0), "count must be 1 or more, got 0"),
        (("--seed", -1), "seed must be 0 or more, got -1"),
        (("--with", "missing.zip"), "pack 'missing.zip' cannot be opened"),
    ],
)
def test_what_cannot_be_drawn_is_told_and_nothing_is_written(tmp_path, arguments, message):
    done = run("--out", tmp_path / "wires.zip", *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
