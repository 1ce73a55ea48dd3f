"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` if nothing fails, else it goes."""
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, tree: Any) -> None:
    """Write JSON values."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def write_picture(path: Path, image: Image.Image) -> None:
    """Write a picture in the format that the suffix of `path` names."""
    with whole_file(path) as partial:
        image.save(partial)
