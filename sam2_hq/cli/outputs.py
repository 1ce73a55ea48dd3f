"""The folder a track run writes: masks frame by frame, then the files that need all frames.

    OUT/masks/NAME.png         id map of every tracked frame
    OUT/objects/ID/NAME.png    the mask of each object alone (ID as 001), on request
    OUT/masks.json             COCO run lengths, on request
    OUT/overlay.mp4            the masks painted over the video
    OUT/tracks.json            scores; written last, so that it says the run is complete
    OUT/.resume/               what an interrupted run needs to go on; gone at the end

Every file appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2_hq.cli.records import frame_record, write_frame_masks
from sam2_hq.data.atomic import sweep_partials, write_json
from sam2_hq.structures import TrackedFrame

OUR_FILES = ("tracks.json", "masks.json", "overlay.mp4")

Request = dict[str, Any]  # JSON values: what decides the masks


@dataclass(frozen=True)
class TrackFolder:
    """One output folder. Owns what is in it; never decides what is tracked.

    root: the folder. per_object: whether every object gets its own masks. with_rle: whether run
    lengths are kept and written.
    """

    root: Path
    per_object: bool = False
    with_rle: bool = False

    @property
    def masks(self) -> Path:
        """Folder of the id maps."""
        return self.root / "masks"

    @property
    def overlay(self) -> Path:
        """The overlay video."""
        return self.root / "overlay.mp4"

    @property
    def is_complete(self) -> bool:
        """Whether a run has ended here."""
        return (self.root / "tracks.json").exists()

    def check(self, request: Request, *, resume: bool, overwrite: bool) -> None:
        """Refuse a folder that this run may not write into; change nothing.

        Raises:
            ValueError: if the folder holds files and neither flag is set, holds none of ours, or
                holds a run of another request.
        """
        if resume and overwrite:
            raise ValueError("--resume keeps what is there and --overwrite removes it; give one")
        if not self.root.exists():
            return
        if not self.root.is_dir():
            raise ValueError(f"--out must be a folder, {self.root} is a file")
        if not any(self.root.iterdir()):
            return
        if not (resume or overwrite):
            raise ValueError(
                f"--out {self.root} is not empty: --resume goes on with an interrupted run, "
                "--overwrite starts again"
            )
        earlier = self._earlier_request()
        if earlier is None:
            raise ValueError(f"--out {self.root} holds files, but no run of sam2-hq track")
        if resume:
            _check_same(earlier, request)

    @contextmanager
    def begun(self, request: Request, *, resume: bool) -> Iterator[None]:
        """Hold the folder ready for a run, or for the rest of one.

        If the run fails before its first frame is written, nothing is left.
        """
        if not resume:
            self._clear()
        try:
            self._prepare(request)
            yield
        except BaseException:
            if not any(self.masks.glob("*.png")):
                self._clear()
                if not any(self.root.iterdir()):
                    self.root.rmdir()
            raise

    def _prepare(self, request: Request) -> None:
        self._bookkeeping.mkdir(parents=True, exist_ok=True)
        self.masks.mkdir(exist_ok=True)
        write_json(self._bookkeeping / "request.json", request)

    def add_frame(self, tracked: TrackedFrame, name: str) -> None:
        """Write the masks and the scores of one frame."""
        objects = self.root / "objects" if self.per_object else None
        write_frame_masks(tracked, self.masks / f"{name}.png", objects)
        # Last: a frame with a record is a frame with all its files.
        record = frame_record(tracked, name, with_rle=self.with_rle)
        write_json(self._record_path(tracked.frame_idx), record)

    def save_session(self, save: Callable[[Path], None], done: int) -> None:
        """Keep the session in which `done` frames are tracked, instead of the earlier one."""
        earlier = list(self._bookkeeping.glob("session-*.safetensors"))
        path = self._bookkeeping / f"session-{done:08d}.safetensors"
        save(path)
        for old in earlier:
            if old != path:
                old.unlink(missing_ok=True)

    def last_session(self) -> tuple[Path, int] | None:
        """The newest saved session and the number of frames tracked in it."""
        paths = sorted(self._bookkeeping.glob("session-*.safetensors"))
        if not paths:
            return None
        return paths[-1], int(paths[-1].stem.removeprefix("session-"))

    def finish(self, request: Request, frames: Sequence[int], hq_mode: str) -> None:
        """Write the run lengths and the scores, and forget what resuming needed.

        `frames` are those tracked; `hq_mode` is the one that the model ran in.
        """
        records = [json.loads(self._record_path(frame).read_text()) for frame in sorted(frames)]
        lengths = [record.pop("rle", None) for record in records]
        head = [{"index": record["index"], "name": record["name"]} for record in records]
        if self.with_rle:
            rows = [row | {"objects": rle} for row, rle in zip(head, lengths, strict=True)]
            write_json(self.root / "masks.json", {"version": 1, "frames": rows})
        tracks = {"version": 1, "request": request, "hq_mode": hq_mode, "frames": records}
        write_json(self.root / "tracks.json", tracks)
        shutil.rmtree(self._bookkeeping)

    @property
    def _bookkeeping(self) -> Path:
        return self.root / ".resume"

    def _record_path(self, frame: int) -> Path:
        return self._bookkeeping / f"{frame:08d}.json"

    def _earlier_request(self) -> Request | None:
        if self.is_complete:
            tracks = json.loads((self.root / "tracks.json").read_text())
            return tracks.get("request") if isinstance(tracks, dict) else None
        path = self._bookkeeping / "request.json"
        if path.exists():
            return json.loads(path.read_text())
        return {} if self._bookkeeping.is_dir() else None

    def _clear(self) -> None:
        """Remove what runs write; other files stay."""
        # The sign that the folder is ours goes last, in case this is interrupted.
        self._bookkeeping.mkdir(parents=True, exist_ok=True)
        for name in OUR_FILES:
            (self.root / name).unlink(missing_ok=True)
            sweep_partials(self.root / name)
        objects = self.root / "objects"
        for folder in (self.masks, *objects.glob("[0-9][0-9][0-9]"), objects):
            for picture in [*folder.glob("*.png"), *folder.glob(".*.png.*.partial")]:
                picture.unlink()
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        shutil.rmtree(self._bookkeeping)


def _check_same(earlier: Request, request: Request) -> None:
    for key in sorted(set(earlier) | set(request)):
        if earlier.get(key) != request.get(key):
            raise ValueError(
                f"--resume: {key} was {_short(earlier.get(key))} in the interrupted run and is "
                f"{_short(request.get(key))} now; use the same, or --overwrite to start again"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
