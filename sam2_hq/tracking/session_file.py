"""A session on disk: one safetensors file with the tensors, and JSON in its header.

Nothing in it is executed when it is read. Frames and weights are not in it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sam2_hq.checkpoint import write_tensors
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.structures import PointPrompt
from sam2_hq.tracking.state import Covered, FrameRecord, ObjectTrack, Painted, Pending, VideoState

FORMAT = "sam2_hq session 1"
SMALL_PARAMETER = 8192  # numbers; the biases, scales and tokens of all models are below


def write_session(state: VideoState, path: str | os.PathLike[str], model: SAM2Base) -> None:
    """Write a session; an existing file is replaced when the new one is whole.

    Args:
        state: the session.
        path: the file.
        model: what tracked it; the file notes a fingerprint of its weights.

    Raises:
        TypeError: if an object id is neither an integer nor a string.
        ValueError: if the folder does not exist, or `path` is a folder.
        OSError: if it cannot be written, for example on a full disk.
    """
    tensors: dict[str, Tensor] = {}
    tracks = []
    for number, (object_id, track) in enumerate(state.tracks.items()):
        if isinstance(object_id, bool) or not isinstance(object_id, int | str):
            raise TypeError(f"object ids must be int or str to be saved, got {object_id!r}")
        tracks.append({"id": object_id, **_describe(track, f"{number}", tensors)})
    header = {
        "format": FORMAT,
        **_circumstances(state, model),
        "known_frames": state.known_frames,
        "tracks": tracks,
    }
    metadata = {"session": json.dumps(header)}
    write_tensors(Path(path), lambda partial: save_file(tensors, partial, metadata=metadata))


def read_session(state: VideoState, path: str | os.PathLike[str], model: SAM2Base) -> None:
    """Fill a fresh session of the same video and model from a file.

    Args:
        state: the session to fill.
        path: the file. One from before the weights were noted is believed to be of this model.
        model: what will go on tracking.

    Raises:
        ValueError: if it is no session, a damaged one, or one of another video or model; then the
            session stays fresh.
        FileNotFoundError: if there is no such file.
    """
    name = os.fspath(path)
    header, tensors = _read(name)
    wanted = _circumstances(state, model)
    if "weights" not in header:
        del wanted["weights"]
    if None in (wanted["num_frames"], header.get("num_frames")):  # not known of an iterator
        del wanted["num_frames"]
    for key, value in wanted.items():
        if header.get(key) != value:
            raise ValueError(f"{name} was saved with {key} {header.get(key)}, here it is {value}")
    try:
        for number, track in enumerate(header["tracks"]):
            state.tracks[track["id"]] = _restore(track, f"{number}", tensors, state)
    except (KeyError, TypeError, ValueError) as error:
        state.tracks.clear()
        raise ValueError(f"{name} is a damaged session: {error!r}") from error
    # As far as was known when tracking began: it goes on to the same masks.
    state.known_frames = header.get("known_frames", state.known_frames)


def fingerprint(model: nn.Module) -> str:
    """Sixteen hex digits that differ between models, the same on every device.

    They stand for the small parameters alone: any training moves some of them, and to read the
    large ones takes seconds.
    """
    small = [p.detach().flatten() for p in model.parameters() if p.numel() <= SMALL_PARAMETER]
    numbers = torch.cat([p.float() for p in small]).cpu().numpy()
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


def _circumstances(state: VideoState, model: SAM2Base) -> dict[str, Any]:
    """What has to be the same where a session goes on."""
    return {
        "video_size": list(state.video_size),
        "num_frames": state.num_frames,
        "image_size": model.image_size,
        "hidden_dim": model.hidden_dim,
        "weights": fingerprint(model),
    }


def _read(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file."""
    if os.path.isdir(name):
        raise ValueError(f"{name} is not a saved session, but a folder")
    try:
        with safe_open(name, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {}).get("session", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{name} is not a saved session: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{name} is not a saved session")
    return header, tensors


def _describe(track: ObjectTrack, key: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    for frame, prompt in track.prompts.items():
        if isinstance(prompt, PointPrompt):
            tensors[f"{key}/prompts/{frame}/coords"] = prompt.coords.cpu()
            tensors[f"{key}/prompts/{frame}/labels"] = prompt.labels.cpu()
    for frame, pending in track.pending.items():
        _put(tensors, f"{key}/pending/{frame}", pending.record)
        if pending.exact_mask is not None:
            tensors[f"{key}/pending/{frame}/exact_mask"] = pending.exact_mask
    for store in ("anchors", "tracked"):
        for frame, record in getattr(track, store).items():
            _put(tensors, f"{key}/{store}/{frame}", record)
    for frame, covered in track.covered.items():
        _put(tensors, f"{key}/covered/{frame}", covered.record)
    return {
        "prompts": list(track.prompts),
        "pending": [[frame, pending.is_anchor] for frame, pending in track.pending.items()],
        "anchors": list(track.anchors),
        "tracked": list(track.tracked),
        "covered": [[frame, covered.backward] for frame, covered in track.covered.items()],
        "directions": [[frame, backward] for frame, backward in track.directions.items()],
    }


def _put(tensors: dict[str, Tensor], key: str, record: FrameRecord) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        if value is not None:
            # A copy: a record may stand in two places, which the format does not allow.
            tensors[f"{key}/{field.name}"] = value.detach().cpu().clone().contiguous()


def _restore(
    track: dict[str, Any], key: str, tensors: dict[str, Tensor], state: VideoState
) -> ObjectTrack:
    def record(store: str, frame: int) -> FrameRecord:
        stem = f"{key}/{store}/{frame}"
        values = {f.name: tensors.get(f"{stem}/{f.name}") for f in fields(FrameRecord)}
        values |= {name: tensors[f"{stem}/{name}"] for name in ("pointer", "scores")}
        on_device = {n: None if v is None else v.to(state.device) for n, v in values.items()}
        return FrameRecord(**on_device).to(state.storage_device)  # type: ignore[arg-type]

    def prompt(frame: int) -> PointPrompt | Painted:
        coords = tensors.get(f"{key}/prompts/{frame}/coords")
        if coords is None:
            return Painted()
        labels = tensors[f"{key}/prompts/{frame}/labels"]
        return PointPrompt(coords.to(state.device), labels.to(state.device))

    return ObjectTrack(
        prompts={frame: prompt(frame) for frame in track["prompts"]},
        pending={
            frame: Pending(
                record("pending", frame),
                is_anchor,
                tensors.get(f"{key}/pending/{frame}/exact_mask"),
            )
            for frame, is_anchor in track["pending"]
        },
        anchors={frame: record("anchors", frame) for frame in track["anchors"]},
        tracked={frame: record("tracked", frame) for frame in track["tracked"]},
        covered={
            frame: Covered(record("covered", frame), bool(backward))
            for frame, backward in track.get("covered", [])
        },
        directions={frame: bool(backward) for frame, backward in track["directions"]},
    )
