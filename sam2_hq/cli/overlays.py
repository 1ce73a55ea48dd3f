"""Finished masks painted over their frames, as a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from sam2_hq.data.frames import VideoFrames
from sam2_hq.data.masks import read_id_map
from sam2_hq.data.video import VideoWriter
from sam2_hq.visualization import overlay


def write_overlay_video(
    frames: VideoFrames, indices: Sequence[int], masks: Path, path: Path, fps: float
) -> None:
    """Write the frames `indices` with their id maps from the folder `masks`; whole or not at all.

    Raises:
        ValueError: if a frame or a mask cannot be read.
        OSError: if the video cannot be written.
    """
    with VideoWriter(path, fps, frames.size) as video:
        for index in tqdm(indices, desc="overlay", unit="frame"):
            id_map = read_id_map(masks / f"{frames.names[index]}.png")
            video.write(overlay(frames[index], id_map))
