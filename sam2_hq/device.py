"""Which device a model runs on."""

from __future__ import annotations

import torch

Device = str | torch.device


def choose_device(device: Device | None) -> torch.device:
    """Return the device to use: the given one if it is there; for None CUDA, else MPS, else CPU.

    Raises:
        ValueError: if the device is unknown or absent.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be cpu, cuda, cuda:N or mps, got {device!r}") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device must be there, got {chosen} on a machine with {count} CUDA GPUs")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device must be there, got mps on a machine without it")
    if chosen.type not in ("cpu", "cuda", "mps", "meta"):  # meta: shapes alone, asked for by name
        _check_computes(chosen)
    return chosen


def _check_computes(device: torch.device) -> None:
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, ImportError, AssertionError) as error:  # an assertion of PyTorch's own
        raise ValueError(f"device must be one that computes here, got {device}") from error
