"""Time of one mask's components, areas included, on the CPU libraries that could do it.

    python benchmarks/connected_components.py

Masks are smooth random blobs with speckle. Medians of 15 runs, one thread. Needs
opencv-python and connected-components-3d beside the package.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cc3d
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from sam2_hq.ops.connected_components import connected_components

SIDES = (256, 1024)
NUM_MASKS = 4
REPEATS = 15

Masks = NDArray[np.bool_]


def blobs(side: int) -> Masks:
    """[NUM_MASKS, side, side]: half foreground, one pixel in a thousand flipped."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((NUM_MASKS, side, side))
    smooth = ndimage.gaussian_filter(noise, (0, side / 40, side / 40))
    return (smooth > 0) ^ (rng.random(noise.shape) < 0.001)


def with_areas(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Each pixel's component size."""
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return sizes[labels]


def scipy_label(mask: Masks) -> None:
    """`scipy.ndimage.label`."""
    labels = np.empty(mask.shape, np.int32)
    with_areas(labels, ndimage.label(mask, np.ones((3, 3)), output=labels))


def opencv(mask: Masks) -> None:
    """`cv2.connectedComponents`."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    with_areas(labels, count)


def opencv_stats(mask: Masks) -> None:
    """`cv2.connectedComponentsWithStats`."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    stats[:, cv2.CC_STAT_AREA][labels]


def cc3d_label(mask: Masks) -> None:
    """`cc3d.connected_components`."""
    labels, count = cc3d.connected_components(mask, connectivity=8, return_N=True)
    with_areas(labels, count)


def ours(mask: Masks) -> None:
    """SciPy with published labels, as the package calls it."""
    connected_components(torch.from_numpy(mask)[None, None])


def median_ms(run: Callable[[Masks], None], masks: Masks) -> float:
    """Milliseconds a mask."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for mask in masks:
            run(mask)
        times.append((time.perf_counter() - start) / len(masks))
    return 1000 * float(np.median(times))


def main() -> None:
    """Print a table, and ratios to SciPy."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    for side in SIDES:
        masks = blobs(side)
        times = {
            run.__name__: median_ms(run, masks)
            for run in (scipy_label, opencv, opencv_stats, cc3d_label, ours)
        }
        for name, milliseconds in times.items():
            ratio = milliseconds / times["scipy_label"]
            print(f"{side:5d}  {name:13s} {milliseconds:7.2f} ms  {ratio:5.2f} of SciPy")


if __name__ == "__main__":
    main()
