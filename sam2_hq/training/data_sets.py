"""Open the data that a recipe names, and make clips of it where the model learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch

from sam2_hq.training.batch import ClipMaker
from sam2_hq.training.clip_readers import FrameFolders, SavFolder, open_clips
from sam2_hq.training.config import DataOptions, FolderOptions, PackOptions, pack_path
from sam2_hq.training.gallery import Gallery
from sam2_hq.training.packs import read_backgrounds, read_clips, read_cutouts, read_photos
from sam2_hq.training.reader_source import ClipSource, StillSource
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.stage import PackSource
from sam2_hq.training.still_readers import StillFolder, read_hqseg

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
    stills, clips = open_folders(data.folders, log)

    def make(side: int, num_frames: int) -> ClipMaker:
        if clips and num_frames > 1:
            return ClipSource(
                clips,
                side=side,
                num_frames=num_frames,
                max_objects=data.max_objects,
                colours=data.colours,
                log=log,
                device=device,
            )
        return StillSource(
            stills,
            side=side,
            num_frames=num_frames,
            max_objects=data.max_objects,
            colours=data.colours,
            log=log,
            device=device,
        )

    return make


def _of_packs(
    data: DataOptions, packs: PackOptions, device: torch.device, log: SampleLog
) -> MakerOf:
    def read(name: str | None, reader: Callable[..., Gallery]) -> Gallery | None:
        if name is None:
            return None
        return reader(pack_path(packs, name), allow=packs.allow, log=log).to(device)

    photos, cutouts = read(packs.photos, read_photos), read(packs.cutouts, read_cutouts)
    backgrounds = read(packs.backgrounds, read_backgrounds)
    clips = read(packs.clips, read_clips)

    def make(side: int, num_frames: int) -> ClipMaker:
        options = data.scene
        if num_frames == 1:  # a still has no place for a real clip
            options = replace(data.still_scene or data.scene, clips=0.0)
        return PackSource(
            side=side,
            num_frames=num_frames,
            max_objects=data.max_objects,
            options=options,
            colours=data.colours,
            photos=photos,
            cutouts=cutouts,
            backgrounds=backgrounds,
            clips=clips,
        )

    return make


def open_folders(
    folders: Iterable[FolderOptions], log: SampleLog
) -> tuple[list[StillFolder], list[FrameFolders | SavFolder]]:
    """Readers of pictures and of videos.

    Raises:
        ValueError: if a layout is unknown, or a folder holds nothing usable.
    """
    stills: list[StillFolder] = []
    clips: list[FrameFolders | SavFolder] = []
    for folder in folders:
        root = Path(folder.root).expanduser()
        if folder.layout == "images_masks":
            stills.append(StillFolder(root / "images", root / "masks", log=log))
        elif folder.layout == "hqseg44k":
            stills += read_hqseg(root, log=log)
        elif folder.layout in ("davis", "youtube_vos", "mose", "sav"):
            clips.append(open_clips(root, log=log))
        else:
            known = "images_masks, hqseg44k, davis, youtube_vos, mose or sav"
            raise ValueError(f"train.data.folders: layout must be {known}, got {folder.layout!r}")
    return stills, clips
