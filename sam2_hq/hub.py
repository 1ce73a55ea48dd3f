"""Published checkpoints by name: which there are, and how to get them onto this disk.

`download` fetches by plain HTTP and resumes; `fetch_from_hub` asks `huggingface_hub`.
"""

from __future__ import annotations

import http.client
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock
from huggingface_hub import hf_hub_download
from tqdm import tqdm

from sam2_hq.checkpoint import read_checkpoint, recognise, sha256_of
from sam2_hq.wording import did_you_mean

HF_MODEL_ID_TO_FILENAMES: dict[str, tuple[str, str]] = {
    "facebook/sam2-hiera-tiny": ("configs/sam2/sam2_hiera_t.yaml", "sam2_hiera_tiny.pt"),
    "facebook/sam2-hiera-small": ("configs/sam2/sam2_hiera_s.yaml", "sam2_hiera_small.pt"),
    "facebook/sam2-hiera-base-plus": (
        "configs/sam2/sam2_hiera_b+.yaml",
        "sam2_hiera_base_plus.pt",
    ),
    "facebook/sam2-hiera-large": ("configs/sam2/sam2_hiera_l.yaml", "sam2_hiera_large.pt"),
    "facebook/sam2.1-hiera-tiny": ("configs/sam2.1/sam2.1_hiera_t.yaml", "sam2.1_hiera_tiny.pt"),
    "facebook/sam2.1-hiera-small": ("configs/sam2.1/sam2.1_hiera_s.yaml", "sam2.1_hiera_small.pt"),
    "facebook/sam2.1-hiera-base-plus": (
        "configs/sam2.1/sam2.1_hiera_b+.yaml",
        "sam2.1_hiera_base_plus.pt",
    ),
    "facebook/sam2.1-hiera-large": ("configs/sam2.1/sam2.1_hiera_l.yaml", "sam2.1_hiera_large.pt"),
    "lkeab/hq-sam": ("configs/sam2.1/sam2.1_hq_hiera_l.yaml", "sam2.1_hq_hiera_large.pt"),
}
"""Hub repository -> packaged config and file in the repository."""

_BASE_URLS = {
    "sam2_hiera": "https://dl.fbaipublicfiles.com/segment_anything_2/072824/",
    "sam2.1_hiera": "https://dl.fbaipublicfiles.com/segment_anything_2/092824/",
    "sam2.1_hq": "https://huggingface.co/lkeab/hq-sam/resolve/main/",
}
_TRIES = 5  # connections for one file, each of which goes on where the last one broke
_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class PublishedCheckpoint:
    """One checkpoint with a name: where it lies and which config it needs."""

    name: str
    base_url: str
    config: str

    @property
    def filename(self) -> str:
        """Name of the file at the base URL and on this disk."""
        return f"{self.name}.pt"


def _published() -> dict[str, PublishedCheckpoint]:
    table = {}
    for config, filename in HF_MODEL_ID_TO_FILENAMES.values():
        name = filename.removesuffix(".pt")
        base_url = next(url for start, url in _BASE_URLS.items() if name.startswith(f"{start}_"))
        table[name] = PublishedCheckpoint(name, base_url, config)
    return table


PUBLISHED = _published()
"""Checkpoint name, such as `sam2.1_hiera_tiny` -> where it lies."""


