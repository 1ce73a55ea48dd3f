"""A session file appears whole or not at all, and is believed only when it is one."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.toy import disc_centre, toy_clip, toy_predictor


@pytest.fixture(scope="module")
def predictor() -> Any:
    return toy_predictor()


@pytest.fixture
def state(predictor: Any) -> Any:
    state = predictor.init_state(toy_clip(3))
    predictor.add_new_points_or_box(state, 0, 1, points=[disc_centre()], labels=[1])
    return state


@contextmanager
def disk_that_takes_files_of(num_bytes: int) -> Iterator[None]:
    """A real limit of the kernel's; writing beyond it fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def test_a_full_disk_is_an_os_error_and_leaves_nothing(
    predictor: Any, state: Any, tmp_path: Path
) -> None:
    with (
        disk_that_takes_files_of(4000),
        pytest.raises(OSError, match=r"cannot write the session '.*clip\.session'"),
    ):
        predictor.save_state(state, tmp_path / "clip.session")
    assert names(tmp_path) == []


def test_a_full_disk_leaves_the_session_that_was_there(
    predictor: Any, state: Any, tmp_path: Path
) -> None:
    path = tmp_path / "clip.session"
    predictor.save_state(state, path)
    before = path.read_bytes()
    predictor.add_new_points_or_box(state, 1, 2, points=[[5, 5]], labels=[1])
    with disk_that_takes_files_of(4000), pytest.raises(OSError, match="cannot write"):
        predictor.save_state(state, path)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["clip.session"]


def test_a_missing_folder_and_a_folder_are_refused(
    predictor: Any, state: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        predictor.save_state(state, tmp_path / "missing" / "clip.session")
    with pytest.raises(ValueError, match="it is a folder"):
        predictor.save_state(state, tmp_path)
    assert names(tmp_path) == []


def test_an_object_id_that_no_file_can_hold_is_refused(
    predictor: Any, state: Any, tmp_path: Path
) -> None:
    predictor.add_new_points_or_box(state, 0, (1, 2), points=[[5, 5]], labels=[1])
    with pytest.raises(TypeError, match=r"object ids must be int or str to be saved, got \(1, 2\)"):
        predictor.save_state(state, tmp_path / "clip.session")
    assert names(tmp_path) == []


def test_half_a_session_is_refused(predictor: Any, state: Any, tmp_path: Path) -> None:
    path = tmp_path / "clip.session"
    predictor.save_state(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="is not a saved session"):
        predictor.load_state(path, toy_clip(3))
