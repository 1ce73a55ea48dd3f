"""A tiny clip of two moving squares, and the command line run on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sam2_hq.cli.main import app

HEIGHT, WIDTH = 48, 64


@pytest.fixture
def run() -> Callable[..., Any]:
    """Run `sam2-hq` with arguments, in this process."""
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(word) for word in arguments])


def write_frames(folder: Path, num_frames: int) -> Path:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index in range(num_frames):
        frame = noise.copy()
        frame[10:26, 6 + 2 * index : 22 + 2 * index] = (220, 60, 40)
        frame[28:42, 40 - 2 * index : 54 - 2 * index] = (40, 90, 230)
        Image.fromarray(frame).save(folder / f"shot_{index + 8}.png")
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder of 5 frames, named so that natural and alphabetical order differ."""
    return write_frames(tmp_path / "clip", 5)


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    """A folder of 30 frames."""
    return write_frames(tmp_path / "long_clip", 30)


@pytest.fixture
def picture(clip: Path) -> Path:
    """One picture."""
    return clip / "shot_8.png"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to write; not there yet."""
    return tmp_path / "out"
