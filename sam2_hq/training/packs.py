"""Zip packs of stills and clips, decoded once and kept: nothing is read again while training.

A pack is an uncompressed zip with an `index.jsonl` (one JSON object a line) and the files it names.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_hq.data.atomic import whole_file
from sam2_hq.data.pictures import DAMAGE
from sam2_hq.training.gallery import Gallery, Target, boxes_of_ids, hang
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.still_readers import check_same_size

BAD_ITEM = (*DAMAGE, KeyError, TypeError, zlib.error, zipfile.BadZipFile)
"""What a damaged file or a wrong line of the index raises."""

LICENSE_CLASSES = ("permissive", "copyleft", "mixed", "unstated", "noncommercial")

INDEX = "index.jsonl"

# A line of the index is whatever its writer put there; a bad one is a bad item.
Entry = dict[str, Any]
Decoded = tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]


def read_photos(
    path: str | os.PathLike[str],
    *,
    allow: Collection[str] = LICENSE_CLASSES,
    log: SampleLog | None = None,
) -> Gallery:
    """Decode a pack of photos with label maps.

    Args:
        path: the zip file; entries have `img`, `mask`, `objects` and maybe `groups`.
        allow: licence classes to take.
        log: where bad items are counted; a new one by default.

    Raises:
        ValueError: if the file is no pack, or nothing usable is left.
    """
    return _read_pack(Path(path), _decode_photo, allow=allow, log=log)


def read_cutouts(
    path: str | os.PathLike[str],
    *,
    allow: Collection[str] = LICENSE_CLASSES,
    log: SampleLog | None = None,
) -> Gallery:
    """Decode a pack of RGBA cut-outs (`rgba`); arguments and errors as `read_photos`."""
    return _read_pack(Path(path), _decode_cutout, allow=allow, log=log)


def read_backgrounds(
    path: str | os.PathLike[str],
    *,
    allow: Collection[str] = LICENSE_CLASSES,
    log: SampleLog | None = None,
) -> Gallery:
    """Decode a pack of pictures without masks (`bg`); arguments and errors as `read_photos`."""
    return _read_pack(Path(path), _decode_background, allow=allow, log=log)


def read_clips(
    path: str | os.PathLike[str],
    *,
    allow: Collection[str] = LICENSE_CLASSES,
    log: SampleLog | None = None,
) -> Gallery:
    """Decode a pack of clips; `img` and `mask` are printf patterns over the frame number.

    Arguments and errors as `read_photos`.
    """
    return _read_pack(Path(path), _decode_clip, allow=allow, log=log)


def read_items(path: str | os.PathLike[str]) -> tuple[list[Entry], dict[str, bytes]]:
    """The lines of a pack's index, and its files as they are, by name.

    Raises:
        ValueError: if the pack, its index or one of its files cannot be read.
    """
    path = Path(path)
    with _opened(path) as archive:
        entries = _read_index(archive, path)
        try:
            files = {one: archive.read(one) for one in archive.namelist() if one != INDEX}
        except BAD_ITEM as error:
            raise ValueError(f"pack '{path}' cannot be read: {error}") from error
    return entries, files


def write_items(
    path: str | os.PathLike[str], entries: Sequence[Entry], files: Mapping[str, bytes]
) -> None:
    """Write a pack; it appears when it is whole.

    Raises:
        ValueError: if `path` is a folder or lies in none.
    """
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        archive.writestr(INDEX, "".join(json.dumps(one) + "\n" for one in entries))
        for name, content in files.items():
            archive.writestr(name, content)


def license_classes(path: str | os.PathLike[str], *, allow: Collection[str]) -> set[str]:
    """Classes of the items that a reader takes from a pack.

    Raises:
        ValueError: if the pack or its index cannot be read.
    """
    path = Path(path)
    with _opened(path) as archive:
        entries = _read_index(archive, path)
    return {str(entry.get("license_class")) for entry in entries} & set(allow)


def _read_pack(
    path: Path,
    decode: Callable[[zipfile.ZipFile, Entry], Decoded],
    *,
    allow: Collection[str],
    log: SampleLog | None,
) -> Gallery:
    log = SampleLog() if log is None else log
    unknown = set(allow) - set(LICENSE_CLASSES)
    if unknown:
        raise ValueError(f"allow must name classes of {LICENSE_CLASSES}, got {sorted(unknown)}")
    forbidden = set(LICENSE_CLASSES) - set(allow)
    pictures: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.uint8]] = []
    targets: list[list[Target]] = []
    entries: list[Entry] = []
    clips: list[list[int]] = []
    with _opened(path) as archive:
        for entry in _read_index(archive, path):
            if entry.get("license_class") in forbidden:
                continue
            try:
                _check_license(entry)
                own_pictures, own_labels = decode(archive, entry)
                own_targets = _targets(entry, own_labels)
            except BAD_ITEM as error:
                log.skip(f"{path.name}:{entry.get('id')}", error)
                continue
            if not own_targets:
                own_targets = [[] for _ in own_pictures]
            if "frames" in entry:
                clips.append(list(range(len(pictures), len(pictures) + len(own_pictures))))
            pictures += own_pictures
            labels += own_labels
            targets += own_targets
            entries.append(entry)
    if not pictures:
        raise ValueError(f"pack '{path}' has no usable item of the classes {sorted(allow)}")
    return Gallery(
        pixels=hang(pictures),
        labels=hang([one[..., None] for one in labels])[:, 0] if labels else None,
        sizes=np.array([one.shape[:2] for one in pictures], dtype=np.int64),
        targets=targets,
        entries=entries,
        clips=clips,
    )


def _check_license(entry: Entry) -> None:
    if entry.get("license_class") not in LICENSE_CLASSES:
        raise ValueError(
            f"license_class must be one of {LICENSE_CLASSES}, got {entry.get('license_class')!r}"
        )


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"pack '{path}' cannot be opened: {error}") from error


def _read_index(archive: zipfile.ZipFile, path: Path) -> list[Entry]:
    try:
        lines = archive.read(INDEX).decode().splitlines()
        entries = [json.loads(line) for line in lines if line.strip()]
    except BAD_ITEM as error:
        raise ValueError(f"pack '{path}' has no readable index.jsonl: {error}") from error
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"pack '{path}': line {number + 1} of its index is no object")
        entry.setdefault("id", f"item {number + 1}")
    return entries


def _decode_photo(archive: zipfile.ZipFile, entry: Entry) -> Decoded:
    picture, labels = decode_photo(archive, entry)
    return [picture], [labels]


def decode_photo(
    archive: zipfile.ZipFile, entry: Entry
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture [H, W, 3] and its ids [H, W]; one of `BAD_ITEM` if damaged or of two sizes."""
    picture = _decode(archive, entry["img"], "RGB")
    labels = _decode(archive, entry["mask"], None)
    check_same_size(labels[None], picture, "mask")
    return picture, labels


