"""Videos with masks on disk: the tree of DAVIS, MOSE and YouTube-VOS; SA-V is in `sav_reader.py`.

A reader lists the annotated frames of each video and decodes those asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2_hq.data.frames import natural_key
from sam2_hq.data.masks import read_id_map
from sam2_hq.training.clip_files import (
    Clip,
    assemble,
    choose_videos,
    picture_files,
    read_frames,
)
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.sav_reader import SAV_SUFFIXES, SavFolder, sav_annotations
from sam2_hq.training.still_readers import HALF, read_masks

SAV_TREES = ("JPEGImages_24fps", "Annotations_6fps")
FRAME_TREES = (
    ("JPEGImages/480p", "Annotations/480p"),
    ("JPEGImages/Full-Resolution", "Annotations/Full-Resolution"),
    ("JPEGImages", "Annotations"),
    SAV_TREES,
)
"""Frames and masks below the root of a data set, the first that exist."""


@dataclass(frozen=True)
class _Video:
    name: str
    frames: list[Path]
    # The masks of each frame: an id map, or one picture for each object.
    annotations: list[Path | dict[int, Path]]


class FrameFolders:
    """Videos as `JPEGImages/<video>/*.jpg` and `Annotations/<video>/*.png`.

    Masks are id maps, or one folder for each object (`Annotations/<video>/<object>/*.png`). Frames
    without an annotation are left out, as in YouTube-VOS and SA-V.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        *,
        names: Sequence[str] | None = None,
        log: SampleLog | None = None,
    ) -> None:
        """List the videos.

        Args:
            images: e.g. `DAVIS/JPEGImages/480p`, `MOSE/train/JPEGImages`, `JPEGImages_24fps`.
            annotations: e.g. `DAVIS/Annotations/480p`, `MOSE/train/Annotations`.
            names: the videos to take, e.g. the lines of `ImageSets/2017/train.txt`; None for all.
            log: where videos without frames or masks are counted.

        Raises:
            ValueError: if a folder is missing, `names` has a video without frames, or no video is
                usable.
        """
        self.images, self.annotations = Path(images), Path(annotations)
        log = SampleLog() if log is None else log
        for folder in (self.images, self.annotations):
            if not folder.is_dir():
                raise ValueError(f"video data set: no folder '{folder}'")
        chosen = choose_videos(_folders(self.images), names, self.images)
        self.videos = [video for name in chosen if (video := self._list_video(name, log))]
        if not self.videos:
            raise ValueError(
                f"video data set is empty: nothing in '{self.images}' "
                f"has masks in '{self.annotations}'"
            )

    def __len__(self) -> int:
        return len(self.videos)

    def sample_name(self, index: int) -> str:
        """What messages call a video."""
        return self.videos[index].name

    def num_frames(self, index: int) -> int:
        """Annotated frames of a video."""
        return len(self.videos[index].frames)

    def read(self, index: int, steps: Sequence[int]) -> Clip:
        """Decode some annotated frames of a video, in the order given.

        Raises:
            ValueError: if a file is damaged, sizes differ, or no object is on any of the frames.
            IndexError: beyond the end.
        """
        video = self.videos[index]
        frames = read_frames([video.frames[step] for step in steps])
        by_id = [_read_annotation(video.annotations[step]) for step in steps]
        return assemble(video.name, frames, by_id)

    def _list_video(self, name: str, log: SampleLog) -> _Video | None:
        folder, masks = self.images / name, self.annotations / name
        if not masks.is_dir():
            log.skip(name, f"no folder '{masks}'")
            return None
        annotations = _list_annotations(masks)
        frames = [path for path in picture_files(folder) if path.stem in annotations]
        if not frames:
            log.skip(name, f"no frame in '{folder}' has a mask in '{masks}'")
            return None
        return _Video(name, frames, [annotations[path.stem] for path in frames])


def find_frame_folders(
    root: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    log: SampleLog | None = None,
) -> FrameFolders:
    """Open DAVIS, MOSE, YouTube-VOS or SA-V's object folders by the folder that holds both trees.

    DAVIS keeps resolutions apart (`JPEGImages/480p`); the smallest one there is taken.

    Args:
        root: holds `JPEGImages` and `Annotations`, or `JPEGImages_24fps` and `Annotations_6fps`.
        names: as in `FrameFolders`.
        log: as in `FrameFolders`.

    Raises:
        ValueError: if there is neither pair, or as `FrameFolders`.
    """
    trees = _frame_trees(Path(root))
    if trees is None:
        known = ", ".join(" + ".join(pair) for pair in FRAME_TREES)
        raise ValueError(f"no video data set in '{root}': it has none of {known}")
    return FrameFolders(*trees, names=names, log=log)


def _read_annotation(annotation: Path | dict[int, Path]) -> dict[int, NDArray[np.bool_]]:
    if isinstance(annotation, dict):
        return {number: read_masks(path).max(0) > HALF for number, path in annotation.items()}
    ids = read_id_map(annotation)
    # 0 stands for "no object here" and keeps the size for the check against the frame.
    return {0: np.zeros(ids.shape, np.bool_)} | {
        int(number): ids == number for number in np.unique(ids) if number
    }


def _list_annotations(folder: Path) -> dict[str, Path | dict[int, Path]]:
    """Annotations by the stem of their frame."""
    maps: dict[str, Path | dict[int, Path]] = {one.stem: one for one in _pngs(folder)}
    objects: dict[str, dict[int, Path]] = {}
    for number, name in enumerate(_folders(folder)):
        for path in _pngs(folder / name):
            objects.setdefault(path.stem, {})[number] = path
    return maps or dict(objects.items())


def _pngs(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if one.suffix.lower() == ".png"]


def _folders(folder: Path) -> list[str]:
    return sorted((one.name for one in folder.iterdir() if one.is_dir()), key=natural_key)


def _frame_trees(root: Path) -> tuple[Path, Path] | None:
    """The first pair of folders that is there."""
    pairs = [(root / images, root / annotations) for images, annotations in FRAME_TREES]
    return next((pair for pair in pairs if all(folder.is_dir() for folder in pair)), None)


def open_clips(
    root: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    log: SampleLog | None = None,
) -> FrameFolders | SavFolder:
    """Open a video data set by what its folder holds: SA-V's JSON masklets, or trees of masks.

    Args:
        root: of a pair of trees as in `find_frame_folders`, with masks or JSON, or of SA-V's
            videos beside their JSON.
        names: the videos to take; None for all.
        log: where unusable videos are counted.

    Raises:
        ValueError: as `find_frame_folders` and `SavFolder`.
    """
    root = Path(root)
    frames, annotations = (root / name for name in SAV_TREES)
    if any(annotations.glob("*.json")):
        return SavFolder(frames, annotations, names=names, log=log)
    if _frame_trees(root) is None and any(
        path.name.endswith(SAV_SUFFIXES) for path in sav_annotations(root).values()
    ):
        return SavFolder(None, root, names=names, log=log)
    return find_frame_folders(root, names=names, log=log)
