"""`sam2-hq doctor`: what is installed, what will be used, and what to do about what is missing."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import av
import torch
import typer

from sam2_hq.build_sam import DEFAULT_WEIGHTS
from sam2_hq.compose import config_dir, config_names
from sam2_hq.device import choose_device
from sam2_hq.hub import PUBLISHED, cache_folder
from sam2_hq.ops.connected_components import backend


@dataclass(frozen=True)
class Finding:
    """One line of the report. advice: what to do; None where nothing is wrong."""

    name: str
    value: str
    advice: str | None = None


def doctor() -> None:
    """Say what is installed, what will be used, and what to do."""
    findings = examine()
    for finding in findings:
        typer.echo(f"{finding.name:<22}{finding.value}")
        if finding.advice is not None:
            typer.echo(f"{'':<22}-> {finding.advice}")
    wrong = sum(finding.advice is not None for finding in findings)
    typer.echo(f"{wrong} suggestions" if wrong else "all is well")


def examine() -> list[Finding]:
    """Look at the installation; nothing is changed, fetched or compiled but the CUDA kernel."""
    device = choose_device(None)
    return [
        _package("sam2-hq", "install it with pip; this runs from a checkout"),
        Finding("python", platform.python_version()),
        *(_package(name, f"pip install {name}") for name in ("torch", "torchvision", "scipy")),
        Finding("CUDA of torch", torch.version.cuda or "none, torch is built for the CPU"),
        _device(device),
        _components(device),
        _package("decord2", "pip install decord2: decodes videos as published, on demand"),
        _package("av", "pip install av"),
        _encoder(),
        _configs(),
        _default_checkpoint(),
        _downloads(),
    ]


def _package(name: str, advice: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", advice)


def _device(device: torch.device) -> Finding:
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        memory = card.total_memory / 2**30
        return Finding(
            "device", f"cuda: {card.name}, {memory:.0f} GiB, sm_{card.major}{card.minor}"
        )
    if device.type == "mps":
        return Finding("device", "mps: torch sees no CUDA device")
    threads = torch.get_num_threads()
    advice = None
    if torch.version.cuda is not None:
        advice = "if there is a GPU, torch does not see it: check its driver with nvidia-smi"
    return Finding("device", f"cpu, {threads} threads: torch sees no GPU", advice)


def _components(device: torch.device) -> Finding:
    words = backend(device)
    is_fallback = device.type == "cuda" and not words.startswith("CUDA")
    advice = "same masks, but slower; pip install nvidia-cuda-nvrtc" if is_fallback else None
    return Finding("connected components", words, advice)


def _encoder() -> Finding:
    if "libx264" in av.codecs_available:
        return Finding("overlay video", "H.264")
    advice = "browsers may not play it: install the av wheel from PyPI, which has H.264"
    return Finding("overlay video", "MPEG-4 part 2", advice)


def _configs() -> Finding:
    try:
        return Finding("configs", f"{len(config_names())} in {config_dir()}")
    except RuntimeError as error:
        return Finding("configs", "none", str(error))


def _default_checkpoint() -> Finding:
    if DEFAULT_WEIGHTS.is_file():
        size = DEFAULT_WEIGHTS.stat().st_size / 1e6
        return Finding("default checkpoint", f"{DEFAULT_WEIGHTS.name}, {size:.0f} MB")
    advice = "give --checkpoint; random weights stand in for it, their masks mean nothing"
    return Finding("default checkpoint", f"none at {DEFAULT_WEIGHTS}", advice)


def _downloads() -> Finding:
    there = [name for name in PUBLISHED if (cache_folder() / f"{name}.pt").is_file()]
    found = ", ".join(there) or "no published checkpoint"
    return Finding("downloaded", f"{found} in {cache_folder()}")
