"""Speed of the image path: encode a picture once, then a mask for each box."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sam2_hq.benchmark.clock import Clock, Timing
from sam2_hq.benchmark.environment import peak_memory
from sam2_hq.benchmark.plan import Plan, Speed
from sam2_hq.benchmark.scene import boxes
from sam2_hq.peak_memory import reset_cuda_peak
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor


def time_image(
    predictor: SAM2ImagePredictor, picture: NDArray[np.uint8], plan: Plan, clock: Clock
) -> Speed:
    """Time one picture with boxes on the places of `scene`.

    Args:
        predictor: the caller sets autocast.
        picture: uint8 [H, W, 3].
        plan: how much; passes are not looked at.
        clock: of the predictor's device.

    Returns:
        Stages `encode` (`set_image`), `one prompt`, `all prompts` in one call, and `picture`:
        encode and all prompts. Prompts end with masks in pixels of the picture on the host.
    """
    wanted = boxes(plan.objects, (picture.shape[0], picture.shape[1]))

    def ask(chosen: NDArray[np.float32]) -> None:
        predictor.predict(box=chosen, multimask_output=False)

    def segment() -> None:
        predictor.set_image(picture)
        ask(wanted)

    stages: dict[str, Callable[[], None]] = {
        "encode": lambda: predictor.set_image(picture),
        "one prompt": lambda: ask(wanted[:1]),
        "all prompts": lambda: ask(wanted),
        "picture": segment,
    }
    reset_cuda_peak(clock.device)
    timings = {name: _repeated(work, plan, clock) for name, work in stages.items()}
    return Speed(plan.objects, timings, peak_memory(clock.device))


def _repeated(work: Callable[[], None], plan: Plan, clock: Clock) -> Timing:
    for _ in range(plan.warm_up):
        work()
    return Timing.of([clock.time(work) for _ in range(plan.repeats)])
