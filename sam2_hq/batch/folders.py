"""The folder of a run: results that appear whole, what was asked for, and what is done.

OUT/<sequence>/        masks of one sequence
OUT/manifest.jsonl     a line a sequence
OUT/settings.json      what decides the masks; another run may not mix its own in
OUT/scores.json, OUT/report.html
OUT/.*.partial         unfinished; of no use to anyone
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any  # Any: JSON values

from filelock import FileLock, Timeout

from sam2_hq.batch.manifest import Manifest, Record
from sam2_hq.data.atomic import write_json

Settings = dict[str, Any]


class RunFolder:
    """Owns what is in the folder of a run, and removes nothing that no run wrote."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = Manifest(root / "manifest.jsonl")
        self.scores = root / "scores.json"
        self.report = root / "report.html"
        self._settings = root / "settings.json"

    def check(
        self, settings: Settings, names: Sequence[str], *, overwrite: bool
    ) -> dict[str, Record]:
        """What an earlier run has done; nothing with `overwrite`. Changes nothing.

        Raises:
            ValueError: if the folder holds files and no run, a run with other settings, a damaged
                manifest, or under one of the names a folder that no run wrote.
        """
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"out must be a folder, '{self.root}' is a file")
        if not self._settings.is_file():
            if self.root.is_dir() and any(not _is_unfinished(p) for p in self.root.iterdir()):
                raise ValueError(f"out '{self.root}' holds files, but no run of a data set")
            return {}
        records = self.manifest.read()
        for name in names:
            if name not in records and (self.root / name).exists():
                raise ValueError(f"'{self.root / name}' is in the way: no run of a data set")
        if overwrite:
            return {}
        _check_same(json.loads(self._settings.read_text(encoding="utf-8")), settings, self.root)
        return {
            name: record
            for name, record in records.items()
            if record.status == "done" and (self.root / name).is_dir()
        }

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs of this user on this machine out. Writes nothing into the folder.

        Raises:
            ValueError: if another run holds it.
        """
        name = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]
        user = os.getuid() if hasattr(os, "getuid") else 0
        lock = FileLock(Path(tempfile.gettempdir()) / f"sam2_hq-{user}-{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"another run is writing into '{self.root}'; wait for it, or use another folder"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def begin(self, settings: Settings, *, overwrite: bool) -> None:
        """Make the folder ready for results, as `check` has allowed it."""
        if overwrite and self._settings.is_file():
            self._clear()
        self.root.mkdir(parents=True, exist_ok=True)
        if not self._settings.is_file():
            write_json(self._settings, settings)
        self.manifest.forget_unfinished_line()

    def add(self, record: Record, folder: Path | None) -> None:
        """Note what became of a sequence, then let its masks appear."""
        self.manifest.add(record)
        if folder is not None:
            discard(self.root / record.name)
            os.replace(folder, self.root / record.name)

    def discard_unfinished(self, names: Sequence[str]) -> None:
        """Remove what killed workers left of these sequences."""
        for name in names:
            for folder in self.root.glob(f".{glob.escape(name)}.*.partial"):
                discard(folder)

    def _clear(self) -> None:
        for name in self.manifest.read():
            discard(self.root / name)
        # The sign that the folder is ours goes last, in case this is interrupted.
        for file in (self.scores, self.report, self.manifest.path, self._settings):
            file.unlink(missing_ok=True)


def unfinished_folder(out: Path, name: str) -> Path:
    """A hidden name beside the result folder, of no other writer; nothing is made."""
    return out / f".{name}.{secrets.token_hex(4)}.partial"


def discard(folder: Path) -> None:
    """Remove a folder and what is in it, if it is there; interrupted, it leaves no half result."""
    if not folder.exists():
        return
    if not _is_unfinished(folder):
        folder = folder.rename(unfinished_folder(folder.parent, folder.name))
    shutil.rmtree(folder)


def _is_unfinished(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".partial")


def _check_same(earlier: Settings, settings: Settings, root: Path) -> None:
    for key in sorted(earlier.keys() | settings.keys()):
        before, now = earlier.get(key), settings.get(key)
        if before != now:
            raise ValueError(
                f"out '{root}' has results with {key} {json.dumps(before)}, this run has "
                f"{json.dumps(now)}; use another folder, or start again by "
                "track-dataset --overwrite"
            )
