"""What is ours among several processes."""

from __future__ import annotations

import pytest
import torch

from sam2_hq.training.world import World, joined_world


def test_each_process_takes_the_gpu_of_its_place_on_the_machine() -> None:
    cuda = torch.device("cuda")
    assert World(5, 8, local_rank=1).own(cuda) == torch.device("cuda:1")
    assert World().own(cuda) == cuda
    for named in ("cuda:3", "cpu"):
        assert World(5, 8, local_rank=1).own(torch.device(named)) == torch.device(named)


def test_a_batch_is_shared_evenly_or_refused() -> None:
    assert World(1, 4).share_of(12) == 3
    with pytest.raises(ValueError, match="multiple of the 4 processes, got 6"):
        World(1, 4).share_of(6)


def test_without_torchrun_there_is_one_process(monkeypatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined_world() as world:
        assert world == World()
        assert world.mean(torch.tensor([1.0, 3.0])) == 2


def test_a_launcher_may_start_one_process_in_its_own_way(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with joined_world() as world:
        assert world == World()
    monkeypatch.delenv("RANK")
    monkeypatch.setenv("WORLD_SIZE", "")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with joined_world() as world:
        assert world == World()
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"WORLD_SIZE is 2, but RANK, LOCAL_RANK.* not set"):
        joined_world().__enter__()
