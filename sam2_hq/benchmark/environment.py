"""What a speed depends on beside the model, and the memory it took."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any  # Any: JSON values

import torch

from sam2_hq.peak_memory import peak_cuda_bytes, peak_rss_bytes


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


def peak_memory(device: torch.device) -> dict[str, int]:
    """Bytes at most: allocated on a CUDA device, and resident since this process began (Unix)."""
    found = {"gpu_bytes": peak_cuda_bytes(device), "process_bytes": peak_rss_bytes()}
    return {name: value for name, value in found.items() if value is not None}


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
