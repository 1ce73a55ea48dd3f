"""Bad samples: skipped, counted and named, never silently."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from threading import Lock

log = logging.getLogger(__name__)

MAX_NAMES = 100
"""Names kept with their reasons."""


@dataclass
class SampleLog:
    """The samples that could not be used, for the loop to report.

    names: name -> reason, the first `MAX_NAMES`.
    count: all of them, a sample that fails twice counts twice.
    """

    names: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @property
    def count(self) -> int:
        """How often a sample was skipped."""
        return self.counts.total()

    def skip(self, name: str, reason: object) -> None:
        """Record a skipped sample; warns the first time a name comes."""
        with self._lock:  # samples are decoded in threads
            self.counts[name] += 1
            is_first = self.counts[name] == 1
        if is_first:
            log.warning("skipped sample '%s': %s", name, reason)
            if len(self.names) < MAX_NAMES:
                self.names[name] = str(reason)

    def summary(self) -> str:
        """One line for a person; empty when nothing was skipped."""
        if not self.count:
            return ""
        shown = ", ".join(list(self.names)[:5])
        more = ", ..." if len(self.counts) > 5 else ""
        return f"{self.count} samples skipped, {len(self.counts)} different: {shown}{more}"
