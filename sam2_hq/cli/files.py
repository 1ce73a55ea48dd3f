"""JSON and pictures as files that appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam2_hq.data.atomic import whole_file


def write_json(path: Path, tree: Any) -> None:
    """Write JSON values."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write [H, W, 3] uint8 RGB, or [H, W] uint16 gray."""
    with whole_file(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG")
