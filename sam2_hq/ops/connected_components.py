"""8-connected components of a batch of masks: one contract, identical labels on every device.

A CUDA tensor is labelled by the kernels in `csrc/connected_components.cu`: machine code made at
install time where nvcc was there, else compiled at run time. Every other tensor goes to SciPy; why
not to OpenCV or cc3d, which are faster, says `docs/connected_components.md`.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from sam2_hq.ops.cuda_module import CudaModule, compile_cubin, open_driver

_log = logging.getLogger(__name__)

KERNEL_SOURCE = Path(__file__).parent.parent / "csrc" / "connected_components.cu"
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def connected_components(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Label the 8-connected foreground regions of each image.

    Args:
        mask: [N, 1, H, W] bool or uint8, foreground where not zero. Any H, W and N, also 0.

    Returns:
        labels: [N, 1, H, W] int32 on the same device. 0 in the background; elsewhere one plus the
            smallest `2 * (y // 2) * W + 2 * (x // 2)` over the pixels of the component. Unique in
            an image, not consecutive. The published labels, on every device.
        areas: [N, 1, H, W] int32, number of pixels of the component a pixel belongs to; 0 in the
            background.

    Raises:
        TypeError: if `mask` is neither bool nor uint8.
        ValueError: if `mask` is not [N, 1, H, W], or an image has 2^31 pixels or more.
    """
    if mask.dtype not in (torch.bool, torch.uint8):
        raise TypeError(f"mask must be bool or uint8, got {mask.dtype}")
    if mask.dim() != 4 or mask.shape[1] != 1:
        raise ValueError(f"mask must be [N, 1, H, W], got {list(mask.shape)}")
    if mask.shape[2] * mask.shape[3] >= 2**31:
        raise ValueError(f"mask must have fewer than 2^31 pixels, got {list(mask.shape)}")
    return torch.ops.sam2_hq.connected_components(mask)


def get_connected_components(mask: Tensor) -> tuple[Tensor, Tensor]:
    """`connected_components` under its published name, for any dtype that casts to uint8."""
    return connected_components(mask.to(torch.uint8))


def backend(device: torch.device | str) -> str:
    """Which code labels a tensor of this device, and why, in one line for a person."""
    device = torch.device(device)
    if device.type != "cuda":
        return f"SciPy on the CPU (tensors on {device.type})"
    if not torch.cuda.is_available():
        return "SciPy on the CPU (no CUDA device is available)"
    return _kernels(_index(device))[1]


def _label(mask: Tensor) -> tuple[Tensor, Tensor]:
    if mask.is_cuda and mask.numel() > 0:
        kernels, _ = _kernels(_index(mask.device))
        if kernels is not None:
            with torch.cuda.device(mask.device):
                stream = torch.cuda.current_stream().cuda_stream
                return label_with_kernels(kernels, mask, stream)
    return _label_with_scipy(mask)


def _empty_labels(mask: Tensor) -> tuple[Tensor, Tensor]:
    shape = mask.shape
    return mask.new_empty(shape, dtype=torch.int32), mask.new_empty(shape, dtype=torch.int32)


def _define_operator() -> None:
    """One opaque operator, so that callers can be traced, exported and run on fake tensors.

    Not by `custom_op`, whose first call imports the compiler, a second of every command.
    """
    name = "sam2_hq::connected_components"
    schema, tag = "(Tensor mask) -> (Tensor, Tensor)", torch.Tag.pt2_compliant_tag
    torch.library.define(name, schema, tags=(tag,))
    torch.library.impl(name, "CompositeExplicitAutograd", _label)
    torch.library.register_fake(name, _empty_labels)


if not hasattr(torch.ops.sam2_hq, "connected_components"):  # a process has it once
    _define_operator()


