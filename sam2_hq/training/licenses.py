"""What the data of a run allow, written into its weights."""

from __future__ import annotations

from sam2_hq.checkpoint import read_metadata
from sam2_hq.training.config import TrainingConfig, pack_path
from sam2_hq.training.packs import license_classes

LICENSE_KEY = "data_license_classes"
"""Metadata key; its value lists the classes of all data that ever went into the weights."""


def license_metadata(train: TrainingConfig) -> dict[str, str]:
    """Classes of the data of this run, and of those that its checkpoint was trained on.

    Data in folders say nothing of their licence and count as "unstated". A checkpoint without the
    key, a published one say, adds nothing.

    Raises:
        FileNotFoundError, ValueError: if a pack or the checkpoint cannot be read.
    """
    classes: set[str] = set()
    if train.checkpoint is not None:
        earlier = read_metadata(train.checkpoint).get(LICENSE_KEY, "")
        classes |= set(earlier.split(",")) - {""}
    packs = train.data.packs
    if packs is None:
        classes.add("unstated")
    else:
        for name in (packs.photos, packs.cutouts, packs.backgrounds, packs.clips):
            if name is not None:
                classes |= license_classes(pack_path(packs, name), allow=packs.allow)
    return {LICENSE_KEY: ",".join(sorted(classes))}