def cache_folder() -> Path:
    """Return the folder for downloads that nobody placed: `sam2_hq` in the user's cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "sam2_hq"


def download(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    base_url: str | None = None,
    sha256: str | None = None,
    progress: bool = True,
) -> Path:
    """Fetch a published checkpoint; a file that is there already is not fetched again.

    What arrives lies in `NAME.pt.part` until it is complete and verified: length, zip checksums,
    the kind of checkpoint, and the SHA-256 if one is given. An interrupted download is resumed.
    Of calls for the same file at the same time, in any process, one fetches and the others wait.

    Args:
        name: a key of `PUBLISHED`, with or without `.pt`.
        folder: where to put it, made if missing; the user's cache by default.
        base_url: a mirror that serves the file by its name.
        sha256: expected hex digest.
        progress: show a bar on stderr.

    Returns:
        The path of the checkpoint.

    Raises:
        ValueError: if the name is unknown (names the nearest) or what arrived is not this
            checkpoint; then nothing is kept.
        ConnectionError: if the server fails or the connection breaks too often; what has arrived
            is kept for the next call.
    """
    checkpoint = published(name)
    target = Path(folder or cache_folder()) / checkpoint.filename
    if target.is_file():
        _check_digest(target, sha256)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    url = (base_url or checkpoint.base_url).rstrip("/") + "/" + checkpoint.filename
    part = target.with_name(f"{target.name}.part")
    with _alone(target):
        if target.is_file():  # the call that we waited for has put it there
            _check_digest(target, sha256)
            return target
        _fetch(url, part, progress)
        try:
            _verify(part, checkpoint, sha256)
        except ValueError:
            part.unlink()
            _validator_file(part).unlink(missing_ok=True)
            raise
        os.replace(part, target)
        _validator_file(part).unlink(missing_ok=True)
    return target


def published(name: str) -> PublishedCheckpoint:
    """Look up a published checkpoint, with or without `.pt`.

    Raises:
        ValueError: names the nearest known one.
    """
    key = name.removesuffix(".pt")
    if key not in PUBLISHED:
        hint = did_you_mean(key, PUBLISHED) or f"; there are {', '.join(PUBLISHED)}"
        raise ValueError(f"unknown checkpoint name {name!r}{hint}")
    return PUBLISHED[key]


def fetch_from_hub(model_id: str) -> tuple[str, Path]:
    """Fetch the checkpoint of a Hugging Face repository into the hub's cache.

    Returns:
        The name of its packaged config, and the path of the file.

    Raises:
        ValueError: if the id is not in `HF_MODEL_ID_TO_FILENAMES`; names the nearest.
        OSError: if the hub cannot be reached and the file is not in the cache.
    """
    if not isinstance(model_id, str):
        raise TypeError(f"model_id must be a string such as 'lkeab/hq-sam', got {model_id!r}")
    if model_id not in HF_MODEL_ID_TO_FILENAMES:
        hint = did_you_mean(model_id, HF_MODEL_ID_TO_FILENAMES)
        raise ValueError(f"unknown hub id {model_id!r}{hint}")
    config, filename = HF_MODEL_ID_TO_FILENAMES[model_id]
    return config, Path(hf_hub_download(repo_id=model_id, filename=filename))


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Wait until nobody else fetches this file, and keep others waiting."""
    lock = target.with_name(f".{target.name}.lock")
    with FileLock(lock):
        try:
            yield
        finally:
            # While it is held: afterwards it may be another's. Windows removes it at the release.
            with suppress(OSError):
                lock.unlink()


def _fetch(url: str, part: Path, progress: bool) -> None:
    for _ in range(_TRIES):
        try:
            if _fetch_rest(url, part, progress):
                return
        except HTTPError as error:
            raise ConnectionError(f"{url} answered {error.code} {error.reason}") from error
        except (URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(error)
        else:
            reason = "the connection closed early"
    raise ConnectionError(f"{url} could not be fetched: {reason}; the next call goes on from here")


def _fetch_rest(url: str, part: Path, progress: bool) -> bool:
    """Append what is missing to `part`; whether it is complete then."""
    start = part.stat().st_size if part.exists() else 0
    try:
        response = urlopen(_request(url, part, start), timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code != 416:  # nothing lies beyond `start`: complete, or of another file
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return True
        part.unlink()
        return False
    with response:
        if response.status != 206:
            start = 0
        length = response.headers.get("Content-Length")
        if length is None:
            raise ConnectionError("the server does not say how long the file is")
        total = start + int(length)
        _remember_validator(part, response.headers)
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(
                desc=part.stem,
                initial=start,
                total=total,
                unit="B",
                unit_scale=True,
                disable=not progress,
            ) as bar,
        ):
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    return part.stat().st_size == total


def _request(url: str, part: Path, start: int) -> Request:
    request = Request(url, headers={"User-Agent": "sam2-hq"})
    validator = _validator_file(part)
    if start and validator.is_file():
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", validator.read_text())
    return request


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _remember_validator(part: Path, headers: http.client.HTTPMessage) -> None:
    """Keep what names this version of the file, so that halves of two versions never meet."""
    validator = headers.get("ETag") or headers.get("Last-Modified")
    if validator and not validator.startswith("W/"):
        _validator_file(part).write_text(validator)
    else:
        _validator_file(part).unlink(missing_ok=True)


def _check_digest(path: Path, sha256: str | None) -> None:
    if sha256 is not None and (digest := sha256_of(path)) != sha256.lower():
        raise ValueError(f"'{path}': SHA-256 is {digest}, wanted {sha256}")


def _verify(path: Path, checkpoint: PublishedCheckpoint, sha256: str | None) -> None:
    _check_digest(path, sha256)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{checkpoint.name}: what arrived is no torch file") from error
    if damaged is not None:
        raise ValueError(f"{checkpoint.name}: what arrived is damaged at {damaged}")
    kind = recognise(read_checkpoint(path))
    if kind.config != checkpoint.config:
        raise ValueError(f"{checkpoint.name}: what arrived is a checkpoint of {kind}")
