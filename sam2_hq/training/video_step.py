"""The forward pass of the video stage: prompt the first frame, then live with own memories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sam2_hq.config import MemoryPolicy
from sam2_hq.modeling.sam2_base import MemoryTokens, SAM2Base
from sam2_hq.structures import NO_OBJECT_LOGIT, FrameFeatures, MaskPrompt
from sam2_hq.tracking.memory import select_memory
from sam2_hq.training.answers import Answer, Judge, Prompt, Scene, ask, correct
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.draws import Draws
from sam2_hq.training.image_step import (
    ImageStep,
    Numbers,
    PromptMix,
    StepOutput,
    click_on,
    visible_rows,
)
from sam2_hq.training.losses import Losses, join_losses
from sam2_hq.training.prompts import box_around
from sam2_hq.transforms import normalize

FirstPrompt = Literal["mask", "box", "click"]


@dataclass(frozen=True)
class VideoMix:
    """How clips are prompted.

    points: chance that a clip is prompted by points, not by the true mask.
    box: chance that these points are a box.
    second: chance that one more frame is prompted from the start.
    corrected_frames: at most so many frames get correction clicks.
    corrections: clicks on each of them.
    stills: prompts of batches that have one frame.
    """

    points: float = 0.5
    box: float = 0.5
    second: float = 0.2
    corrected_frames: int = 1
    corrections: int = 2
    stills: PromptMix = field(default_factory=PromptMix)


class _Memory(NamedTuple):
    spatial: Tensor  # [N, Cm, g, g]
    pointer: Tensor  # [N, C]


class VideoStep(nn.Module):
    """Losses of clips, tracked as inference tracks; gradients run through the memories."""

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
        clip = _Clip.encode(self.model, batch)
        plan = self._plan(num_frames, draws)
        slots = batch.masks.shape[0] * batch.masks.shape[2]
        numbers = [
            Numbers.draw(draws, slots, rounds=self.mix.corrections, side=1).rows(clip.rows)
            for _ in range(num_frames)
        ]
        memories: dict[int, _Memory] = {}
        parts: list[Losses] = []
        prompted: list[int] = []
        answer: Answer | None = None
        for frame in plan.order:
            truth = self.judge.pooled(clip.truth[:, frame])
            if frame in plan.prompted:
                memories[frame], answers = self._begin(clip, frame, truth, plan, numbers[frame])
                prompted.append(frame)
            else:
                scene = self._recall(clip, frame, memories, prompted)
                rounds = self.mix.corrections if frame in plan.corrected else 0
                answers = self._track(scene, truth, numbers[frame], rounds)
                memories[frame] = self._remember(clip, frame, answers[-1])
                prompted += [frame] * bool(rounds)
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

    def _begin(
        self, clip: _Clip, frame: int, truth: Tensor, plan: _Plan, numbers: Numbers
    ) -> tuple[_Memory, list[Answer]]:
        """A frame prompted without any memory."""
        features, full = clip.features[frame], clip.truth[:, frame]
        if plan.kind == "mask":
            mask = (full > 0.5).float()[:, None]
            out = self.model.adopt_mask(features, MaskPrompt(mask))
            return self._memory(features, mask * 20.0 - 10.0, out.object_score, out.pointer), []
        scene = Scene(self.model.condition(features, None), features.high_res)
        if plan.kind == "box" and bool((full > 0.5).flatten(1).any(dim=1).all()):
            prompt = Prompt(box_around(full > 0.5, numbers.first))
        else:
            prompt = Prompt(click_on(full, numbers.first, self.judge, self.mix.stills.central))
        rounds = self.mix.corrections if frame in plan.corrected else 0
        answers = self._rounds(scene, prompt, truth, numbers, rounds, is_initial=True)
        return self._remember(clip, frame, answers[-1]), answers

    def _track(self, scene: Scene, truth: Tensor, numbers: Numbers, rounds: int) -> list[Answer]:
        return self._rounds(scene, Prompt(), truth, numbers, rounds, is_initial=False)

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
        central = self.mix.stills.central
        answers = [ask(self.model, scene, prompt, truth, is_initial=is_initial, judge=self.judge)]
        for k in range(rounds):
            prompt = correct(
                prompt,
                answers[-1],
                truth,
                numbers.corrections[:, k],
                judge=self.judge,
                central=central,
            )
            answers.append(
                ask(self.model, scene, prompt, truth, is_initial=is_initial, judge=self.judge)
            )
        return answers

    def _recall(
        self, clip: _Clip, frame: int, memories: Mapping[int, _Memory], prompted: list[int]
    ) -> Scene:
        others = memories.keys() - set(prompted)
        recall = select_memory(
            frame,
            prompted,
            others,
            others,
            num_frames=len(clip.features),
            backward=False,
            policy=self.policy,
        )
        slots, offsets = recall.layout
        tokens = MemoryTokens(
            torch.stack([memories[f].spatial for f, _ in recall.spatial], dim=1),
            slots,
            torch.stack([memories[f].pointer for f, _ in recall.pointers], dim=1),
            offsets,
        )
        features = clip.features[frame]
        return Scene(self.model.condition(features, tokens), features.high_res)

    def _remember(self, clip: _Clip, frame: int, answer: Answer) -> _Memory:
        present = (answer.object_score > 0)[..., None, None]
        logits = torch.where(present, answer.logits.float(), NO_OBJECT_LOGIT)
        pointer = self.model.make_pointer(answer.token, answer.object_score)
        return self._memory(clip.features[frame], logits, answer.object_score, pointer)

    def _memory(
        self, features: FrameFeatures, logits: Tensor, score: Tensor, pointer: Tensor
    ) -> _Memory:
        return _Memory(self.model.encode_memory(features, logits, score), pointer)


class _Plan(NamedTuple):
    kind: FirstPrompt
    prompted: list[int]
    corrected: set[int]
    order: list[int]


class _Clip(NamedTuple):
    """The frames of all clips, as seen by each tracked object."""

    rows: Tensor  # [N] slots
    truth: Tensor  # [N, T, S, S]
    features: list[FrameFeatures]  # of each frame, one row an object

    @classmethod
    def encode(cls, model: SAM2Base, batch: TrainingBatch) -> _Clip:
        rows = visible_rows(batch.masks[:, 0])
        num_frames, num_slots = batch.masks.shape[1:3]
        all_frames = model.encode_image(normalize(batch.frames.flatten(0, 1)))
        picture = rows // num_slots
        features = []
        for frame in range(num_frames):
            index = picture * num_frames + frame
            high_res = tuple(level[index] for level in all_frames.high_res)
            features.append(FrameFeatures(all_frames.embedding[index], high_res))
        truth = batch.masks.transpose(1, 2).flatten(0, 1)[rows]
        return cls(rows, truth, features)
