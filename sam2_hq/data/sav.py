"""SA-V as it is published: `<video>.mp4` beside `<video>_manual.json` and `<video>_auto.json`.

For looking at the data; `training/clip_readers.py` reads clips to train on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple  # Any: JSON values

import numpy as np
from numpy.typing import NDArray

from sam2_hq.data.frames import VideoFrames, open_frames
from sam2_hq.ops.rle import rle_to_mask
from sam2_hq.visualization import overlay, stack_masks

Annotation = dict[str, Any]
"""A JSON file of SA-V; `masklet` holds run lengths by annotated frame and object."""


class SAVVideo(NamedTuple):
    """A video with the masklets that people drew and those that a model found."""

    frames: VideoFrames
    manual: Annotation | None
    auto: Annotation | None


class SAVDataset:
    """Videos and masklets of SA-V. Reads nothing before it is asked for.

    Args:
        sav_dir: holds the videos and their JSON files.
        annot_sample_rate: video frames from one annotated frame to the next.

    Raises:
        ValueError: if there is no such folder, or the rate is below 1.
    """

    def __init__(self, sav_dir: str | os.PathLike[str], annot_sample_rate: int = 4) -> None:
        self.sav_dir = Path(sav_dir)
        self.annot_sample_rate = annot_sample_rate
        if not self.sav_dir.is_dir():
            raise ValueError(f"sav_dir: there is no folder '{sav_dir}'")
        if annot_sample_rate < 1:
            raise ValueError(f"annot_sample_rate must be 1 or more, got {annot_sample_rate}")

    def read_frames(self, mp4_path: str | os.PathLike[str]) -> VideoFrames:
        """Open a video, or a folder of its frames: RGB uint8 [H, W, 3] by index, read when needed.

        Raises:
            ValueError: if it is missing or damaged.
        """
        return open_frames(mp4_path)

    def get_frames_and_annotations(self, video_id: str) -> SAVVideo:
        """Open a video and read its masklets; None for those that it has not.

        Args:
            video_id: such as `sav_000001`.

        Raises:
            ValueError: if the video or both JSON files are missing, or one is damaged.
        """
        paths = [self.sav_dir / f"{video_id}_{kind}.json" for kind in ("manual", "auto")]
        manual, auto = (read_annotation(path) if path.is_file() else None for path in paths)
        if manual is None and auto is None:
            raise ValueError(f"video_id '{video_id}' has no masklets: no file '{paths[0]}'")
        return SAVVideo(self.read_frames(self.sav_dir / f"{video_id}.mp4"), manual, auto)

    def visualize_annotation(
        self,
        frames: VideoFrames,
        auto_annot: Annotation | None,
        manual_annot: Annotation | None,
        annotated_frame_id: int,
        show_auto: bool = True,
        show_manual: bool = True,
    ) -> NDArray[np.uint8]:
        """Paint masklets over a frame, small ones on top.

        Args:
            frames: of the video.
            auto_annot: found by a model, or None.
            manual_annot: drawn by people, or None.
            annotated_frame_id: counts annotated frames from 0; frame `annot_sample_rate` times
                that is shown.
            show_auto: paint `auto_annot`.
            show_manual: paint `manual_annot`.

        Returns:
            RGB uint8 [H, W, 3].

        Raises:
            ValueError: if an annotation does not reach that frame, or does not fit the video.
            IndexError: if the video does not reach it.
        """
        masks = []
        for annotation, is_shown in ((auto_annot, show_auto), (manual_annot, show_manual)):
            if annotation is not None and is_shown:
                masks += masks_of(annotation, annotated_frame_id)
        frame = frames[annotated_frame_id * self.annot_sample_rate]
        return overlay(frame, stack_masks(masks)) if masks else frame


def masks_of(annotation: Annotation, annotated_frame_id: int) -> list[NDArray[np.bool_]]:
    """Masks [H, W] of all objects on an annotated frame; empty where one is out of sight.

    Raises:
        ValueError: beyond the last annotated frame.
    """
    masklets = annotation["masklet"]
    if not 0 <= annotated_frame_id < len(masklets):
        raise ValueError(
            f"annotated_frame_id must be 0 to {len(masklets) - 1}, got {annotated_frame_id}"
        )
    return [rle_to_mask(rle) for rle in masklets[annotated_frame_id]]


def read_annotation(path: str | os.PathLike[str]) -> Annotation:
    """Read a JSON file of SA-V.

    Raises:
        ValueError: if it is missing, damaged, or has no masklets.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"annotation '{path}': no such file")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"annotation '{path}' is no JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("masklet"), list):
        raise ValueError(f"annotation '{path}' has no list 'masklet'")
    return record
