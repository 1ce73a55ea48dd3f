"""Checkpoint files: open, recognise, load into a model, save, convert.

A file is `.safetensors` or a torch file that holds a state dict, bare or under the key "model".
Where files come from is the business of `hub.py`; which model they need, of `build_sam.py`.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from iopath.common.file_io import PathManager
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sam2_hq.data.atomic import whole_file
from sam2_hq.wording import first_line

path_manager = PathManager()
"""Opens checkpoint paths. Register an iopath handler here to read from other storage."""

StateDict = dict[str, Tensor]
CheckpointPath = str | os.PathLike[str]
Size = Literal["t", "s", "b+", "l", "n"]

HQ_TENSORS = frozenset(
    [
        "sam_mask_decoder.hf_token.weight",
        *(f"sam_mask_decoder.hf_mlp.layers.{i}.{p}" for i in (0, 1, 2) for p in ("weight", "bias")),
        *(
            f"sam_mask_decoder.embedding_maskfeature.{i}.{p}"
            for i in (0, 1, 3)
            for p in ("weight", "bias")
        ),
    ]
)
"""The 13 tensors that an HQ model has and a plain one has not."""

LICENSE_KEY = "data_license_classes"
"""Metadata key; its value lists the licence classes of all data that ever went into the weights."""

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_SIZE_NAMES: dict[Size, str] = {"t": "tiny", "s": "small", "b+": "base+", "l": "large", "n": "nano"}
_SIZES: dict[tuple[int, int], Size] = {  # width of the trunk, number of its blocks
    (96, 12): "t",
    (96, 16): "s",
    (112, 24): "b+",
    (144, 48): "l",
    (40, 11): "n",
}
_PATCH_WEIGHT = "image_encoder.trunk.patch_embed.proj.weight"
_SHOWN_KEYS = 3


@dataclass(frozen=True)
class CheckpointKind:
    """What a state dict is: its generation, whether it has the HQ token, and its size."""

    generation: Literal["2", "2.1"]
    hq: bool
    size: Size

    @property
    def config(self) -> str:
        """Name of the packaged config that builds this kind."""
        release = "sam2.1" if self.generation == "2.1" else "sam2"
        return f"configs/{release}/{release}{'_hq' * self.hq}_hiera_{self.size}.yaml"

    def __str__(self) -> str:
        generation = "" if self.generation == "2" else f".{self.generation.partition('.')[2]}"
        return f"{'HQ-' * self.hq}SAM 2{generation} {_SIZE_NAMES[self.size]}"


def read_checkpoint(path: CheckpointPath) -> StateDict:
    """Read the tensors of a checkpoint onto the CPU. Code inside a pickle is refused, never run.

    Args:
        path: a torch or `.safetensors` file, or a folder that holds exactly one.

    Raises:
        TypeError: if `path` is no path.
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, hostile, or holds no state dict.
    """
    local = local_file(path)
    if local.suffix == ".safetensors":
        try:
            return load_file(local)
        except SafetensorError as error:
            raise ValueError(f"checkpoint {path} is not a safetensors file: {error}") from error
    return _state_dict(_unpickle(local), local)


def read_metadata(path: CheckpointPath) -> dict[str, str]:
    """Notes beside the tensors, as `save_checkpoint` writes them; only those that are text.

    Raises:
        TypeError, FileNotFoundError, ValueError: as `read_checkpoint`.
    """
    local = local_file(path)
    if local.suffix == ".safetensors":
        try:
            with safe_open(local, framework="pt") as file:
                notes: dict[str, str] = file.metadata() or {}
        except SafetensorError as error:
            raise ValueError(f"checkpoint {path} is not a safetensors file: {error}") from error
        return {key: value for key, value in notes.items() if key != "format"}
    content = _unpickle(local)
    found = content.get("metadata") if isinstance(content, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    return {k: v for k, v in found.items() if isinstance(k, str) and isinstance(v, str)}


def local_file(path: CheckpointPath) -> Path:
    """Return where the bytes of a checkpoint lie on this disk.

    Raises:
        TypeError, FileNotFoundError: as `read_checkpoint`.
        ValueError: if a folder does not hold exactly one.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"checkpoint must be a path, got {type(path).__name__}")
    return _only_file(Path(path_manager.get_local_path(os.fspath(path))))


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the files of a folder that may be checkpoints, by name."""
    return sorted(file for file in folder.iterdir() if file.suffix in (".pt", ".safetensors"))


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _only_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    found = checkpoints_in(path)
    # A hub folder may hold the same weights again in the layout of another library.
    named = [file for file in found if "_hiera_" in file.name]
    candidates = named or found
    if len(candidates) != 1:
        names = ", ".join(file.name for file in candidates) or "none"
        raise ValueError(f"folder {path} must hold one .pt or .safetensors file, found {names}")
    return candidates[0]


def _unpickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = f"checkpoint {path} is no torch file, or a pickle with more than tensors; not run"
        raise ValueError(message) from error
    except OSError:
        raise
    except Exception as error:  # a damaged file may make anything of the reader
        raise ValueError(f"checkpoint {path} is damaged: {first_line(error)}") from error


def _state_dict(content: object, path: Path) -> StateDict:
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"checkpoint {path} must hold a state dict, got {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ValueError(f"checkpoint {path} must hold tensors by name, got {key!r}: {kind}")
    return dict(content)


def recognise(state_dict: Mapping[str, Tensor]) -> CheckpointKind:
    """Tell a checkpoint's kind from its keys and shapes alone.

    Raises:
        ValueError: if it is none of SAM 2, SAM 2.1 and HQ-SAM 2 in a known size; says what it
            looks like instead.
    """
    if _PATCH_WEIGHT not in state_dict or not state_dict[_PATCH_WEIGHT].ndim:
        raise ValueError(f"not a SAM 2 checkpoint: {_what_it_looks_like(state_dict)}")
    trunk = (state_dict[_PATCH_WEIGHT].shape[0], _count_blocks(state_dict))
    if trunk not in _SIZES:
        raise ValueError(f"not a known SAM 2 size: trunk {trunk[0]} wide with {trunk[1]} blocks")
    is_new = "no_obj_embed_spatial" in state_dict or "obj_ptr_tpos_proj.weight" in state_dict
    hq = not HQ_TENSORS.isdisjoint(state_dict)
    return CheckpointKind("2.1" if is_new else "2", hq, _SIZES[trunk])


def is_hq_addon(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether these are the 13 HQ tensors alone, which `convert` joins to a plain checkpoint."""
    return set(state_dict) == HQ_TENSORS


