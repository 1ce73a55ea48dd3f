"""Where a benchmark keeps its frames and masks, and what it counts: one small YAML file each."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any  # a YAML value

import yaml

from sam2_hq.compose import config_dir
from sam2_hq.data.frames import natural_key
from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.mask_folders import MaskFolder
from sam2_hq.wording import did_you_mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """Folders relative to the root of a benchmark, and its conventions.

    frames, annotations: folders with one folder a sequence.
    sequence_list: a text file, one name a line; None for every sequence with annotations.
    per_object: results are written one folder an object, overlaps kept.
    late_objects: objects that are not on the first annotated frame are tracked, too.
    categories: a JSON file with the category of every object, for means over categories.
    conventions: what counts.
    """

    frames: str = "JPEGImages"
    annotations: str = "Annotations"
    sequence_list: str | None = None
    per_object: bool = False
    late_objects: bool = True
    categories: str | None = None
    conventions: Conventions = field(default_factory=Conventions)


@dataclass(frozen=True)
class VideoSequence:
    """One video of a benchmark: its name, its masks, and its frames if they are known."""

    name: str
    truth: MaskFolder
    frames: Path | None = None

    def prediction_in(self, root: Path) -> MaskFolder:
        """The masks of this video in a folder of results, read as its truth is."""
        return replace(self.truth, folder=root / self.name)


def dataset_names() -> list[str]:
    """Names that `load_dataset` knows."""
    return sorted(file.stem for file in (config_dir() / "eval").glob("*.yaml"))


def load_dataset(name_or_path: str | os.PathLike[str]) -> Dataset:
    """Read the description of a benchmark.

    Args:
        name_or_path: a packaged name such as `davis2017`, or a YAML file.

    Raises:
        ValueError: if there is none, or it says what no description can say.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if str(name_or_path) not in dataset_names():
            known = ", ".join(dataset_names())
            hint = did_you_mean(str(name_or_path), dataset_names())
            raise ValueError(f"dataset must be one of {known}, or a YAML file{hint}")
        path = config_dir() / "eval" / f"{name_or_path}.yaml"
    if not path.is_file():
        raise ValueError(f"dataset '{path}': no such file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"dataset '{path}' is no YAML: {error}") from error
    return _parse(values, path)


def open_dataset(
    root: str | os.PathLike[str],
    dataset: Dataset,
    *,
    sequence_list: str | os.PathLike[str] | None = None,
    names: Sequence[str] = (),
) -> list[VideoSequence]:
    """The sequences of a benchmark, in natural order of their names.

    Args:
        root: the folder that holds those of `dataset`.
        dataset: where things are.
        sequence_list: takes the place of the list of `dataset`. Where `root` has not even that,
            as a folder of one's own, every sequence is taken, and a warning logged.
        names: these sequences alone.

    Raises:
        ValueError: as `find_sequences`.
    """
    root = Path(root)
    if sequence_list is None and not names and dataset.sequence_list is not None:
        sequence_list = root / dataset.sequence_list
        if not sequence_list.is_file():
            logger.warning("there is no list '%s': taking every sequence", sequence_list)
            sequence_list = None
    return find_sequences(
        root / dataset.annotations,
        dataset.conventions,
        frames=root / dataset.frames,
        sequence_list=sequence_list,
        names=names,
    )


def find_sequences(
    annotations: str | os.PathLike[str],
    conventions: Conventions,
    *,
    frames: str | os.PathLike[str] | None = None,
    sequence_list: str | os.PathLike[str] | None = None,
    names: Sequence[str] = (),
) -> list[VideoSequence]:
    """The sequences in a folder of annotations, in natural order of their names.

    Args:
        annotations: folder with a folder a sequence.
        conventions: what void means.
        frames: folder with a folder of pictures a sequence.
        sequence_list: a text file of names, one a line.
        names: these sequences alone.

    Raises:
        ValueError: if a folder, the list or a sequence is missing, a name comes twice, or there are
            both names and a list.
    """
    annotations = Path(annotations)
    if not annotations.is_dir():
        raise ValueError(f"annotations: there is no folder '{annotations}'")
    if names and sequence_list is not None:
        raise ValueError(
            "names or a sequence list must choose the sequences, not both: got "
            f"{', '.join(names)} and '{sequence_list}'"
        )
    wanted = [*names]
    if sequence_list is not None:
        wanted = read_sequence_list(sequence_list)
    wanted = wanted or subfolders(annotations)
    if not wanted:
        raise ValueError(f"'{annotations}' has no folder of a sequence")
    for name in wanted:
        if not (annotations / name).is_dir():
            raise ValueError(f"sequence '{name}' has no annotations in '{annotations}'")
    return [
        VideoSequence(
            name,
            MaskFolder(annotations / name, void=conventions.void, is_binary=conventions.is_binary),
            Path(frames) / name if frames is not None else None,
        )
        for name in sorted(wanted, key=natural_key)
    ]


def read_sequence_list(path: str | os.PathLike[str]) -> list[str]:
    """Names of a text file, one a line; blank lines are nothing.

    The list of DAVIS 2016 has a line a frame, `/JPEGImages/480p/NAME/00000.jpg /Annotations/...`.

    Raises:
        ValueError: if there is no such file, it is empty, or a name comes twice.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"sequence list '{path}': no such file")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"sequence list '{path}' is no text: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"sequence list '{path}' is empty")
    if all(name.startswith("/") for name in names):
        return list(dict.fromkeys(PurePosixPath(name.split()[0]).parent.name for name in names))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"sequence list '{path}' has '{twice[0]}' twice")
    return names


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, hidden ones left out, in natural order."""
    names = [e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith(".")]
    return sorted(names, key=natural_key)


def _parse(values: Any, path: Path) -> Dataset:
    if not isinstance(values, Mapping):
        raise ValueError(f"dataset '{path}' must hold keys and values")
    known = [f.name for f in fields(Dataset)]
    for key in values:
        if key not in known:
            raise ValueError(f"dataset '{path}' has an unknown key {key!r}")
    for key, (kinds, wanted) in _KINDS.items():
        if key in values and not isinstance(values[key], kinds):
            raise ValueError(f"dataset '{path}': {key} must {wanted}, got {values[key]!r}")
    rest = {key: value for key, value in values.items() if key != "conventions"}
    return Dataset(**rest, conventions=Conventions.parse(values.get("conventions") or {}))


_TEXT, _NO_TEXT = (str, "be text"), ((str, type(None)), "be text or null")
_SWITCH = bool, "be true or false"
_KINDS: dict[str, tuple[Any, str]] = {
    "frames": _TEXT,
    "annotations": _TEXT,
    "sequence_list": _NO_TEXT,
    "categories": _NO_TEXT,
    "per_object": _SWITCH,
    "late_objects": _SWITCH,
    "conventions": ((dict, type(None)), "hold keys and values"),
}
