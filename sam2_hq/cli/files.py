"""Files that a command reads and writes: pictures, and texts that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from sam2_hq.data.atomic import check_writable, whole_file
from sam2_hq.data.frames import open_frames


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse to write over a file that says something, unless the user asked for it.

    Raises:
        ValueError: if there is such a file, a folder in its place, or no folder for it.
    """
    check_writable(path)
    if path.is_file() and path.stat().st_size and not overwrite:
        raise ValueError(f"'{path}' exists; --overwrite replaces it")


def check_not_read(path: Path, *inputs: Path | None) -> None:
    """Refuse to write over one of the inputs, whatever the user asked for.

    Raises:
        ValueError: if `path` is one of the inputs.
    """
    for given in inputs:
        if given is not None and path.exists() and given.exists() and path.samefile(given):
            raise ValueError(f"cannot write '{path}': it is what the command reads")


def check_all_free(paths: Mapping[str, Path | None], overwrite: bool) -> None:
    """Look at the files of all options that are given, by option; each needs one of its own.

    Raises:
        ValueError: as `check_free`, or if two options name the same file.
    """
    owners: dict[Path, str] = {}
    for option, path in paths.items():
        if path is None:
            continue
        check_free(path, overwrite=overwrite)
        owner = owners.setdefault(path.resolve(), option)
        if owner != option:
            raise ValueError(f"{owner} and {option} must be different files, both are '{path}'")


def read_picture_file(path: Path) -> np.ndarray:
    """[H, W, 3] uint8 RGB of a file that holds one picture.

    Raises:
        ValueError: if the file is missing, damaged, no picture, or moves.
    """
    if path.is_dir():
        raise ValueError(f"IMAGE must be one picture, {path} is a folder (see sam2-hq track)")
    with open_frames(path) as frames:
        if len(frames) != 1:
            raise ValueError(
                f"IMAGE must be one picture, {path} has {len(frames)} frames (see sam2-hq track)"
            )
        return frames[0]


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write [H, W, 3] uint8 RGB, or [H, W] uint16 gray."""
    with whole_file(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG")
