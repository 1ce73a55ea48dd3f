"""What the data of a run allow, written into its weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sam2_hq.checkpoint import LICENSE_KEY, read_metadata
from sam2_hq.training.config import TrainingConfig, pack_path
from sam2_hq.training.packs import license_classes

UNKNOWN = "unknown"
"""Stands for the data of weights that say nothing of theirs, and for folders."""


def license_metadata(train: TrainingConfig, earlier: Iterable[Path]) -> dict[str, str]:
    """Classes of the data of this run, and of those that went into the weights before.

    Args:
        train: what this run takes from where.
        earlier: checkpoints that it goes on from.

    Raises:
        FileNotFoundError, ValueError: if a pack or a checkpoint cannot be read.
    """
    classes: set[str] = set()
    for file in earlier:
        classes |= set(read_metadata(file).get(LICENSE_KEY, UNKNOWN).split(","))
    packs = train.data.packs
    if packs is None:
        classes.add(UNKNOWN)
    else:
        for name in (packs.photos, packs.cutouts, packs.backgrounds, packs.clips):
            if name is not None:
                classes |= license_classes(pack_path(packs, name), allow=packs.allow)
    return {LICENSE_KEY: ",".join(sorted(classes))}
