"""Random numbers that each row of a batch brings with it, however the batch is shared out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """A generator, and which part of the global batch is ours.

    Numbers are drawn for the rows of all processes and cut to our own, so several processes see
    what one process with the whole batch would see. Structural choices are the same everywhere.
    """

    generator: torch.Generator
    rank: int = 0
    world_size: int = 1

    def uniform(self, num_rows: int, *shape: int) -> Tensor:
        """Numbers in 0..1 for our rows, [num_rows, *shape]."""
        size = (num_rows * self.world_size, *shape)
        return self._own(torch.rand(size, generator=self.generator), num_rows)

    def normal(self, num_rows: int, *shape: int) -> Tensor:
        """Standard normal numbers for our rows, [num_rows, *shape]."""
        size = (num_rows * self.world_size, *shape)
        return self._own(torch.randn(size, generator=self.generator), num_rows)

    def seeds(self, num_rows: int) -> list[int]:
        """A seed for each of our rows."""
        size = (num_rows * self.world_size,)
        values = torch.randint(2**62, size, generator=self.generator)
        return [int(seed) for seed in self._own(values, num_rows)]

    def integer(self, low: int, high: int) -> int:
        """One number of low..high, both included; the same in every process."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def chance(self, probability: float) -> bool:
        """True with the given probability; the same in every process."""
        return bool(torch.rand((), generator=self.generator) < probability)

    def _own(self, values: Tensor, num_rows: int) -> Tensor:
        return values[self.rank * num_rows : (self.rank + 1) * num_rows]
