"""The most memory that this process held, and the most of its GPU, since the last reset."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # see proc(5), clear_refs


def reset_peaks(device: torch.device) -> None:
    """Start over. Where the system cannot, the peak of the process stays its peak of all times."""
    with suppress(OSError):
        _STATUS.with_name("clear_refs").write_text(_RESET_PEAK)
    reset_cuda_peak(device)


def reset_cuda_peak(device: torch.device) -> None:
    """Start over on a GPU; nothing on other devices."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_rss_bytes() -> int | None:
    """Most resident memory, None where it is not known (Windows)."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_cuda_bytes(device: torch.device) -> int | None:
    """Most memory that PyTorch held on a GPU, None on other devices."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
