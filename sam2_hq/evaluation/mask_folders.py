"""Masks of one video in a folder, in the two layouts of the benchmarks.

Packed: `<frame>.png`, the pixel value is the object's id (DAVIS, MOSE, YouTube-VOS, LVOS).
Per object: `<id>/<frame>.png`, every pixel that is not zero belongs to the object (SA-V).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sam2_hq.data.frames import natural_key
from sam2_hq.data.masks import BoolMask, IdMap, read_id_map


class FrameMasks(NamedTuple):
    """The objects of one frame.

    size: height and width.
    masks: bool [H, W] by id: the objects that have a pixel or, per object, a file.
    void: bool [H, W] where nobody should be judged, or None.
    """

    size: tuple[int, int]
    masks: dict[int, BoolMask]
    void: BoolMask | None = None


@dataclass(frozen=True)
class MaskFolder:
    """The masks of one video; nothing is read before it is asked for.

    folder: holds PNG files, or one folder an object.
    void: an id that is no object, or None.
    is_binary: everything but background is object 1.
    """

    folder: Path
    void: int | None = None
    is_binary: bool = False

    @cached_property
    def is_per_object(self) -> bool:
        """Whether each object has a folder of its own; a folder without masks is packed.

        Raises:
            ValueError: if it mixes the layouts.
        """
        if not self.folder.is_dir():
            return False
        pictures = bool(_pngs(self.folder))
        objects = any(entry.is_dir() and _pngs(entry) for entry in self.folder.iterdir())
        if pictures and objects:
            raise ValueError(
                f"masks '{self.folder}' hold PNG files and folders of PNG files; "
                "one layout is needed"
            )
        return objects

    @cached_property
    def frames(self) -> list[str]:
        """Names of the annotated frames, without suffix, in natural order."""
        if not self.is_per_object:
            return _pngs(self.folder)
        names = {name for folder in self._object_folders.values() for name in _pngs(folder)}
        return sorted(names, key=natural_key)

    @cached_property
    def _object_folders(self) -> dict[int, Path]:
        found: dict[int, Path] = {}
        for folder in sorted(self.folder.iterdir()):
            if not folder.is_dir() or folder.name.startswith("."):
                continue
            if not folder.name.isdecimal():
                raise ValueError(f"object folder '{folder}' must be named by a number")
            twin = found.setdefault(int(folder.name), folder)
            if twin != folder:
                raise ValueError(f"'{twin}' and '{folder.name}' are the same object")
        return found

    @cached_property
    def object_ids(self) -> list[int]:
        """Ids of all objects, ascending; a packed folder is read whole to learn them."""
        if self.is_per_object:
            return sorted(self._object_folders)
        return sorted({i for frame in self.frames for i in self.read(frame).masks})

    def frames_of(self, object_id: int) -> list[str]:
        """Frames on which this object is annotated, be it as absent."""
        if not self.is_per_object:
            return self.frames
        folder = self._object_folders.get(object_id)
        return _pngs(folder) if folder is not None else []

    def read(self, frame: str) -> FrameMasks:
        """The objects on one frame.

        Raises:
            ValueError: if a file is missing, damaged or no id map, or sizes differ.
        """
        if not self.is_per_object:
            return self._split(read_id_map(self.file(frame)))
        files = {i: self.file(frame, i) for i in self._object_folders}
        masks = {i: read_id_map(file) != 0 for i, file in files.items() if file.is_file()}
        if not masks:
            raise ValueError(f"mask '{self.folder}/*/{frame}.png': no such file")
        sizes = {mask.shape for mask in masks.values()}
        if len(sizes) > 1:
            raise ValueError(f"masks '{self.folder}/*/{frame}.png' differ in size")
        height, width = sizes.pop()
        return FrameMasks((height, width), masks)

    def read_beside(self, frame: str, size: tuple[int, int]) -> FrameMasks | None:
        """The objects on a frame whose truth has this size; None without any mask.

        Raises:
            ValueError: as `read`, and for masks of another size.
        """
        if not self.has_any(frame):
            return None
        found = self.read(frame)
        if found.size != size:
            raise ValueError(
                f"mask '{frame}' in '{self.folder}' is {list(found.size)}, "
                f"the truth is {list(size)} (height, width)"
            )
        return found

    def _split(self, ids: IdMap) -> FrameMasks:
        height, width = ids.shape
        # Every id ends somewhere; counting these few pixels beats counting or sorting all.
        pixels = ids.ravel()
        ends = pixels[:-1][pixels[:-1] != pixels[1:]]
        present = {*np.flatnonzero(np.bincount(ends)).tolist(), int(pixels[-1])} - {0}
        if self.is_binary:
            return FrameMasks((height, width), {1: ids != 0} if present else {})
        void = ids == self.void if self.void in present else None
        masks = {i: ids == i for i in sorted(present - {self.void})}
        return FrameMasks((height, width), masks, void)

    def has(self, frame: str, object_id: int | None = None) -> bool:
        """Whether the frame has a file: the packed one, or that of an object."""
        return self.file(frame, object_id).is_file()

    def has_any(self, frame: str) -> bool:
        """Whether there is any mask of the frame."""
        if not self.is_per_object:
            return self.has(frame)
        return any(self.has(frame, i) for i in self._object_folders)

    def file(self, frame: str, object_id: int | None = None) -> Path:
        """Where the mask is or would be."""
        if not self.is_per_object:
            return self.folder / f"{frame}.png"
        assert object_id is not None
        folder = self._object_folders.get(object_id, self.folder / f"{object_id:03d}")
        return folder / f"{frame}.png"


def _pngs(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    names = [
        file.stem
        for file in folder.iterdir()
        if file.suffix.lower() == ".png" and not file.name.startswith(".")
    ]
    return sorted(names, key=natural_key)
