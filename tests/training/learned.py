"""What a stage has learned."""

from __future__ import annotations

from pathlib import Path

from sam2_hq.checkpoint import read_checkpoint


def changed(before: Path, after: Path) -> set[str]:
    """Names of the tensors that differ between two checkpoints."""
    old = read_checkpoint(before)
    return {name for name, one in read_checkpoint(after).items() if not one.equal(old[name])}
