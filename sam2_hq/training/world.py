"""One process or several: who we are, and whole-batch means over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sam2_hq.training.draws import Draws

LONGEST_WAIT = timedelta(days=1)
"""How long processes wait for each other: the first one validates alone."""

LAUNCHER_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """Our place among the processes of a run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on our machine

    @property
    def is_first(self) -> bool:
        """Whether we are the one that writes files."""
        return self.rank == 0

    def share_of(self, batch_size: int) -> int:
        """How many clips of a global batch are ours.

        Raises:
            ValueError: if the batch does not divide evenly.
        """
        if batch_size % self.size:
            raise ValueError(
                f"batch_size must be a multiple of the {self.size} processes, got {batch_size}"
            )
        return batch_size // self.size

    def own(self, device: torch.device) -> torch.device:
        """Our own GPU where processes share out the GPUs of a machine; else the device itself."""
        if device.type == "cuda" and self.size > 1 and device.index is None:
            return torch.device("cuda", self.local_rank)
        return device

    def draws(self, generator: torch.Generator) -> Draws:
        """Our part of what a generator draws; all processes must bring it in the same state."""
        return Draws(generator, self.rank, self.size)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with gradients averaged over all processes."""
        if self.size == 1:
            return module
        return DistributedDataParallel(
            module, find_unused_parameters=True, gradient_as_bucket_view=True
        )

    def mean(self, values: Tensor) -> Tensor:
        """Mean over rows [..., N] of all processes, for a backward pass that averages over them."""
        if self.size == 1:
            return values.mean(dim=-1)
        count = torch.tensor(float(values.shape[-1]), device=values.device)
        dist.all_reduce(count)
        return values.sum(dim=-1) * self.size / count

    def average(self, value: Tensor) -> Tensor:
        """The mean of a number over all processes."""
        if self.size == 1:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value / self.size

    def agree_on(self, value: float) -> float:
        """The first process's number, in every process: clocks differ."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared)

    def check_same(self, what: str, value: int) -> None:
        """Raise ValueError in every process unless all have the same number."""
        if self.size == 1:
            return
        own = torch.tensor([value])
        every = [torch.zeros_like(own) for _ in range(self.size)]
        dist.all_gather(every, own)
        values = [int(one) for one in every]
        if len(set(values)) > 1:
            raise ValueError(
                f"{what} must be the same in all processes, got {values} by rank: the folder of "
                "the run must be one that all of them see"
            )


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that torchrun started; alone when it did not.

    Raises:
        ValueError: if a launcher speaks of several processes, but not as torchrun does.
    """
    missing = [name for name in LAUNCHER_VARIABLES if not os.environ.get(name)]
    if missing and int(os.environ.get("WORLD_SIZE") or 1) == 1:
        yield World()
        return
    if missing:
        raise ValueError(
            f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, but {', '.join(missing)} are not set: "
            "start the processes with torchrun"
        )
    local_rank = int(os.environ["LOCAL_RANK"])
    if local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    # Clocks and options are agreed on between CPUs, also where gradients are between GPUs.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local_rank)
        # Leave together: the first process still writes when the others have done their last step.
        # Not with a tensor of Python's: gloo's thread may let it go while Python ends, which aborts
        # the process, and `destroy_process_group` does not end a thread that DDP still holds.
        dist.barrier()
    finally:
        dist.destroy_process_group()
