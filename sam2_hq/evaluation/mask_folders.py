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
            ValueError: if it mixes the layouts, or a frame has two files.
        """
        if not self.folder.is_dir():
            return False
        pictures = bool(png_files(self.folder))
        objects = any(png_files(folder) for folder in _folders(self.folder))
        if pictures and objects:
            raise ValueError(
                f"masks '{self.folder}' hold PNG files and folders of PNG files; "
                "one layout is needed"
            )
        return objects

    @cached_property
    def frames(self) -> list[str]:
        """Names of the annotated frames, without suffix, in natural order."""
        names = {name for files in self._files.values() for name in files}
        return sorted(names, key=natural_key)

    @cached_property
    def _files(self) -> dict[int | None, dict[str, Path]]:
        """Files by frame of each object; those of a packed folder are under None."""
        if not self.is_per_object:
            return {None: png_files(self.folder)}
        return {i: png_files(folder) for i, folder in self._object_folders.items()}

    @cached_property
    def _object_folders(self) -> dict[int, Path]:
        found: dict[int, Path] = {}
        for folder in _folders(self.folder):
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
        return sorted(self._files.get(object_id, {}), key=natural_key)

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
        owner, folder = None, self.folder
        if self.is_per_object:
            assert object_id is not None
            owner = object_id
            folder = self._object_folders.get(owner, self.folder / f"{owner:03d}")
        return self._files.get(owner, {}).get(frame, folder / f"{frame}.png")


def _folders(folder: Path) -> list[Path]:
    return sorted(e for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))


def png_files(folder: Path) -> dict[str, Path]:
    """PNG files by name without suffix, which may be in capitals; hidden ones are left out.

    Raises:
        ValueError: if two differ in the suffix alone.
    """
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for file in folder.iterdir():
        if file.suffix.lower() != ".png" or file.name.startswith("."):
            continue
        twin = found.setdefault(file.stem, file)
        if twin != file:
            raise ValueError(f"'{twin}' and '{file.name}' are the same mask")
    return found
