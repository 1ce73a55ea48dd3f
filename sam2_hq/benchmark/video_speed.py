"""Speed of the video path: open, click, track with a full memory.

Reading frames and scaling them to the model's square is timed apart, since a session reads ahead
in a thread, and published figures are without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import islice
from typing import Any  # Any: arguments and results of a verb

import numpy as np
from numpy.typing import NDArray

from sam2_hq.benchmark.clock import Clock, Mark, Timing
from sam2_hq.benchmark.environment import peak_memory
from sam2_hq.benchmark.plan import Plan, Speed
from sam2_hq.benchmark.scene import places
from sam2_hq.data.frames import VideoFrames
from sam2_hq.peak_memory import reset_cuda_peak
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.tracking.state import VideoState

VERBS = ("encode_image", "condition", "decode", "encode_memory")


class HeldVideo:
    """The first `count` frames of a video, scaled to [side, side, 3] beforehand.

    reading: seconds that a frame took.

    Raises:
        ValueError: if the video has fewer.
    """

    def __init__(self, frames: VideoFrames, count: int, side: int, clock: Clock) -> None:
        if frames.num_frames is not None and frames.num_frames < count:
            raise ValueError(
                f"source must have {count} frames, those of the warm-up and those that count, "
                f"got {frames.num_frames}"
            )
        self.frames = frames
        self._squares: list[NDArray[np.uint8]] = []
        self.reading = Timing.of(clock.laps(self._read(count, side)))

    def _read(self, count: int, side: int) -> Iterator[None]:
        for index in range(count):
            self._squares.append(self.frames.square(index, side))
            yield

    def get(self, index: int) -> NDArray[np.uint8]:
        """A frame as the network wants it."""
        return self._squares[index]

    def close(self) -> None:
        """Keep all: the next session wants them again."""


def time_video(
    predictor: SAM2VideoPredictor,
    video: HeldVideo,
    plan: Plan,
    clock: Clock,
    *,
    by_verb: bool = False,
) -> Speed:
    """Time sessions with clicks on the first frame, on the places of `scene`.

    Args:
        predictor: the caller sets autocast.
        video: at least `plan.num_frames` frames.
        plan: how much.
        clock: of the predictor's device.
        by_verb: one more pass tells how a frame's time is shared.

    Returns:
        Stages `init` (the first frame is read), `first prompt` (and encoded), `further prompt` for
        the other objects, and `frame`: from the scaled frame on the host to the logits in video
        pixels on the device.
    """
    reset_cuda_peak(clock.device)
    for _ in range(plan.warm_up_passes):
        _pass(predictor, video, plan, clock)
    seconds: dict[str, list[float]] = {}
    pass_seconds = []
    for _ in range(plan.passes):
        before, laps = _pass(predictor, video, plan, clock)
        pass_seconds.append(sum(laps))
        for name, values in (*before.items(), ("frame", laps[plan.warm_up :])):
            seconds.setdefault(name, []).extend(values)
    return Speed(
        plan.objects,
        {name: Timing.of(values) for name, values in seconds.items() if values},
        peak_memory(clock.device),
        plan.num_frames,
        pass_seconds,
        _time_verbs(predictor, video, plan, clock) if by_verb else {},
    )


def _pass(
    predictor: SAM2VideoPredictor, video: HeldVideo, plan: Plan, clock: Clock
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of what comes before tracking, and of each tracked frame."""
    state, marks = _open(predictor, video, plan, clock)
    init, first, *further = clock.seconds(marks)
    laps = clock.laps(predictor.propagate_in_video(state, num_frames=plan.num_frames))
    return {"init": [init], "first prompt": [first], "further prompt": further}, laps


def _open(
    predictor: SAM2VideoPredictor, video: HeldVideo, plan: Plan, clock: Clock
) -> tuple[VideoState, list[Mark]]:
    """A session with all objects, and the moments after each step of making it."""
    marks = [clock.mark()]
    state = predictor.init_state(video.frames)
    marks.append(clock.mark())
    state.images = video
    for i, point in enumerate(places(plan.objects, video.frames.size)):
        predictor.add_new_points_or_box(state, 0, i, points=[point], labels=[1])
        marks.append(clock.mark())
    return state, marks


def _time_verbs(
    predictor: SAM2VideoPredictor, video: HeldVideo, plan: Plan, clock: Clock
) -> dict[str, float]:
    """Mean seconds of a frame by verb; `other` is all between them, such as the resizing."""
    state, _ = _open(predictor, video, plan, clock)
    steps = predictor.propagate_in_video(state, num_frames=plan.num_frames)
    clock.laps(islice(steps, plan.warm_up))
    with _watched(predictor, clock) as spans:
        laps = clock.laps(steps)
    shares = {
        verb: sum(clock.seconds(span)[0] for span in calls) / len(laps)
        for verb, calls in spans.items()
    }
    return shares | {"other": sum(laps) / len(laps) - sum(shares.values())}


@contextmanager
def _watched(
    predictor: SAM2VideoPredictor, clock: Clock
) -> Iterator[dict[str, list[tuple[Mark, Mark]]]]:
    """Collect begin and end of every call of a verb."""
    spans: dict[str, list[tuple[Mark, Mark]]] = {verb: [] for verb in VERBS}
    compiled = {verb: vars(predictor)[verb] for verb in VERBS if verb in vars(predictor)}
    for verb in VERBS:
        setattr(predictor, verb, _spanned(getattr(predictor, verb), clock, spans[verb]))
    try:
        yield spans
    finally:
        for verb in VERBS:
            delattr(predictor, verb)
        for verb, call in compiled.items():
            setattr(predictor, verb, call)


def _spanned(
    call: Callable[..., Any], clock: Clock, spans: list[tuple[Mark, Mark]]
) -> Callable[..., Any]:
    @wraps(call)
    def watched(*args: Any, **kwargs: Any) -> Any:
        start = clock.mark()
        result = call(*args, **kwargs)
        spans.append((start, clock.mark()))
        return result

    return watched