def _count_blocks(state_dict: Mapping[str, Tensor]) -> int:
    prefix = "image_encoder.trunk.blocks."
    numbers = {key[len(prefix) :].partition(".")[0] for key in state_dict if key.startswith(prefix)}
    return len(numbers)


def _what_it_looks_like(state_dict: Mapping[str, Tensor]) -> str:
    if any(key.startswith("image_encoder.patch_embed.") for key in state_dict):
        return "it looks like Segment Anything or HQ-SAM of the first generation"
    if any(key.startswith(("vision_encoder.", "prompt_encoder.")) for key in state_dict):
        return "it looks like the layout of the transformers library"
    return f"it has no {_PATCH_WEIGHT}"


def load_checkpoint(
    model: nn.Module, state_dict: Mapping[str, Tensor], *, allow_missing_hq: bool = False
) -> None:
    """Load a state dict strictly; on any mismatch the model stays as it was.

    Args:
        model: the network to fill, in place.
        state_dict: exactly the model's tensors, in any floating dtype.
        allow_missing_hq: let an HQ model start from a plain SAM 2.1 checkpoint: exactly the 13
            tensors of `HQ_TENSORS` may be missing together and keep their values.

    Raises:
        ValueError: one sentence on what the checkpoint is and what to take instead, with the first
            missing, unexpected and misshapen keys and their counts.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state_dict]
    unexpected = [key for key in state_dict if key not in own]
    misshapen = [
        f"{key} {list(state_dict[key].shape)} instead of {list(own[key].shape)}"
        for key in own
        if key in state_dict and state_dict[key].shape != own[key].shape
    ]
    if allow_missing_hq and set(missing) == HQ_TENSORS:
        missing = []
    if missing or unexpected or misshapen:
        lists = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
        raise ValueError(f"{_explain(state_dict, own)}: {_summary(lists)}")
    for key, tensor in state_dict.items():
        _check_readable(key, tensor)
    model.load_state_dict({**own, **state_dict})


def _check_readable(key: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
        form = f"{tensor.dtype}, {tensor.layout} on {tensor.device}".replace("torch.", "")
        raise ValueError(f"checkpoint must hold floating-point numbers, {key} is {form}")


def _explain(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    try:
        have = recognise(given)
    except ValueError as error:
        return str(error)
    try:
        want = recognise(wanted)
    except ValueError:
        return f"a checkpoint of {have} does not fit this model, take config {have.config}"
    if have == want:
        return f"a damaged or changed checkpoint of {have}"
    advice = f"take config {have.config}, or sam2_hq.build_sam.load"
    if want.hq and not have.hq and have.generation == want.generation and have.size == want.size:
        advice += ", or allow_missing_hq=True to start HQ from it"
    return f"a checkpoint of {have} does not fit a model of {want}, {advice}"


def _summary(lists: Mapping[str, list[str]]) -> str:
    parts = []
    for name, keys in lists.items():
        shown = ", ".join(keys[:_SHOWN_KEYS]) + ", ..." * (len(keys) > _SHOWN_KEYS)
        parts.append(f"{len(keys)} {name}" + f" ({shown})" * bool(keys))
    return "; ".join(parts)


def save_checkpoint(
    state_dict: Mapping[str, Tensor],
    path: CheckpointPath,
    *,
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write tensors whole or not at all: `.safetensors`, or `.pt` with the published key "model".

    Args:
        state_dict: tensors by name.
        path: the new file.
        overwrite: replace it if it is there.
        metadata: what `read_metadata` shall find.

    Raises:
        ValueError: if the suffix is another.
        FileNotFoundError: if there is no such folder.
        FileExistsError: if the file is there and `overwrite` is False.
        OSError: if it cannot be written, for example on a full disk.
    """
    target = Path(path)
    _check_free(target, overwrite)
    # Clones: safetensors refuses tensors that share memory, and .pt would store all of it.
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in state_dict.items()}
    if target.suffix == ".pt":
        content = {"model": tensors} | ({"metadata": dict(metadata)} if metadata else {})
        write_tensors(target, lambda file: torch.save(content, file))
    else:
        notes = {"format": "pt", **(metadata or {})}
        write_tensors(target, lambda file: save_file(tensors, file, metadata=notes))
    return target


