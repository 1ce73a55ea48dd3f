"""How much is run, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any  # Any: JSON values

from sam2_hq.benchmark.clock import Timing
from sam2_hq.checks import check_counts


@dataclass(frozen=True)
class Plan:
    """How much is run.

    objects: on the first frame, one click each; on a picture, one box each.
    warm_up: frames of a pass, or pictures, before the first that counts; 16 fill the memory.
    repeats: frames of a pass, or pictures, that count.
    passes: sessions on the video that count.
    warm_up_passes: sessions before them.
    """

    objects: int = 1
    warm_up: int = 20
    repeats: int = 40
    passes: int = 3
    warm_up_passes: int = 1

    def __post_init__(self) -> None:
        check_counts(vars(self), "objects", "repeats", "passes", least=1)
        check_counts(vars(self), "warm_up", "warm_up_passes")

    @property
    def num_frames(self) -> int:
        """Frames of a pass."""
        return self.warm_up + self.repeats


@dataclass(frozen=True)
class Speed:
    """What was measured with so many objects.

    stages: seconds by kind of work.
    memory: bytes at most, see `peak_memory`.
    frames_a_pass, pass_seconds: video alone: whole propagations, first frame and warm-up included.
    verbs: video alone: mean seconds of a tracked frame by part of the network, if asked for.
    """

    objects: int
    stages: Mapping[str, Timing]
    memory: Mapping[str, int]
    frames_a_pass: int = 0
    pass_seconds: Sequence[float] = ()
    verbs: Mapping[str, float] = field(default_factory=dict)

    @property
    def published_fps(self) -> float:
        """Frames a second as the published script counts: all frames of all passes by their time.

        Video alone.
        """
        return len(self.pass_seconds) * self.frames_a_pass / sum(self.pass_seconds)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        found: dict[str, Any] = {
            "objects": self.objects,
            "stages": {name: timing.to_json() for name, timing in self.stages.items()},
            "peak_memory": dict(self.memory),
        }
        if self.pass_seconds:
            found |= {
                "pass_seconds": list(self.pass_seconds),
                "frames_a_pass": self.frames_a_pass,
                "published_fps": self.published_fps,
            }
        return found | ({"verb_seconds": dict(self.verbs)} if self.verbs else {})