def label_with_kernels(kernels: CudaModule, mask: Tensor, stream: int) -> tuple[Tensor, Tensor]:
    """Four launches for the whole batch, on the stream whose handle is given; nothing waits."""
    images, _, height, width = mask.shape
    blocks = ((height + 1) // 2) * ((width + 1) // 2)
    mask = mask.contiguous()
    parents = mask.new_empty(images, blocks, dtype=torch.int32)
    sizes = torch.empty_like(parents)
    labels = mask.new_empty(mask.shape, dtype=torch.int32)
    areas = torch.empty_like(labels)
    size = (images, height, width)
    for kernel, arguments in (
        ("start_trees", (mask, parents, sizes, *size)),
        ("join_neighbours", (mask, parents, *size)),
        ("flatten_trees", (mask, parents, sizes, *size)),
        ("write_labels", (mask, parents, sizes, labels, areas, *size)),
    ):
        kernels.launch(kernel, images * blocks, arguments, stream)
    return labels, areas


def _label_with_scipy(mask: Tensor) -> tuple[Tensor, Tensor]:
    images = mask.detach().cpu().numpy()
    labels = np.zeros(images.shape, dtype=np.int32)
    areas = np.zeros(images.shape, dtype=np.int32)
    for image, image_labels, image_areas in zip(images, labels, areas, strict=True):
        _label_image(image[0], image_labels[0], image_areas[0])
    return torch.from_numpy(labels).to(mask.device), torch.from_numpy(areas).to(mask.device)


def _label_image(
    image: NDArray[np.bool_ | np.uint8], labels: NDArray[np.int32], areas: NDArray[np.int32]
) -> None:
    """Fill `labels` and `areas`, [H, W] each."""
    count = ndimage.label(image, _EIGHT_NEIGHBOURS, output=labels)
    sizes = np.bincount(labels.ravel(), minlength=count + 1).astype(np.int32)
    sizes[0] = 0
    # "clip" writes straight into `out`; no number is out of range.
    np.take(sizes, labels, out=areas, mode="clip")
    np.take(_published_labels(labels, count), labels, out=labels, mode="clip")


def _published_labels(numbers: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Label of each of SciPy's numbers 0 to `count`; `numbers` is [H, W]."""
    height, width = numbers.shape
    even = numbers
    if height % 2 or width % 2:
        even = np.pad(numbers, ((0, height % 2), (0, width % 2)))
    # All foreground of a 2x2 block is one component, so the largest number is the only one there.
    rows = np.maximum(even[::2], even[1::2])
    blocks = np.maximum(rows[:, ::2], rows[:, 1::2])
    starts = np.flatnonzero(np.diff(blocks.ravel(), prepend=np.int32(0)))
    down, across = np.divmod(starts, blocks.shape[1])
    published = np.zeros(count + 1, dtype=np.int32)
    # Backwards, because the last assignment stays: the first block of each component.
    published[blocks.ravel()[starts][::-1]] = (1 + 2 * down * width + 2 * across)[::-1]
    published[0] = 0
    return published


@functools.cache
def _kernels(device_index: int) -> tuple[CudaModule | None, str]:
    """The kernels on a device, None if they cannot be had, and in words what came of it."""
    reasons = []
    with torch.cuda.device(device_index):
        torch.cuda.synchronize()  # the driver library needs the context that this makes current
        for when, machine_code in (("install", _packaged_code), ("run", _compiled_code)):
            try:
                kernels = CudaModule(open_driver(), machine_code())
            except (OSError, RuntimeError) as error:
                reasons.append(str(error))
            else:
                return kernels, f"CUDA kernels (compiled at {when} time)"
    reason = "; ".join(reasons)
    _log.warning("connected components run on the CPU, with the same result: %s", reason)
    return None, f"SciPy on the CPU ({reason})"


def _packaged_code() -> bytes:
    return packaged_kernels().read_bytes()


def _compiled_code() -> bytes:
    major, minor = torch.cuda.get_device_capability()
    return compile_cubin(KERNEL_SOURCE.read_text(encoding="utf-8"), f"sm_{major}{minor}")


def packaged_kernels() -> Path:
    """Where the install leaves machine code: named after its source, so that it is never stale."""
    digest = hashlib.sha256(KERNEL_SOURCE.read_bytes()).hexdigest()[:16]
    return KERNEL_SOURCE.with_name(f"connected_components.{digest}.fatbin")


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
