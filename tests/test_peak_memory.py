"""Peaks of memory, also where the system tells little."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from sam2_hq import peak_memory

CPU = torch.device("cpu")


def _touch_fresh_pages(num_bytes: int) -> None:
    """Pages of the system's own: the allocator might give some that this process holds already."""
    with mmap.mmap(-1, num_bytes) as pages:
        for start in range(0, num_bytes, mmap.PAGESIZE):
            pages[start] = 1


def test_a_peak_is_noticed_and_forgotten():
    peak_memory.reset_peaks(CPU)
    before = peak_memory.peak_rss_bytes()
    _touch_fresh_pages(64 << 20)
    after = peak_memory.peak_rss_bytes()
    assert before is not None
    assert after is not None
    assert after - before > 32 << 20
    peak_memory.reset_peaks(CPU)
    assert peak_memory.peak_rss_bytes() == pytest.approx(before, abs=32 << 20)


def test_a_sandbox_without_peaks_does_not_stop_a_run(monkeypatch, tmp_path: Path):
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t  1000 kB\n")
    (tmp_path / "clear_refs").mkdir()  # cannot be written
    monkeypatch.setattr(peak_memory, "_STATUS", tmp_path / "status")
    peak_memory.reset_peaks(CPU)
    peak = peak_memory.peak_rss_bytes()
    assert peak is not None
    assert peak > 10 << 20


def test_without_a_gpu_there_is_no_peak_of_it():
    assert peak_memory.peak_cuda_bytes(CPU) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_peak_of_a_gpu_is_seen():
    device = torch.device("cuda")
    peak_memory.reset_peaks(device)
    torch.zeros(50_000_000, dtype=torch.uint8, device=device)
    peak = peak_memory.peak_cuda_bytes(device)
    assert peak is not None
    assert peak >= 50e6