def _decode_cutout(archive: zipfile.ZipFile, entry: Entry) -> Decoded:
    if float(entry.get("thin", 1.0)) <= 0:
        raise ValueError(f"thin must be above 0, got {entry['thin']}")
    picture = _decode(archive, entry["rgba"], "RGBA")
    if not picture[..., 3].any():
        raise ValueError("the cut-out is transparent everywhere")
    return [picture], []


def _decode_background(archive: zipfile.ZipFile, entry: Entry) -> Decoded:
    return [_decode(archive, entry["bg"], "RGB")], []


def _decode_clip(archive: zipfile.ZipFile, entry: Entry) -> Decoded:
    numbers = range(entry["frames"])
    if not numbers:
        raise ValueError(f"a clip must have frames, got {entry['frames']}")
    pictures = [_decode(archive, entry["img"] % number, "RGB") for number in numbers]
    labels = [_decode(archive, entry["mask"] % number, None) for number in numbers]
    for picture, label in zip(pictures, labels, strict=True):
        check_same_size(label[None], picture, "mask")
    return pictures, labels


def _decode(archive: zipfile.ZipFile, name: str, mode: str | None) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(archive.read(name))) as image:
        if mode is None and image.mode not in ("P", "L"):
            raise ValueError(f"'{name}' must be a palette or gray picture, got mode {image.mode}")
        return np.array(image if mode is None else image.convert(mode), dtype=np.uint8)


def _targets(entry: Entry, labels: list[NDArray[np.uint8]]) -> list[list[Target]]:
    """The objects of each picture; in a clip the same ones, in the same order, on all frames."""
    if not labels:
        return []
    named = [frozenset({int(one["id"])}) for one in entry["objects"]]
    named += [frozenset(map(int, group["ids"])) for group in entry.get("groups") or []]
    present = {int(one) for label in labels for one in np.unique(label)} - {0}
    if any(number < 1 for ids in named for number in ids):
        raise ValueError("ids of objects must be 1 or more")
    kept = [ids for ids in dict.fromkeys(named) if ids & present]
    if not kept:
        raise ValueError("none of its objects has a pixel")
    return [boxes_of_ids(label, kept) for label in labels]
