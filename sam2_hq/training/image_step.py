"""The forward pass of the image stage: encode once, then prompt and correct each object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_hq.checks import check_counts, check_shares
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.training.answers import Judge, Prompt, Scene, ask, correct
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.draws import Draws
from sam2_hq.training.losses import Losses, join_losses
from sam2_hq.training.prompts import coarse_mask_logits, coarse_view, loose_box
from sam2_hq.transforms import normalize

COARSEST_LOOK = 4
"""Times a second look magnifies, at most."""


@dataclass(frozen=True)
class PromptMix:
    """How objects are first asked for, and how they are corrected.

    click, box: shares of the objects; the rest gets a coarse mask.
    max_corrections: clicks after the first prompt, 0 to this many.
    forget_mask: chance that a correction sees the clicks alone, not the mask before it.
    central: share of clicks in the middle of the region.
    second_look: chance that an answer is followed by the same question with the mask of the answer,
        as coarse as a window around the object would show it.
    """

    click: float = 0.45
    box: float = 0.35
    max_corrections: int = 3
    forget_mask: float = 0.25
    central: float = 0.5
    second_look: float = 0.0

    def __post_init__(self) -> None:
        check_shares(vars(self), "click", "box", "forget_mask", "central", "second_look")
        check_counts(vars(self), "max_corrections")
        if self.click + self.box > 1 + 1e-9:
            raise ValueError(
                f"click and box must be shares of one whole, got {self.click} and {self.box}"
            )


class StepOutput(NamedTuple):
    """Losses of all answers, and the last masks for people to look at.

    rows: [N] object slots, an index into B * O.
    last_logits: [N, 1, 4g, 4g] of these objects on the last frame.
    """

    losses: Losses
    rows: Tensor
    last_logits: Tensor


class Numbers(NamedTuple):
    """What chance decides for each object slot of the batch."""

    kind: Tensor  # [N]
    first: Tensor  # [N, 4]
    corrections: Tensor  # [N, rounds, 4]
    noise: Tensor  # [N, 4g, 4g]

    @classmethod
    def draw(cls, draws: Draws, rows: int, *, rounds: int, side: int) -> Numbers:
        """Draw for `rows` slots, `rounds` corrections, and coarse masks of `side`."""
        return cls(
            kind=draws.uniform(rows),
            first=draws.uniform(rows, 4),
            corrections=draws.uniform(rows, rounds, 4),
            noise=draws.normal(rows, side, side),
        )

    def rows(self, index: Tensor) -> Numbers:
        """The numbers of some slots, on the device of the index."""
        return Numbers(*(value[index.cpu()].to(index.device) for value in self))


class ImageStep(nn.Module):
    """Losses of a batch of stills. Owns the model, so that gradients can be averaged around it."""

    def __init__(self, model: SAM2Base, *, mix: PromptMix, judge: Judge) -> None:
        super().__init__()
        self.model = model
        self.mix = mix
        self.judge = judge

    def forward(self, batch: TrainingBatch, draws: Draws) -> StepOutput:
        """Answer prompts on the first frame of each clip.

        Raises:
            ValueError: if there is no object on any of them.
        """
        masks = batch.masks[:, 0]  # [B, O, S, S]
        features = self.model.encode_image(normalize(batch.frames[:, 0]))
        scene = Scene(self.model.condition(features, None), features.high_res)
        side = self.model.sam_prompt_encoder.mask_input_size[0]
        numbers = Numbers.draw(
            draws, masks.shape[0] * masks.shape[1], rounds=self.mix.max_corrections, side=side
        )
        # One entry a correction: whether the mask before it is forgotten.
        forgets = [
            draws.chance(self.mix.forget_mask)
            for _ in range(draws.integer(0, self.mix.max_corrections))
        ]
        looks = [draw_look(draws, self.mix.second_look) for _ in range(1 + len(forgets))]
        rows = visible_rows(masks)
        truth = masks.flatten(0, 1)
        parts, last, order = [], [], []
        for index, prompt in self._prompts(truth, rows, numbers):
            losses, logits = self._rounds(
                scene.rows(index // masks.shape[1]),
                prompt,
                truth[index],
                numbers.rows(index).corrections,
                forgets,
                looks,
            )
            parts.append(losses)
            last.append(logits)
            order.append(index)
        return StepOutput(join_losses(parts), torch.cat(order), torch.cat(last))

    def _prompts(
        self, truth: Tensor, rows: Tensor, numbers: Numbers
    ) -> Iterator[tuple[Tensor, Prompt]]:
        """The objects by the kind of their first prompt."""
        kind = numbers.rows(rows).kind
        is_click = kind < self.mix.click
        is_mask = kind >= self.mix.click + self.mix.box
        for name, index in (
            ("click", rows[is_click]),
            ("box", rows[~is_click & ~is_mask]),
            ("mask", rows[is_mask]),
        ):
            if len(index):
                own = numbers.rows(index)
                yield index, first_prompt(name, truth[index], own, self.judge, self.mix.central)

    def _rounds(
        self,
        scene: Scene,
        prompt: Prompt,
        truth: Tensor,
        numbers: Tensor,
        forgets: Sequence[bool],
        looks: Sequence[int | None],
    ) -> tuple[Losses, Tensor]:
        parts, logits = self._answer(scene, prompt, truth, looks[0])
        for k, forget in enumerate(forgets):
            prompt = correct(
                prompt,
                logits,
                truth,
                numbers[:, k],
                judge=self.judge,
                central=self.mix.central,
                forget=forget,
            )
            losses, logits = self._answer(scene, prompt, truth, looks[k + 1])
            parts += losses
        return join_losses(parts), logits

    def _answer(
        self, scene: Scene, prompt: Prompt, truth: Tensor, look: int | None
    ) -> tuple[list[Losses], Tensor]:
        """Losses of an answer and maybe of a second look, and the mask shown, without gradient."""
        answer = ask(self.model, scene, prompt, truth, is_initial=True, judge=self.judge)
        losses = [answer.losses]
        if look is not None:
            seen = Prompt(prompt.points, coarse_view(answer.logits.detach(), look))
            answer = ask(
                self.model, scene, seen, truth, is_initial=True, judge=self.judge, several=False
            )
            losses.append(answer.losses)
        return losses, answer.logits.detach()


def draw_look(draws: Draws, share: float) -> int | None:
    """How much coarser the mask is that a second look begins with; None for no such look."""
    if not share or not draws.chance(share):
        return None
    return draws.integer(1, COARSEST_LOOK)


def visible_rows(masks: Tensor) -> Tensor:
    """Slots [N] of the objects that show in masks [B, O, S, S].

    Raises:
        ValueError: if there are none.
    """
    rows = (masks > 0.5).flatten(2).any(dim=2).flatten().nonzero()[:, 0]
    if not len(rows):
        raise ValueError("masks must show an object on the first frame of a clip, got none")
    return rows


def first_prompt(
    kind: str, truth: Tensor, numbers: Numbers, judge: Judge, central: float
) -> Prompt:
    """Ask for objects [N, S, S] by a click, a box, or else a coarse mask."""
    if kind == "click":
        return Prompt(judge.click_object(truth, numbers.first, central))
    if kind == "box":
        return Prompt(loose_box(truth > 0.5, numbers.first))
    small = F.interpolate(truth[:, None], numbers.noise.shape[-2:], mode="area")[:, 0]
    return Prompt(None, coarse_mask_logits(small, numbers.noise))