def _check_free(target: Path, overwrite: bool) -> None:
    if target.suffix not in (".pt", ".safetensors"):
        raise ValueError(f"path must end in .pt or .safetensors, got {target}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} into")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} is there already; pass overwrite=True to replace it")


def write_tensors(target: Path, write: Callable[[Path], object]) -> None:
    """Let `torch.save` or `save_file` write a file whole or not at all.

    Raises:
        OSError: if it cannot be written, for example on a full disk.
    """
    try:
        with whole_file(target) as partial:
            partial.touch()
            permissions = partial.stat().st_mode
            write(partial)
            with suppress(OSError):  # some network drives have no permissions
                partial.chmod(permissions)  # safetensors makes files that only their owner reads
    except (RuntimeError, SafetensorError) as error:  # what the two writers make of a full disk
        raise OSError(f"cannot write {target}: {first_line(error)}") from error


def convert(
    src: CheckpointPath,
    dst: CheckpointPath,
    *,
    overwrite: bool = False,
    dtype: torch.dtype | None = None,
    hq: CheckpointPath | None = None,
) -> Path:
    """Rewrite a checkpoint as `.pt` or `.safetensors`, after the suffix of `dst`.

    Args:
        src: file or folder as in `read_checkpoint`.
        dst: the new file.
        overwrite: replace `dst` if it is there.
        dtype: float32, float16 or bfloat16 for floating tensors; None keeps theirs.
        hq: a file of the 13 HQ tensors alone, which make the plain `src` an HQ checkpoint or take
            the place of those of an HQ one.

    Raises:
        FileNotFoundError, FileExistsError: as the files are or are not there.
        ValueError: if `src` is no checkpoint, or `dst`, `dtype` or `hq` is not as above.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {_DTYPES}, got {dtype!r}")
    _check_free(Path(dst), overwrite)
    tensors, metadata = read_checkpoint(src), read_metadata(src)
    if hq is not None:
        added = read_checkpoint(hq)
        if not is_hq_addon(added):
            raise ValueError(f"hq must hold the {len(HQ_TENSORS)} HQ tensors alone, got {hq}")
        tensors, metadata = tensors | added, metadata | read_metadata(hq)
    if dtype is not None:
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    return save_checkpoint(tensors, dst, overwrite=overwrite, metadata=metadata)
