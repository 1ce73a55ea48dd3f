"""Files that appear whole or not at all."""

from __future__ import annotations

import glob
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any  # Any: JSON values


def check_writable(path: Path) -> None:
    """Refuse a path that can be no file.

    Raises:
        ValueError: if the folder does not exist, or `path` is a folder.
    """
    if not path.parent.is_dir():
        raise ValueError(f"cannot write '{path}': there is no folder '{path.parent}'")
    if path.is_dir():
        raise ValueError(f"cannot write '{path}': it is a folder")


def partial_path(path: Path) -> Path:
    """Name an unfinished file: hidden, in the same folder, and of no other writer.

    Raises:
        ValueError: as `check_writable`.
    """
    check_writable(path)
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write to the path this gives; it becomes `path` at the end, or vanishes on an error.

    A device or a pipe, such as /dev/stdout, is written to as it is; a link keeps pointing to what
    is replaced.

    Raises:
        ValueError: if the folder does not exist, or `path` is a folder.
    """
    final = Path(path)
    if final.exists() and not (final.is_file() or final.is_dir()):
        yield final
        return
    final = final.resolve() if final.is_symlink() else final
    partial = partial_path(final)
    try:
        yield partial
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, tree: Any) -> None:
    """Write JSON values, null for numbers that JSON does not know; see `whole_file`."""
    text = json.dumps(_known_to_json(tree), indent=1, allow_nan=False)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _known_to_json(tree: Any) -> Any:
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else None
    if isinstance(tree, dict):
        return {key: _known_to_json(value) for key, value in tree.items()}
    return [_known_to_json(value) for value in tree] if isinstance(tree, list | tuple) else tree


def sweep_partials(path: Path, *, and_longer: bool = False) -> None:
    """Remove what killed writers of `path` left behind. Only where nobody is writing it now.

    Args:
        path: the file that was being written.
        and_longer: also of files whose name goes on after that of `path`.
    """
    rest = "*" if and_longer else ".*"
    for left in path.parent.glob(f".{glob.escape(path.name)}{rest}.partial"):
        left.unlink(missing_ok=True)
