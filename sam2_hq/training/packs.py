"""Zip packs of stills and clips, decoded once and kept: nothing is read again while training.

A pack is an uncompressed zip with an `index.jsonl` (one JSON object a line) and the files it names.
Pictures of a pack lie in one uint8 canvas tensor each, at the top left, so that a batch is one
gather; the real sizes stand beside it.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import find_objects
from torch import Tensor

from sam2_hq.training.sample_log import SampleLog

LICENSE_CLASSES = ("permissive", "copyleft", "mixed", "unstated", "noncommercial")

CANVAS_MULTIPLE = 8
"""Canvas sides are multiples of it, so that they can be halved for minified views."""

Ids = frozenset[int]


class Target(NamedTuple):
    """An object on one picture: its ids in the label map, and its box in pixels.

    A box of four zeros says that the object is absent on this picture.
    """

    ids: Ids
    box: tuple[int, int, int, int]


# A line of the index is whatever its writer put there; `_read_index` checks what we use.
Entry = dict[str, Any]
Decoded = tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Pack:
    """Pictures of one kind on canvases of one size, with what is known about each.

    pixels: [N, C, H, W] uint8; RGB, or RGBA for cut-outs.
    labels: [N, H, W] uint8, ids of objects, 0 background; None without masks.
    sizes: height and width of each picture, [N, 2].
    targets: for each picture its objects; a union of ids is an object too.
    clips: for each clip the pictures of its frames in order; empty for stills.
    entries: the line of the index for each picture (for each clip in a pack of clips).
    """

    pixels: Tensor
    labels: Tensor | None
    sizes: NDArray[np.int64]
    targets: list[list[Target]]
    entries: list[Entry]
    clips: list[list[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sizes)

    def to(self, device: torch.device | str) -> Pack:
        """The same pack with its tensors on `device`."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=labels)

    def stills(self) -> Iterator[tuple[str, NDArray[np.uint8], list[NDArray[np.bool_]]]]:
        """Every picture in the order of the index: its id, [H, W, C] and its masks [H, W]."""
        for number, (height, width) in enumerate(self.sizes):
            pixels = self.pixels[number, :, :height, :width].permute(1, 2, 0).cpu().numpy()
            yield self.entries[number]["id"], pixels, self._masks(number)

    def _masks(self, number: int) -> list[NDArray[np.bool_]]:
        if self.labels is None:
            return []
        height, width = self.sizes[number]
        labels = self.labels[number, :height, :width].cpu().numpy()
        return [np.isin(labels, sorted(one.ids)) for one in self.targets[number]]


def read_photos(
    path: str | os.PathLike[str],
    *,
    allow: Collection[str] = LICENSE_CLASSES,
    log: SampleLog | None = None,
) -> Pack:
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
) -> Pack:
    """Decode a pack of RGBA cut-outs (`rgba`); arguments and errors as `read_photos`."""
    return _read_pack(Path(path), _decode_cutout, allow=allow, log=log)


def read_backgrounds(
    path: str | os.PathLike[str],
    *,
    allow: Collection[str] = LICENSE_CLASSES,
    log: SampleLog | None = None,
) -> Pack:
    """Decode a pack of pictures without masks (`bg`); arguments and errors as `read_photos`."""
    return _read_pack(Path(path), _decode_background, allow=allow, log=log)


def read_clips(
    path: str | os.PathLike[str],
    *,
    allow: Collection[str] = LICENSE_CLASSES,
    log: SampleLog | None = None,
) -> Pack:
    """Decode a pack of clips; `img` and `mask` are printf patterns over the frame number.

    Arguments and errors as `read_photos`.
    """
    return _read_pack(Path(path), _decode_clip, allow=allow, log=log)


def _read_pack(
    path: Path,
    decode: Callable[[zipfile.ZipFile, Entry], Decoded],
    *,
    allow: Collection[str],
    log: SampleLog | None,
) -> Pack:
    log = SampleLog() if log is None else log
    unknown = set(allow) - set(LICENSE_CLASSES)
    if unknown:
        raise ValueError(f"allow must name classes of {LICENSE_CLASSES}, got {sorted(unknown)}")
    pictures: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.uint8]] = []
    targets: list[list[Target]] = []
    entries: list[Entry] = []
    clips: list[list[int]] = []
    with _opened(path) as archive:
        for entry in _read_index(archive, path):
            if entry.get("license_class") not in allow:
                continue
            try:
                own_pictures, own_labels = decode(archive, entry)
                own_targets = _targets(entry, own_labels)
            except (KeyError, ValueError, OSError, SyntaxError) as error:
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
    return Pack(
        pixels=_canvas(pictures),
        labels=_canvas([one[..., None] for one in labels])[:, 0] if labels else None,
        sizes=np.array([one.shape[:2] for one in pictures], dtype=np.int64),
        targets=targets,
        entries=entries,
        clips=clips,
    )


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"pack '{path}' cannot be opened: {error}") from error


