"""The forward pass of the video stage: prompt the first frame, then live with own memories."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_hq.checks import check_counts, check_shares
from sam2_hq.config import MemoryPolicy
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.structures import PADDING, HQMode, PointPrompt
from sam2_hq.training.answers import Answer, Judge, Prompt, Scene, ask, correct, is_present
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.clip_memory import ClipMemory
from sam2_hq.training.draws import Draws
from sam2_hq.training.image_step import ImageStep, Numbers, PromptMix, StepOutput
from sam2_hq.training.losses import Losses, join_losses
from sam2_hq.training.prompts import loose_box

FirstPrompt = Literal["mask", "box", "click"]


@dataclass(frozen=True)
class VideoMix:
    """How clips are prompted.

    points: chance that a clip is prompted by points, not by the true mask.
    box: chance that these points are a box.
    second: chance that one more frame is prompted from the start.
    corrected_frames: at most so many frames get correction clicks.
    corrections: clicks on each of them.
    central: share of clicks in the middle of the region.
    stills: prompts of batches that have one frame.
    """

    points: float = 0.5
    box: float = 0.5
    second: float = 0.2
    corrected_frames: int = 1
    corrections: int = 2
    central: float = 0.5
    stills: PromptMix = field(default_factory=PromptMix)

    def __post_init__(self) -> None:
        check_shares(vars(self), "points", "box", "second", "central")
        check_counts(vars(self), "corrected_frames", "corrections")


class VideoStep(nn.Module):
    """Losses of clips, tracked as inference tracks; gradients run through the memories.

    hq_mode: of the masks that are remembered and corrected.
    """

    hq_mode: HQMode = "off"

    def __init__(
        self, model: SAM2Base, *, mix: VideoMix, judge: Judge, policy: MemoryPolicy
    ) -> None:
        super().__init__()
        self.model = model
        self.mix = mix
        self.judge = judge
        self.policy = policy
        self.stills = ImageStep(model, mix=mix.stills, judge=judge)

    def forward(self, batch: TrainingBatch, draws: Draws) -> StepOutput:
        """Track the objects of the first frame through each clip.

        Raises:
            ValueError: if no clip shows an object on its first frame.
        """
        num_frames = batch.frames.shape[1]
        if num_frames == 1:
            return self.stills(batch, draws)
        clip = ClipMemory(self.model, batch, self.policy)
        plan = self._plan(num_frames, draws)
        slots = batch.masks.shape[0] * batch.masks.shape[2]
        numbers = [
            Numbers.draw(draws, slots, rounds=self.mix.corrections, side=1).rows(clip.rows)
            for _ in range(num_frames)
        ]
        parts: list[Losses] = []
        answer: Answer | None = None
        for frame in plan.order:
            answers = self._answer(clip, frame, plan, numbers[frame])
            parts += [one.losses for one in answers]
            answer = answers[-1] if answers else answer
        assert answer is not None  # a clip has a second frame, and that is answered
        return StepOutput(join_losses(parts), clip.rows, answer.logits.detach())

    def _plan(self, num_frames: int, draws: Draws) -> _Plan:
        kind: FirstPrompt = "mask"
        if draws.chance(self.mix.points):
            kind = "box" if draws.chance(self.mix.box) else "click"
        prompted = {0}
        # The last frame is always tracked, so that every clip has something to learn from.
        if num_frames > 2 and draws.chance(self.mix.second):
            prompted.add(draws.integer(1, num_frames - 2))
        corrected: set[int] = set()
        if kind != "mask":
            for _ in range(draws.integer(0, self.mix.corrected_frames)):
                corrected.add(draws.integer(0, num_frames - 1))
        rest = [frame for frame in range(num_frames) if frame not in prompted]
        return _Plan(kind, sorted(prompted), corrected, [*sorted(prompted), *rest])

    def _answer(self, clip: ClipMemory, frame: int, plan: _Plan, numbers: Numbers) -> list[Answer]:
        """Answer a frame and remember it; none for a frame whose true mask is given."""
        is_prompted = frame in plan.prompted
        if is_prompted and plan.kind == "mask":
            clip.adopt_truth(frame)
            return []
        rounds = self.mix.corrections if frame in plan.corrected else 0
        answers = self._rounds(
            clip.scene(frame) if is_prompted else clip.recall(frame),
            self._first_prompt(clip, frame, plan.kind, numbers) if is_prompted else Prompt(),
            clip.truth[:, frame],
            numbers,
            rounds,
            is_initial=is_prompted,
        )
        last = answers[-1]
        is_prompted |= rounds > 0
        clip.keep(frame, last.logits, last.token, last.object_score, is_prompted=is_prompted)
        return answers

    def _first_prompt(
        self, clip: ClipMemory, frame: int, kind: FirstPrompt, numbers: Numbers
    ) -> Prompt:
        truth = clip.truth[:, frame]
        clicks = self.judge.click_object(truth, numbers.first, self.mix.central)
        if kind == "click":
            return Prompt(clicks)
        boxes = loose_box(truth > 0.5, numbers.first)
        # An object may be out of sight on a later frame; it has a click, padded to two points.
        shown = is_present(truth)[:, None]
        labels = F.pad(clicks.labels, (0, 1), value=PADDING)
        return Prompt(
            PointPrompt(
                torch.where(shown[..., None], boxes.coords, clicks.coords),
                torch.where(shown, boxes.labels, labels),
            )
        )

    def _rounds(
        self,
        scene: Scene,
        prompt: Prompt,
        truth: Tensor,
        numbers: Numbers,
        rounds: int,
        *,
        is_initial: bool,
    ) -> list[Answer]:
        def answer(prompt: Prompt) -> Answer:
            return ask(
                self.model,
                scene,
                prompt,
                truth,
                is_initial=is_initial,
                judge=self.judge,
                hq_mode=self.hq_mode,
            )

        answers = [answer(prompt)]
        for k in range(rounds):
            prompt = correct(
                prompt,
                answers[-1].logits,
                truth,
                numbers.corrections[:, k],
                judge=self.judge,
                central=self.mix.central,
            )
            answers.append(answer(prompt))
        return answers


class _Plan(NamedTuple):
    kind: FirstPrompt
    prompted: list[int]
    corrected: set[int]
    order: list[int]
