"""SA-V: masklets as run lengths in JSON, frames in video files or extracted from them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from glob import glob
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2_hq.data.frames import open_frames
from sam2_hq.ops.rle import RLE, rle_to_mask
from sam2_hq.training.clip_files import (
    Clip,
    assemble,
    choose_videos,
    picture_files,
    read_frames,
)
from sam2_hq.training.sample_log import SampleLog

SAV_SUFFIXES = ("_manual.json", "_auto.json")


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
        return read_frames([self.paths[place] for place in places])


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
        paths = sav_annotations(self.annotations)
        chosen = choose_videos(paths, names, self.annotations)
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
        return assemble(self.sample_name(index), frames, by_id)

    def _list_video(self, name: str, annotation: Path, log: SampleLog) -> _SavVideo | None:
        if self.frames is None:
            film = annotation.with_name(f"{name}.mp4")
            if film.is_file():
                return _SavVideo(name, annotation, _Film(film))
            log.skip(name, f"no video '{film}'")
        else:
            pictures = picture_files(self.frames / name)
            if pictures:
                return _SavVideo(name, annotation, _Pictures(pictures))
            log.skip(name, f"no frames in '{self.frames / name}'")
        return None

    def _open(self, index: int) -> tuple[list[int], list[list[RLE]]]:
        """Places and run lengths of the annotated frames that exist."""
        video = self.videos[index]
        name, path = video.name, video.annotation
        try:
            every, masklets = _parsed(path, path.stat().st_mtime_ns)
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"SA-V video {name}: '{path}' cannot be read: {error}") from error
        places = video.frames.places(len(masklets), every)
        return list(places.values()), [masklets[step] for step in places]


@lru_cache(maxsize=8)  # a sample asks for the number of frames, then for some: one parse
def _parsed(path: Path, changed_ns: int) -> tuple[int, list[list[RLE]]]:
    """Frames from one annotation to the next, and the run lengths of each annotated one."""
    del changed_ns  # a part of the key
    record = json.loads(path.read_text())
    masklets: list[list[RLE]] = record["masklet"]
    if not all(isinstance(frame, list) for frame in masklets):
        raise ValueError("each frame of 'masklet' must be a list of run lengths")
    return max(round(record["video_frame_count"] / len(masklets)), 1), masklets


def sav_annotations(folder: Path) -> dict[str, Path]:
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