def _read_index(archive: zipfile.ZipFile, path: Path) -> list[Entry]:
    try:
        lines = archive.read("index.jsonl").decode().splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except (KeyError, ValueError) as error:
        raise ValueError(f"pack '{path}' has no readable index.jsonl: {error}") from error


def _decode_photo(archive: zipfile.ZipFile, entry: Entry) -> Decoded:
    picture = _decode(archive, entry["img"], "RGB")
    labels = _decode(archive, entry["mask"], None)
    _check_same_size(picture, labels)
    return [picture], [labels]


def _decode_cutout(archive: zipfile.ZipFile, entry: Entry) -> Decoded:
    picture = _decode(archive, entry["rgba"], "RGBA")
    if not picture[..., 3].any():
        raise ValueError("the cut-out is transparent everywhere")
    return [picture], []


def _decode_background(archive: zipfile.ZipFile, entry: Entry) -> Decoded:
    return [_decode(archive, entry["bg"], "RGB")], []


def _decode_clip(archive: zipfile.ZipFile, entry: Entry) -> Decoded:
    numbers = range(entry["frames"])
    pictures = [_decode(archive, entry["img"] % number, "RGB") for number in numbers]
    labels = [_decode(archive, entry["mask"] % number, None) for number in numbers]
    for picture, label in zip(pictures, labels, strict=True):
        _check_same_size(picture, label)
    return pictures, labels


def _decode(archive: zipfile.ZipFile, name: str, mode: str | None) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(archive.read(name))) as image:
        if mode is None and image.mode not in ("P", "L"):
            raise ValueError(f"'{name}' must be a palette or gray picture, got mode {image.mode}")
        return np.array(image if mode is None else image.convert(mode), dtype=np.uint8)


def _check_same_size(picture: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    if picture.shape[:2] != labels.shape:
        raise ValueError(
            f"mask is {list(labels.shape)} (height, width), "
            f"but its picture {list(picture.shape[:2])}"
        )


def _targets(entry: Entry, labels: list[NDArray[np.uint8]]) -> list[list[Target]]:
    """The objects of each picture; in a clip the same ones, in the same order, on all frames."""
    if not labels:
        return []
    named = [frozenset({int(one["id"])}) for one in entry["objects"]]
    named += [frozenset(map(int, group["ids"])) for group in entry.get("groups") or []]
    boxes = [find_objects(label) for label in labels]
    present = {number + 1 for own in boxes for number, one in enumerate(own) if one}
    kept = [ids for ids in dict.fromkeys(named) if ids & present]
    if not kept:
        raise ValueError("none of its objects has a pixel")
    return [[Target(ids, _union(ids, own)) for ids in kept] for own in boxes]


def _union(ids: Ids, boxes: list[tuple[slice, slice] | None]) -> tuple[int, int, int, int]:
    own = [one for i in ids if i <= len(boxes) and (one := boxes[i - 1]) is not None]
    if not own:
        return (0, 0, 0, 0)
    return (
        min(x.start for _, x in own),
        min(y.start for y, _ in own),
        max(x.stop for _, x in own),
        max(y.stop for y, _ in own),
    )


def _canvas(pictures: list[NDArray[np.uint8]]) -> Tensor:
    """[N, C, H, W]: each picture at the top left; what lies beyond it is 0."""
    height, width = np.max([one.shape[:2] for one in pictures], axis=0)
    height, width = (-(-int(side) // CANVAS_MULTIPLE) * CANVAS_MULTIPLE for side in (height, width))
    canvas = torch.zeros(len(pictures), pictures[0].shape[2], height, width, dtype=torch.uint8)
    for number, picture in enumerate(pictures):
        own = torch.from_numpy(picture).permute(2, 0, 1)
        canvas[number, :, : own.shape[1], : own.shape[2]] = own
    return canvas
