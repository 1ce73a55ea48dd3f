"""Prompts read from text: options `--point`, `--box` and `--mask`, and the prompts JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam2_hq.cli.prompts import (
    Box,
    Clicks,
    ObjectPrompt,
    PaintedMask,
    one_per_object_and_frame,
)
from sam2_hq.data.masks import MAX_ID, read_id_map, split_ids

_ENTRY_KEYS = ("object", "frame", "points", "labels", "box", "mask")


def gather_prompts(
    points: Sequence[str] | None,
    boxes: Sequence[str] | None,
    masks: Sequence[str] | None,
    file: Path | None,
) -> list[ObjectPrompt]:
    """All prompts of a command, one for each object and frame, in order of frame and mention.

    Args:
        points: `[ID][@FRAME]:x,y[,label]`, or plain `x,y[,label]`.
        boxes: `[ID][@FRAME]:x0,y0,x1,y1`, or plain `x0,y0,x1,y1`.
        masks: `PATH` or `PATH@FRAME` of an id map; every id is an object.
        file: a prompts JSON file.

    Raises:
        ValueError: if a prompt cannot be read, two contradict each other, or there is none.
        OSError: if a file cannot be read.
    """
    prompts: list[ObjectPrompt] = [_parse_point(text) for text in points or ()]
    prompts += [_parse_box(text) for text in boxes or ()]
    for text in masks or ():
        prompts += _read_mask_option(text)
    if file is not None:
        prompts += read_prompts(file)
    if not prompts:
        raise ValueError(
            "nothing to follow: give at least one --point ID:x,y, --box ID:x0,y0,x1,y1, "
            "--mask ID_MAP.png or --prompts FILE.json"
        )
    return one_per_object_and_frame(prompts)


def read_prompts(path: Path) -> list[ObjectPrompt]:
    """Read a prompts JSON file, `{"version": 1, "prompts": [...]}`.

    An entry has `object` (1 to 255), `frame` (from 0), and `points` with `labels`, a `box`, or
    a `mask`: a PNG, relative to the file; of an id map of several objects the entry takes its own.

    Raises:
        ValueError: naming the file, and the entry, counted from 0, that cannot be used.
        OSError: if a file cannot be read.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(tree, dict) or set(tree) != {"version", "prompts"}:
        raise ValueError(f'{path} must hold {{"version": 1, "prompts": [...]}} and no other key')
    if tree["version"] != 1:
        raise ValueError(f"{path}: version must be 1, got {tree['version']!r}")
    if not isinstance(tree["prompts"], list):
        raise ValueError(f"{path}: prompts must be a list, got {tree['prompts']!r}")
    return [
        _read_entry(entry, path.parent, f"{path.name}, entry {index}")
        for index, entry in enumerate(tree["prompts"])
    ]


def _parse_point(text: str) -> Clicks:
    origin = f"--point {text}"
    object_id, frame, numbers = _parse_address(text, origin)
    if len(numbers) not in (2, 3):
        raise ValueError(f"{origin}: wanted [ID][@FRAME]:x,y or [ID][@FRAME]:x,y,label")
    label = _label(numbers[2] if len(numbers) == 3 else 1, origin)
    return Clicks(object_id, frame, ((numbers[0], numbers[1]),), (label,), None, origin)


def _parse_box(text: str) -> Clicks:
    origin = f"--box {text}"
    object_id, frame, numbers = _parse_address(text, origin)
    return Clicks(object_id, frame, (), (), _box(numbers, origin), origin)


def _parse_address(text: str, origin: str) -> tuple[int, int, list[float]]:
    """Split `[ID][@FRAME]:numbers`; the id is 1 and the frame 0 unless said."""
    head, _, tail = text.rpartition(":")
    id_text, at, frame_text = head.partition("@")
    try:
        object_id = int(id_text) if id_text else 1
        frame = int(frame_text) if at else 0
        numbers = [float(number) for number in tail.split(",")]
    except ValueError:
        raise ValueError(
            f"{origin}: wanted [ID][@FRAME]: and numbers with commas, like 2@10:320,200"
        ) from None
    return _object_id(object_id, origin), _frame(frame, origin), numbers


