"""What a speed depends on beside the model, and the memory it took."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any  # Any: JSON values

import torch


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, processor, threads and, where it is used, the GPU, as JSON values."""
    found: dict[str, Any] = {
        "sam2-hq": _version("sam2-hq"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": card.name,
            "gpu_memory_bytes": card.total_memory,
            "cuda": torch.version.cuda,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return found


def forget_peak_memory(device: torch.device) -> None:
    """Start anew on CUDA; the peak of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Bytes at most: allocated on a CUDA device, and resident since this process began (Unix)."""
    found = {}
    if device.type == "cuda":
        found["gpu_bytes"] = torch.cuda.max_memory_allocated(device)
    if sys.platform != "win32":
        import resource  # Unix alone

        unit = 1 if sys.platform == "darwin" else 1024
        found["process_bytes"] = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The name that Linux knows; elsewhere what Python says."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
