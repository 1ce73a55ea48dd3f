"""A session file appears whole or not at all, and is believed only when it is one."""

from __future__ import annotations

import json
import pickle
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.toy import disc_centre, masks_by_frame, toy_clip, toy_predictor


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


def test_a_session_of_a_short_iterator_goes_on_to_the_same_masks(
    predictor: Any, tmp_path: Path
) -> None:
    clip = toy_clip(6)
    whole = predictor.init_state(iter(clip))
    predictor.add_new_points_or_box(whole, 0, 1, points=[disc_centre()], labels=[1])
    predictor.save_state(whole, tmp_path / "clip.session")
    want = masks_by_frame(predictor.propagate_in_video(whole))
    again = predictor.load_state(tmp_path / "clip.session", clip)
    got = masks_by_frame(predictor.propagate_in_video(again))
    assert all(torch.equal(got[frame], want[frame]) for frame in range(6))


def test_a_saved_session_takes_prompts_far_apart_on_an_iterator(
    predictor: Any, tmp_path: Path
) -> None:
    clip = toy_clip(24)
    state = predictor.init_state(clip)
    predictor.add_new_points_or_box(state, 0, 1, points=[disc_centre()], labels=[1])
    predictor.save_state(state, tmp_path / "clip.session")
    again = predictor.load_state(tmp_path / "clip.session", iter(clip))
    list(predictor.propagate_in_video(again, num_frames=1))
    for frame in range(2, 20, 2):
        for one in (state, again):
            predictor.add_new_points_or_box(one, frame, 1, points=[disc_centre(frame)], labels=[1])
    got, want = (
        masks_by_frame(predictor.propagate_in_video(one, start_frame_idx=18))
        for one in (again, state)
    )
    assert all(torch.equal(got[frame], want[frame]) for frame in range(18, 24))


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def test_a_full_disk_is_an_os_error_and_leaves_nothing(
    predictor: Any, state: Any, tmp_path: Path
) -> None:
    with (
        disk_that_takes_files_of(4000),
        pytest.raises(OSError, match=r"cannot write .*/clip\.session: ."),
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


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """A copy of a session whose header and tensors were changed by hand."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["session"])
    tensors = load_file(path)
    change(header, tensors)
    copy = path.with_name("changed.session")
    save_file(tensors, copy, metadata={"session": json.dumps(header)})
    return copy


DAMAGES: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "no tracks": lambda header, _: header.pop("tracks"),
    "tracks are a number": lambda header, _: header.update(tracks=5),
    "a track is a number": lambda header, _: header.update(tracks=[5]),
    "a track without prompts": lambda header, _: header["tracks"][0].pop("prompts"),
    "a list as object id": lambda header, _: header["tracks"][0].update(id=[1]),
    "a frame without pointer": lambda _, tensors: tensors.pop("0/pending/0/pointer"),
    "clicks without labels": lambda _, tensors: tensors.pop("0/prompts/0/labels"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_session_is_refused(
    predictor: Any, state: Any, tmp_path: Path, damage: str
) -> None:
    predictor.save_state(state, tmp_path / "clip.session")
    changed = rewritten(tmp_path / "clip.session", DAMAGES[damage])
    with pytest.raises(ValueError, match=r"changed\.session is a damaged session"):
        predictor.load_state(changed, toy_clip(3))


@pytest.mark.parametrize("other", ["of another seed", "trained a little"])
def test_a_session_of_other_weights_is_refused(
    predictor: Any, state: Any, tmp_path: Path, other: str
) -> None:
    predictor.save_state(state, tmp_path / "clip.session")
    theirs = toy_predictor(seed=1 if other == "of another seed" else 0)
    if other == "trained a little":
        with torch.no_grad():
            theirs.sam_mask_decoder.hf_token.weight[0, 0] += 1e-3
    with pytest.raises(ValueError, match=r"saved with weights [0-9a-f]{16}, here it is [0-9a-f]"):
        theirs.load_state(tmp_path / "clip.session", toy_clip(3))
    assert toy_predictor().load_state(tmp_path / "clip.session", toy_clip(3)).obj_ids == [1]


def test_a_session_from_before_weights_were_noted_is_taken(
    predictor: Any, state: Any, tmp_path: Path
) -> None:
    predictor.save_state(state, tmp_path / "clip.session")
    old = rewritten(tmp_path / "clip.session", lambda header, _: header.pop("weights"))
    assert predictor.load_state(old, toy_clip(3)).obj_ids == [1]


def test_what_is_no_session_is_refused(predictor: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.session"):
        predictor.load_state(tmp_path / "missing.session", toy_clip(3))
    with pytest.raises(ValueError, match="is not a saved session, but a folder"):
        predictor.load_state(tmp_path, toy_clip(3))
    nested = {"session": "[" * 100_000}
    save_file({"x": torch.zeros(1)}, tmp_path / "nested", metadata=nested)
    with pytest.raises(ValueError, match="is not a saved session"):
        predictor.load_state(tmp_path / "nested", toy_clip(3))


def test_a_pickle_with_code_is_not_run(predictor: Any, tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    class Hostile:
        def __reduce__(self) -> Any:
            return Path.mkdir, (trap,)

    (tmp_path / "hostile").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match="is not a saved session"):
        predictor.load_state(tmp_path / "hostile", toy_clip(3))
    assert not trap.exists()


def test_others_may_read_a_session_as_they_may_read_any_file(
    predictor: Any, state: Any, tmp_path: Path
) -> None:
    (tmp_path / "any").touch()
    predictor.save_state(state, tmp_path / "clip.session")
    assert (tmp_path / "clip.session").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_session_of_an_iterator_is_loaded_with_another_iterator_of_the_video(
    predictor: Any, tmp_path: Path
) -> None:
    state = predictor.init_state(frame for frame in toy_clip(4))
    predictor.add_new_points_or_box(state, 0, 1, points=[[5, 5]], labels=[1])
    want = masks_by_frame(predictor.propagate_in_video(state))
    predictor.save_state(state, tmp_path / "clip.session")
    fresh = predictor.load_state(tmp_path / "clip.session", iter(toy_clip(4)))
    found = masks_by_frame(predictor.propagate_in_video(fresh))
    assert all(torch.equal(found[frame], want[frame]) for frame in range(4))
