"""What a benchmark counts: which objects, which frames, what void means, what is averaged.

Those of the published benchmarks are in `configs/eval`; nothing here is about one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints  # Any: a YAML value

Gap = Literal["error", "zero", "skip"]


@dataclass(frozen=True)
class Conventions:
    """How masks become one number. Every field is one question on which the benchmarks differ.

    objects: which ids of the truth are judged: those of the first annotated frame, or all.
    before_appearance: frames before an object appears "count"; are dropped while it is in neither
        truth nor prediction ("drop_unseen"); or are dropped up to and with the frame on which it
        first appears in the truth ("drop").
    first_frame, last_frame: whether the first and last annotated frame are scored. With a folder
        an object these are the object's own.
    void: an id that is no object, or None; its pixels are background in both masks ("background")
        or count for nobody ("exclude").
    is_binary: everything that is not background, void included, is one object with id 1.
    missing_frames, missing_sequences: a prediction that is not there is an error, an empty mask,
        or left out of the mean.
    extra_ids: predicted ids that the truth does not judge are ignored, or an error.
    mean_over: "objects" of all sequences alike; "sequences" alike; or "categories": seen and
        unseen ones apart, and then the mean of the two.
    statistics: recall and decay as in DAVIS 2017, or in the older code of DAVIS 2016.
    strict_official: do what the official tool does where it is wrong: bounds of quarters kept in
        eight bits, ids that are missing below the largest judged as empty objects, an error for a
        predicted id above those of the first frame, or for an object that is on no scored frame.
    """

    objects: Literal["first_frame", "annotated"] = "annotated"
    before_appearance: Literal["count", "drop_unseen", "drop"] = "count"
    first_frame: bool = False
    last_frame: bool = False
    void: int | None = None
    void_pixels: Literal["background", "exclude"] = "background"
    is_binary: bool = False
    missing_frames: Gap = "error"
    missing_sequences: Gap = "error"
    extra_ids: Literal["ignore", "error"] = "ignore"
    mean_over: Literal["objects", "sequences", "categories"] = "objects"
    statistics: Literal["davis2017", "davis2016"] = "davis2017"
    strict_official: bool = False

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value, choices = getattr(self, field.name), get_args(hints[field.name])
            wanted: tuple[Any, ...] = choices or (True, False)
            if field.name == "void":
                if not (value is None or (type(value) is int and 1 <= value <= 255)):
                    raise ValueError(f"void must be null or an id from 1 to 255, got {value!r}")
            elif not any(value is choice or value == choice for choice in wanted):
                names = ", ".join(str(choice) for choice in wanted)
                raise ValueError(f"{field.name} must be one of {names}, got {value!r}")

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Conventions:
        """From a mapping; what is left out has the default.

        Raises:
            ValueError: for an unknown name or value.
        """
        return replace_fields(cls(), values)


def replace_fields(conventions: Conventions, values: Mapping[str, Any]) -> Conventions:
    """The conventions with some fields changed.

    Raises:
        ValueError: for an unknown name or value.
    """
    known = {field.name for field in fields(conventions)}
    for name in values:
        if name not in known:
            raise ValueError(f"conventions have no {name!r}; there are {', '.join(sorted(known))}")
    return replace(conventions, **values)
