"""The manifest: what is added is there, what a kill cut off is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_hq.batch.manifest import Manifest, Record

DONE = Record("bär/é", "done", "host/1/cpu", frames=10, objects=2, seconds=4.0, peak_rss_bytes=7)
FAILED = Record.failure("b", "host/1/cpu", "two\nlines", "Traceback ...\n")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest(tmp_path / "manifest.jsonl")


def test_records_come_back(manifest: Manifest):
    assert manifest.read() == {}
    manifest.add(DONE)
    manifest.add(FAILED)
    assert manifest.read() == {DONE.name: DONE, "b": FAILED}
    assert FAILED.error == "two lines"


def test_the_last_line_about_a_sequence_holds(manifest: Manifest):
    manifest.add(FAILED)
    manifest.add(Record("b", "done", "host/2/cpu"))
    assert manifest.read()["b"].status == "done"


def test_speed_and_memory_are_those_of_the_device():
    assert DONE.frames_per_second == 2.5
    assert DONE.to_json()["frames_per_second"] == 2.5
    assert DONE.peak_memory_bytes == 7
    on_gpu = Record("a", "done", "host/1/cuda:0", peak_rss_bytes=7, peak_cuda_bytes=9)
    assert on_gpu.peak_memory_bytes == 9


@given(cut=st.integers(0, 400))
def test_a_kill_at_any_byte_loses_at_most_the_last_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int
):
    manifest = Manifest(tmp_path_factory.mktemp("cut") / "manifest.jsonl")
    manifest.add(DONE)
    manifest.add(FAILED)
    whole = manifest.path.read_bytes()
    manifest.path.write_bytes(whole[:cut])
    num_whole = whole[:cut].count(b"\n")
    assert list(manifest.read()) == [DONE.name, "b"][:num_whole]
    manifest.forget_unfinished_line()
    manifest.add(Record("c", "done", "host/3/cpu"))
    assert list(manifest.read()) == [*[DONE.name, "b"][:num_whole], "c"]


def test_a_damaged_line_is_named(manifest: Manifest):
    manifest.add(DONE)
    with manifest.path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match=r"manifest\.jsonl' line 2 is no record"):
        manifest.read()


def test_rewriting_leaves_one_line_each(manifest: Manifest):
    manifest.add(FAILED)
    manifest.add(DONE)
    manifest.rewrite([DONE])
    assert manifest.read() == {DONE.name: DONE}
    assert [file.name for file in manifest.path.parent.iterdir()] == ["manifest.jsonl"]
