"""One tracking run: the session, the loop over its frames, saving and stopping."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import torch
import typer
from tqdm import tqdm

from sam2_hq.cli.outputs import Request, TrackFolder
from sam2_hq.cli.prompts import ObjectPrompt, PaintedMask, describe_prompt
from sam2_hq.data.frames import VideoFrames
from sam2_hq.model_spec import ModelSpec
from sam2_hq.ops.masks import OVERLAP_LOGIT, certain_logits
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import TrackedFrame
from sam2_hq.tracking.state import VideoState

SAVING_SHARE = 0.1
"""Of the run's time, spent at most on saving the session."""
ABOVE_ALL = 100.0
"""Times a certain logit: no guess of another object takes a painted pixel."""


@dataclass(frozen=True)
class TrackJob:
    """What is tracked, with what. The same request gives the same masks."""

    source: Path
    frames: VideoFrames
    prompts: list[ObjectPrompt]
    span: range
    model: ModelSpec
    max_memory: int | None
    decoder: str

    def request(self) -> Request:
        """Everything that decides the masks, as JSON values; the device does not."""
        height, width = self.frames.size
        return {
            "source": str(self.source.resolve()),
            "decoder": self.decoder,
            "num_frames": len(self.frames),
            "video_size": [height, width],
            "prompts": [describe_prompt(prompt) for prompt in self.prompts],
            "frames": [self.span.start, self.span.stop, self.span.step],
            "max_memory": self.max_memory,
            **self.model.identity(),
        }

    def open_model(self) -> SAM2VideoPredictor:
        """The model with its memory bounded as asked."""
        predictor = self.model.open()
        if self.max_memory is not None:
            predictor.memory_policy = replace(
                predictor.memory_policy, max_memory_frames=self.max_memory
            )
        return predictor

    def as_painted(self, tracked: TrackedFrame, *, non_overlap: bool) -> TrackedFrame:
        """The frame with each object as it was painted there, where it was.

        The session holds it as the published predictors do, on a quarter of the model's grid.

        Args:
            tracked: the frame.
            non_overlap: whether what is painted leaves nothing of itself to other objects.
        """
        painted = {
            prompt.object_id: torch.from_numpy(prompt.mask).to(tracked.masks.device)
            for prompt in self.prompts
            if isinstance(prompt, PaintedMask) and prompt.frame == tracked.frame_idx
        }
        if not painted:
            return tracked
        taken = torch.stack([*painted.values()]).any(dim=0) & non_overlap
        masks = torch.where(taken, tracked.masks.clamp(max=OVERLAP_LOGIT), tracked.masks)
        for row, key in enumerate(tracked.obj_ids):
            if key in painted:
                masks[row, 0] = certain_logits(painted[key].to(masks)) * ABOVE_ALL
        return tracked._replace(masks=masks)

    def open_session(
        self, predictor: SAM2VideoPredictor, saved: tuple[Path, int] | None
    ) -> tuple[VideoState, int]:
        """The saved session, or one with all prompts; and how many frames it has tracked."""
        if saved is not None:
            path, done = saved
            return predictor.load_state(path, self.frames, async_loading_frames=True), done
        state = predictor.init_state(self.frames, async_loading_frames=True)
        for prompt in self.prompts:
            _prompt(predictor, state, prompt)
        return state, 0


def run_job(job: TrackJob, folder: TrackFolder, request: Request, *, resume: bool) -> None:
    """Track what is not tracked yet and write it into the folder.

    Raises:
        ValueError: if the model refuses a prompt; then nothing was written.
        typer.Exit: with code 130, if a signal stopped the run; the session is saved.
    """
    predictor = job.open_model()
    saved = folder.last_session() if resume else None
    with job.model.running_on(predictor.device):
        state, done = job.open_session(predictor, saved)
        with closing(state), folder.begun(request, resume=resume):
            _track_rest(job, folder, predictor, state, done)
    folder.finish(request, job.span, predictor.hq_mode)


def _track_rest(
    job: TrackJob, folder: TrackFolder, predictor: SAM2VideoPredictor, state: VideoState, done: int
) -> None:
    """Track the frames after the first `done`, saving the session now and then and when stopped."""
    rest = job.span[done:]
    if not rest:
        return
    keeper = SessionKeeper(folder, predictor, state)
    results = predictor.propagate_in_video(
        state, start_frame_idx=rest[0], num_frames=len(rest), reverse=rest.step < 0
    )
    bar = tqdm(total=len(job.span), initial=done, desc="tracking", unit="frame")
    with bar, _stop_after_this_frame() as stopped:
        for tracked in results:
            shown = job.as_painted(tracked, non_overlap=predictor.options.non_overlap_masks)
            folder.add_frame(shown, job.frames.names[tracked.frame_idx])
            done += 1
            bar.update()
            if stopped:
                keeper.save(done)
                raise typer.Exit(_say_stopped(done, len(job.span)))
            keeper.save_if_due(done)


class SessionKeeper:
    """Saves the session so often that saving takes at most `SAVING_SHARE` of the time."""

    def __init__(
        self,
        folder: TrackFolder,
        predictor: SAM2VideoPredictor,
        state: VideoState,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._predictor, self._state = folder, predictor, state
        self._clock = clock
        self._due = clock()

    def save_if_due(self, done: int) -> None:
        """Save after `done` frames, unless the last time was too short ago."""
        if self._clock() >= self._due:
            self.save(done)

    def save(self, done: int) -> None:
        """Save after `done` frames."""
        begun = self._clock()
        self._folder.save_session(lambda path: self._predictor.save_state(self._state, path), done)
        took = self._clock() - begun
        self._due = begun + took / SAVING_SHARE


@contextmanager
def _stop_after_this_frame() -> Iterator[list[int]]:
    """Collect the first interrupt or termination signal; the second one of a kind kills."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, earlier[signal.Signals(number)])

    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in earlier:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _say_stopped(done: int, total: int) -> int:
    typer.echo(
        f"sam2-hq: stopped after {done} of {total} frames; the same command with --resume goes on",
        err=True,
    )
    return 130


def _prompt(predictor: SAM2VideoPredictor, state: VideoState, prompt: ObjectPrompt) -> None:
    if isinstance(prompt, PaintedMask):
        predictor.add_new_mask(state, prompt.frame, prompt.object_id, prompt.mask)
        return
    predictor.add_new_points_or_box(
        state,
        prompt.frame,
        prompt.object_id,
        points=prompt.points or None,
        labels=prompt.labels or None,
        box=prompt.box,
    )