def _read_mask_option(text: str) -> list[ObjectPrompt]:
    origin = f"--mask {text}"
    head, at, tail = text.rpartition("@")
    path, frame = (Path(head), int(tail)) if at and tail.isdecimal() else (Path(text), 0)
    objects = _read_objects(path, origin)
    return [PaintedMask(key, frame, mask, origin) for key, mask in objects.items()]


def _read_objects(path: Path, origin: str) -> dict[int, np.ndarray]:
    """Masks by id. A black and white picture (0 and 255 alone) is a mask of object 1."""
    id_map = read_id_map(path)
    if set(np.unique(id_map).tolist()) - {0} == {MAX_ID}:
        return {1: id_map == MAX_ID}
    objects = split_ids(id_map)
    if not objects:
        raise ValueError(f"{origin}: the mask must hold at least one id above 0, it is empty")
    return {_object_id(key, origin): mask for key, mask in objects.items()}


def _read_entry(entry: Any, folder: Path, origin: str) -> ObjectPrompt:
    if not isinstance(entry, dict):
        raise ValueError(f"{origin}: must be an object with keys, got {entry!r}")
    if unknown := sorted(set(entry) - set(_ENTRY_KEYS)):
        raise ValueError(f"{origin}: unknown key {unknown[0]!r}; keys: {', '.join(_ENTRY_KEYS)}")
    if missing := sorted({"object", "frame"} - set(entry)):
        raise ValueError(f"{origin}: the key {missing[0]!r} is missing")
    object_id, frame = _object_id(entry["object"], origin), _frame(entry["frame"], origin)
    if "mask" in entry:
        if len(entry) > 3:
            raise ValueError(f"{origin}: a mask stands alone, without points, labels or box")
        return PaintedMask(object_id, frame, _entry_mask(entry, folder, origin), origin)
    points, labels = _entry_points(entry, origin)
    box = _box(entry["box"], origin) if "box" in entry else None
    if box is None and not points:
        raise ValueError(f"{origin}: must have points with labels, a box or a mask")
    return Clicks(object_id, frame, points, labels, box, origin)


def _entry_points(
    entry: dict[str, Any], origin: str
) -> tuple[tuple[tuple[float, float], ...], tuple[int, ...]]:
    points, labels = entry.get("points", []), entry.get("labels", [])
    if not isinstance(points, list) or not isinstance(labels, list):
        raise ValueError(f"{origin}: points and labels must be lists")
    if len(points) != len(labels):
        raise ValueError(
            f"{origin}: labels must be one a point, got {len(labels)} for {len(points)} points"
        )
    pairs = [_numbers(point, 2, "a point must be [x, y]", origin) for point in points]
    return tuple((x, y) for x, y in pairs), tuple(_label(label, origin) for label in labels)


def _entry_mask(entry: dict[str, Any], folder: Path, origin: str) -> np.ndarray:
    if not isinstance(entry["mask"], str):
        raise ValueError(f"{origin}: mask must be the path of a PNG, got {entry['mask']!r}")
    objects = _read_objects(folder / entry["mask"], origin)
    if len(objects) == 1:
        return next(iter(objects.values()))
    if entry["object"] not in objects:
        raise ValueError(f"{origin}: the mask has ids {sorted(objects)}, not {entry['object']}")
    return objects[entry["object"]]


def _object_id(value: Any, origin: str) -> int:
    if type(value) is not int or not 1 <= value <= MAX_ID:
        raise ValueError(f"{origin}: object id must be 1 to {MAX_ID}, got {value!r}")
    return value


def _frame(value: Any, origin: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{origin}: frame must be a whole number from 0, got {value!r}")
    return value


def _label(value: Any, origin: str) -> int:
    if isinstance(value, bool) or value not in (0, 1):
        raise ValueError(
            f"{origin}: label must be 1 (on the object) or 0 (beside it), got {value!r}"
        )
    return int(value)


def _box(values: Any, origin: str) -> Box:
    x0, y0, x1, y1 = _numbers(values, 4, "a box must be x0, y0, x1, y1", origin)
    return x0, y0, x1, y1


def _numbers(values: Any, count: int, wanted: str, origin: str) -> list[float]:
    is_numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not is_numbers or len(values) != count:
        raise ValueError(f"{origin}: {wanted} in pixels, got {values!r}")
    try:
        return [float(value) for value in values]
    except OverflowError as error:
        raise ValueError(f"{origin}: {wanted} in pixels, got {values!r:.80}") from error
