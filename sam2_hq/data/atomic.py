"""Files that appear whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any  # Any: JSON values


def partial_path(path: Path) -> Path:
    """Name an unfinished file: hidden, in the same folder, and of no other writer.

    Raises:
        ValueError: if the folder does not exist, or `path` is a folder.
    """
    if not path.parent.is_dir():
        raise ValueError(f"cannot write '{path}': there is no folder '{path.parent}'")
    if path.is_dir():
        raise ValueError(f"cannot write '{path}': it is a folder")
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write to the path this gives; it becomes `path` at the end, or vanishes on an error.

    Raises:
        ValueError: if the folder does not exist, or `path` is a folder.
    """
    final = Path(path)
    partial = partial_path(final)
    try:
        yield partial
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, tree: Any) -> None:
    """Write JSON values; see `whole_file`."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def sweep_partials(path: Path) -> None:
    """Remove what killed writers of `path` left behind. Only where nobody is writing it now."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        left.unlink(missing_ok=True)
