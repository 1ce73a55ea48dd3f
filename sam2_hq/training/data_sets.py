"""Open the data that a recipe names, and make clips of it where the model learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from sam2_hq.evaluation.datasets import read_sequence_list
from sam2_hq.training.batch import ClipMaker
from sam2_hq.training.clip_readers import FrameFolders, open_clips
from sam2_hq.training.config import DataOptions, FolderOptions, PackOptions, pack_path
from sam2_hq.training.gallery import Gallery
from sam2_hq.training.out_of_memory import explained_out_of_memory
from sam2_hq.training.pack_source import PackSource
from sam2_hq.training.packs import read_backgrounds, read_clips, read_cutouts, read_photos
from sam2_hq.training.reader_source import ClipSource, StillSource
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.sav_reader import SavFolder
from sam2_hq.training.scripts import SceneOptions
from sam2_hq.training.still_readers import HQSEG_FOLDERS, StillFolder, read_hqseg

VIDEO_LAYOUTS = ("davis", "youtube_vos", "mose", "sav")
LAYOUTS = ("images_masks", "hqseg44k", *VIDEO_LAYOUTS)

MakerOf = Callable[[int, int], ClipMaker]  # by side and number of frames


def open_data(data: DataOptions, *, device: torch.device, log: SampleLog) -> MakerOf:
    """Read packs, or list folders.

    Args:
        data: what a recipe says.
        device: where clips are made; packs are kept there.
        log: where bad samples are counted.

    Returns:
        Side and number of frames to a maker of clips.

    Raises:
        ValueError: if there is nothing usable.
    """
    if data.packs is not None:
        return _of_packs(data, data.packs, device, log)
    return _of_folders(data, device, log)


def _of_folders(data: DataOptions, device: torch.device, log: SampleLog) -> MakerOf:
    stills, clips = open_folders(data.folders, log)

    def make(side: int, num_frames: int) -> ClipMaker:
        # Without stills a frame of a video is one; without videos a camera moves over stills.
        if clips and (num_frames > 1 or not stills):
            return ClipSource(
                clips,
                side=side,
                num_frames=num_frames,
                max_objects=data.max_objects,
                options=_scene(data, num_frames),
                colours=data.colours,
                log=log,
                device=device,
                num_workers=data.workers,
            )
        return StillSource(
            stills,
            side=side,
            num_frames=num_frames,
            max_objects=data.max_objects,
            options=_scene(data, num_frames),
            colours=data.colours,
            log=log,
            device=device,
            num_workers=data.workers,
        )

    return make


def _of_packs(
    data: DataOptions, packs: PackOptions, device: torch.device, log: SampleLog
) -> MakerOf:
    def read(name: str | None, reader: Callable[..., Gallery]) -> Gallery | None:
        if name is None:
            return None
        path = pack_path(packs, name)
        with explained_out_of_memory(f"pack '{path}'", advice="it must fit decoded; split it"):
            return reader(path, allow=packs.allow, log=log).to(device)

    photos, cutouts = read(packs.photos, read_photos), read(packs.cutouts, read_cutouts)
    backgrounds = read(packs.backgrounds, read_backgrounds)
    clips = read(packs.clips, read_clips)

    def make(side: int, num_frames: int) -> ClipMaker:
        return PackSource(
            side=side,
            num_frames=num_frames,
            max_objects=data.max_objects,
            options=_scene(data, num_frames),
            colours=data.colours,
            photos=photos,
            cutouts=cutouts,
            backgrounds=backgrounds,
            clips=clips,
        )

    return make


def _scene(data: DataOptions, num_frames: int) -> SceneOptions:
    if num_frames > 1:
        return data.scene
    return data.still_scene or data.scene


def open_folders(
    folders: Iterable[FolderOptions],
    log: SampleLog,
    *,
    key: str = "train.data.folders",
    hqseg_sets: Iterable[str] = HQSEG_FOLDERS,
) -> tuple[list[StillFolder], list[FrameFolders | SavFolder]]:
    """Readers of pictures and of videos.

    Args:
        folders: what a recipe says.
        log: where unusable samples are counted.
        key: where the recipe says it.
        hqseg_sets: what is taken of HQSeg-44K where the recipe does not choose.

    Raises:
        ValueError: if a layout is unknown or has no use for an option, a folder holds nothing
            usable, or videos or sets that were chosen are not there.
    """
    stills: list[StillFolder] = []
    clips: list[FrameFolders | SavFolder] = []
    for folder in folders:
        _check_options(folder, key)
        root = Path(folder.root).expanduser()
        if folder.layout == "images_masks":
            stills.append(StillFolder(root / "images", root / "masks", log=log))
        elif folder.layout == "hqseg44k":
            stills += read_hqseg(root, names=folder.sets or tuple(hqseg_sets), log=log)
        else:
            clips.append(open_clips(root, names=_chosen_videos(folder, root, key), log=log))
    return stills, clips


def _check_options(folder: FolderOptions, key: str) -> None:
    if folder.layout not in LAYOUTS:
        known = f"{', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]}"
        raise ValueError(f"{key}: layout must be {known}, got {folder.layout!r}")
    if folder.videos is not None and folder.layout not in VIDEO_LAYOUTS:
        raise ValueError(
            f"{key}: videos must be null for layout {folder.layout}, "
            f"which has none, got {folder.videos!r}"
        )
    if folder.sets and folder.layout != "hqseg44k":
        raise ValueError(
            f"{key}: sets must be empty for layout {folder.layout}, "
            f"which has none, got {list(folder.sets)}"
        )


def _chosen_videos(folder: FolderOptions, root: Path, key: str) -> list[str] | None:
    if folder.videos is None:
        return None
    given = Path(folder.videos).expanduser()
    try:
        return read_sequence_list(given if given.is_file() else root / given)
    except ValueError as error:
        raise ValueError(f"{key}: videos: {error}") from error
