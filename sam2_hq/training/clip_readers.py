"""Videos with masks on disk: the tree of DAVIS, MOSE and YouTube-VOS, and SA-V's JSON masklets.

A reader lists the annotated frames of each video and decodes those asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2_hq.data.frames import natural_key, open_frames
from sam2_hq.data.masks import read_id_map
from sam2_hq.data.pictures import read_picture
from sam2_hq.ops.rle import RLE, rle_to_mask
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.still_readers import PICTURE_SUFFIXES, check_same_size, read_masks

VOID = 255
"""In an id map with other ids this means "do not care"; alone it is the object of a binary mask."""

SAV_TREES = ("JPEGImages_24fps", "Annotations_6fps")
FRAME_TREES = (
    ("JPEGImages/480p", "Annotations/480p"),
    ("JPEGImages/Full-Resolution", "Annotations/Full-Resolution"),
    ("JPEGImages", "Annotations"),
    SAV_TREES,
)
"""Frames and masks below the root of a data set, the first that exist."""

SAV_SUFFIXES = ("_manual.json", "_auto.json")


class Clip(NamedTuple):
    """Some frames of a video.

    frames: uint8 [T, H, W, 3]. masks: uint8 [T, O, H, W], 0 or 255; 0 where an object is absent.
    """

    name: str
    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]


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
        chosen = _choose(_folders(self.images), names, self.images)
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
        frames = _read_frames([video.frames[step] for step in steps])
        by_id = [_read_annotation(video.annotations[step]) for step in steps]
        return _assemble(video.name, frames, by_id)

    def _list_video(self, name: str, log: SampleLog) -> _Video | None:
        folder, masks = self.images / name, self.annotations / name
        if not masks.is_dir():
            log.skip(name, f"no folder '{masks}'")
            return None
        annotations = _list_annotations(masks)
        frames = [path for path in _pictures(folder) if path.stem in annotations]
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


@dataclass(frozen=True)
class _Pictures:
    """Frames in files of their own: all of a video, or the annotated ones alone."""

    paths: list[Path]

    def places(self, num_annotated: int, every: int) -> dict[int, int]:
        """Annotated frame -> place in `paths`, for those that were extracted."""
        if len(self.paths) == num_annotated:
            return {step: step for step in range(num_annotated)}
        numbers = {int(one.stem): i for i, one in enumerate(self.paths) if one.stem.isdigit()}
        steps = [step for step in range(num_annotated) if step * every in numbers]
        return {step: numbers[step * every] for step in steps}

    def read(self, places: Sequence[int]) -> NDArray[np.uint8]:
        return _read_frames([self.paths[place] for place in places])


@dataclass(frozen=True)
class _Film:
    """Frames in a video file."""

    path: Path

    def places(self, num_annotated: int, every: int) -> dict[int, int]:
        """Annotated frame -> frame of the video."""
        return {step: step * every for step in range(num_annotated)}

    def read(self, places: Sequence[int]) -> NDArray[np.uint8]:
        with open_frames(self.path) as film:
            if max(places) >= len(film):
                raise ValueError(
                    f"video '{self.path}' has {len(film)} frames, but frame {max(places)} "
                    "is annotated"
                )
            # Forward, each frame once: a step back decodes from the last key frame again.
            frames = {place: film[place] for place in sorted(set(places))}
        return np.stack([frames[place] for place in places])


@dataclass(frozen=True)
class _SavVideo:
    name: str
    annotation: Path
    frames: _Pictures | _Film


class SavFolder:
    """SA-V: `<video>_manual.json` or `<video>_auto.json` with run lengths, and their frames.

    Annotations are 6 a second, frames 24: the k-th annotation belongs to frame 4 k of the video
    file, to the picture whose name is 4 k, or to the k-th picture where only annotated frames were
    extracted.
    """

    def __init__(
        self,
        frames: str | os.PathLike[str] | None,
        annotations: str | os.PathLike[str],
        *,
        names: Sequence[str] | None = None,
        log: SampleLog | None = None,
    ) -> None:
        """List the videos.

        Args:
            frames: frames extracted to `<frames>/<video>/*.jpg`; None where `<video>.mp4` lies
                beside its JSON, as published.
            annotations: the JSON files, also in folders below; manual ones go before automatic
                ones of the same video.
            names: the videos to take, such as `sav_000001`; None for all.
            log: where videos without frames are counted.

        Raises:
            ValueError: if a folder is missing, `names` has a video without JSON, or no JSON has
                frames.
        """
        self.frames = None if frames is None else Path(frames)
        self.annotations = Path(annotations)
        log = SampleLog() if log is None else log
        for folder in (self.frames, self.annotations):
            if folder is not None and not folder.is_dir():
                raise ValueError(f"SA-V: no folder '{folder}'")
        paths = _sav_annotations(self.annotations)
        chosen = _choose(paths, names, self.annotations)
        self.videos = [one for name in chosen if (one := self._list_video(name, paths[name], log))]
        if not self.videos:
            raise ValueError(f"SA-V is empty: no JSON in '{self.annotations}' has frames")

    def __len__(self) -> int:
        return len(self.videos)

    def sample_name(self, index: int) -> str:
        """What messages call a video."""
        return self.videos[index].name

    def num_frames(self, index: int) -> int:
        """Annotated frames of a video that can be read.

        Raises:
            ValueError: if the JSON is damaged.
        """
        return len(self._open(index)[0])

    def read(self, index: int, steps: Sequence[int]) -> Clip:
        """Decode some annotated frames of a video; errors as in `FrameFolders.read`."""
        places, masklets = self._open(index)
        by_id = [
            {number: rle_to_mask(rle) for number, rle in enumerate(masklets[step])}
            for step in steps
        ]
        frames = self.videos[index].frames.read([places[step] for step in steps])
        return _assemble(self.sample_name(index), frames, by_id)

    def _list_video(self, name: str, annotation: Path, log: SampleLog) -> _SavVideo | None:
        if self.frames is None:
            film = annotation.with_name(f"{name}.mp4")
            if film.is_file():
                return _SavVideo(name, annotation, _Film(film))
            log.skip(name, f"no video '{film}'")
        else:
            pictures = _pictures(self.frames / name)
            if pictures:
                return _SavVideo(name, annotation, _Pictures(pictures))
            log.skip(name, f"no frames in '{self.frames / name}'")
        return None

    def _open(self, index: int) -> tuple[list[int], list[list[RLE]]]:
        """Places and run lengths of the annotated frames that exist."""
        video = self.videos[index]
        name, path = video.name, video.annotation
        try:
            record = json.loads(path.read_text())
            masklets: list[list[RLE]] = record["masklet"]
            every = max(round(record["video_frame_count"] / len(masklets)), 1)
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"SA-V video {name}: '{path}' cannot be read: {error}") from error
        places = video.frames.places(len(masklets), every)
        return list(places.values()), [masklets[step] for step in places]


def _read_frames(paths: Sequence[Path]) -> NDArray[np.uint8]:
    frames = [read_picture(path, f"frame '{path}'") for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if frame.shape != frames[0].shape:
            raise ValueError(
                f"frame '{path}' is {list(frame.shape[:2])} (height, width), "
                f"the first one is {list(frames[0].shape[:2])}"
            )
    return np.stack(frames)


def _read_annotation(annotation: Path | dict[int, Path]) -> dict[int, NDArray[np.bool_]]:
    if isinstance(annotation, dict):
        return {number: read_masks(path).max(0) > 127 for number, path in annotation.items()}
    ids = read_id_map(annotation)
    # 0 stands for "no object here" and keeps the size for the check against the frame.
    return {0: np.zeros(ids.shape, np.bool_)} | {
        int(number): ids == number for number in np.unique(ids) if number
    }


def _assemble(
    name: str, frames: NDArray[np.uint8], by_id: Sequence[dict[int, NDArray[np.bool_]]]
) -> Clip:
    for own in by_id:
        for mask in own.values():
            check_same_size(mask[None].astype(np.uint8), frames[0], f"a mask of video {name}")
    ids = sorted({number for own in by_id for number, mask in own.items() if mask.any()})
    if len(ids) > 1 and VOID in ids:
        ids.remove(VOID)
    if not ids:
        raise ValueError(f"video {name} shows no object on the frames asked for")
    masks = np.zeros((len(frames), len(ids), *frames.shape[1:3]), np.uint8)
    for step, own in enumerate(by_id):
        for slot, number in enumerate(ids):
            if number in own:
                masks[step, slot][own[number]] = 255
    return Clip(name, frames, masks)


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


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [one for one in folder.iterdir() if one.suffix.lower() in PICTURE_SUFFIXES]
    return sorted(found, key=lambda one: natural_key(one.name))


def _choose(known: Collection[str], names: Sequence[str] | None, folder: Path) -> list[str]:
    """The videos to take; ValueError for names that are not there."""
    if names is None:
        return list(known)
    known = set(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        shown = ", ".join(unknown[:3]) + ", ..." * (len(unknown) > 3)
        raise ValueError(
            f"names of videos must be in '{folder}', got {len(unknown)} that are not: {shown}"
        )
    return list(names)


def _frame_trees(root: Path) -> tuple[Path, Path] | None:
    """The first pair of folders that is there."""
    pairs = [(root / images, root / annotations) for images, annotations in FRAME_TREES]
    return next((pair for pair in pairs if all(folder.is_dir() for folder in pair)), None)


def _sav_annotations(folder: Path) -> dict[str, Path]:
    """The JSON of each video, at any depth."""
    # Unlike pathlib's, this glob enters linked folders: shards may lie on several disks.
    found = [Path(folder, one) for one in glob("**/*.json", root_dir=folder, recursive=True)]
    # By name "manual" comes after "auto", and the last one of a video stays.
    return {_sav_name(path): path for path in sorted(found, key=lambda one: one.name)}


def _sav_name(path: Path) -> str:
    for suffix in SAV_SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


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
        path.name.endswith(SAV_SUFFIXES) for path in _sav_annotations(root).values()
    ):
        return SavFolder(None, root, names=names, log=log)
    return find_frame_folders(root, names=names, log=log)
