"""What a batch run is told. Plain data that travels to workers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # Any: JSON values

from sam2_hq.evaluation.datasets import Dataset, VideoSequence, open_dataset
from sam2_hq.evaluation.semi_supervised import PromptKind, TrackingRules
from sam2_hq.model_spec import ModelSpec


@dataclass(frozen=True)
class DatasetJob:
    """Track every sequence of a data set from its own annotations, one result folder a sequence.

    root: holds the folders of `dataset`.
    out: gets one folder of masks a sequence, `manifest.jsonl` and `settings.json`.
    dataset: where frames and annotations are, whether objects appear late, and how results are
        written: one palette PNG a frame, or one PNG an object and frame that keeps overlaps.
    prompt, score_threshold: as of `TrackingRules`.
    every_mask: every annotation of an object is a prompt, not its first alone.
    names: these sequences alone; empty for all.
    sequence_list: a text file, one name a line; takes the place of the list of `dataset`.

    Raises:
        ValueError: if a name comes twice, or `prompt` does not exist.
    """

    root: Path
    out: Path
    dataset: Dataset
    model: ModelSpec = field(default_factory=ModelSpec)
    prompt: PromptKind = "mask"
    score_threshold: float = 0.0
    every_mask: bool = False
    names: tuple[str, ...] = ()
    sequence_list: Path | None = None

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise ValueError(f"names has '{twice[0]}' twice")
        _ = self.rules  # checks the prompt at the door
        # Workers start in other folders.
        object.__setattr__(self, "root", Path(self.root).absolute())
        object.__setattr__(self, "out", Path(self.out).absolute())

    @property
    def rules(self) -> TrackingRules:
        """How objects are prompted and cut out."""
        return TrackingRules(self.prompt, self.score_threshold, self.dataset.per_object)

    def sequences(self) -> list[VideoSequence]:
        """The sequences to track, in natural order of their names.

        Raises:
            ValueError: if a folder, the list or a sequence is missing, or a name comes twice.
        """
        found = open_dataset(
            self.root, self.dataset, sequence_list=self.sequence_list, names=self.names
        )
        for sequence in found:
            if sequence.name != Path(sequence.name).name or sequence.name == "..":
                raise ValueError(f"sequence '{sequence.name}' must be the name of one folder")
            if sequence.frames is None or not sequence.frames.is_dir():
                raise ValueError(f"sequence '{sequence.name}' has no frames in '{sequence.frames}'")
        return found

    def settings(self) -> dict[str, Any]:
        """Everything that decides the masks of a sequence, as JSON values."""
        layout = self.dataset
        return {
            "root": str(self.root.resolve()),
            "frames": layout.frames,
            "annotations": layout.annotations,
            "per_object": layout.per_object,
            "late_objects": layout.late_objects,
            "void": layout.conventions.void,
            "is_binary": layout.conventions.is_binary,
            "prompt": self.prompt,
            "score_threshold": self.score_threshold,
            "every_mask": self.every_mask,
            **self.model.identity(),
        }
