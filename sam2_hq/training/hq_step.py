"""The forward pass of the HQ stage: a frozen model answers, and its HQ token learns to sharpen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sam2_hq.checkpoint import HQ_TENSORS
from sam2_hq.checks import check_counts, check_shares
from sam2_hq.config import MemoryPolicy
from sam2_hq.modeling.sam.mask_decoder import DecoderOutput
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.structures import FrameFeatures, PointPrompt
from sam2_hq.training.answers import Answer, Judge, Prompt, Scene, correct, is_present
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.clip_memory import ClipMemory
from sam2_hq.training.draws import Draws
from sam2_hq.training.feature_cache import FeatureCache
from sam2_hq.training.image_step import (
    Numbers,
    StepOutput,
    draw_look,
    first_prompt,
    visible_rows,
)
from sam2_hq.training.losses import Losses, join_losses
from sam2_hq.training.optimizer import teach_only
from sam2_hq.training.point_losses import num_numbers, point_losses, unsure_points
from sam2_hq.training.prompts import coarse_view, pick_pixels
from sam2_hq.transforms import normalize


@dataclass(frozen=True)
class HQMix:
    """How objects are asked for, each kind equally often, and where masks are compared.

    num_clicks: positive clicks of a prompt by points.
    max_corrections: clicks that follow a single one, 0 to this many, on what the mask before got
        wrong.
    central: share of single clicks and corrections in the middle of their region, as people click.
    num_points: P, sampled points of a loss.
    corrected: share of the loss on SAM + HQ logits; the rest is on the HQ logits alone.
    min_iou: a SAM mask that overlaps the truth less teaches nothing: HQ sharpens the mask that is
        there, and what another object looks like is not its business.
    second_look: share of steps whose prompts on stills come with the mask of a first answer, as
        coarse as a window around the object would show it.
    """

    num_clicks: int = 10
    max_corrections: int = 2
    central: float = 0.5
    num_points: int = 112 * 112
    corrected: float = 0.5
    min_iou: float = 0.0
    second_look: float = 0.0

    def __post_init__(self) -> None:
        check_shares(vars(self), "corrected", "central", "min_iou", "second_look")
        check_counts(vars(self), "max_corrections")
        check_counts(vars(self), "num_clicks", "num_points", least=1)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the prompts."""
        return ("box", "click", "points", "mask")


def freeze_all_but_hq(model: SAM2Base) -> None:
    """Freeze everything but the 13 HQ tensors.

    Raises:
        ValueError: if the model has no HQ token.
    """
    if not model.is_hq:
        raise ValueError("model must have the HQ token to train it, got a plain one")
    teach_only(model, HQ_TENSORS.__contains__)


class HQStep(nn.Module):
    """Losses of the HQ masks of stills or clips; the model stays in evaluation mode."""

    def __init__(
        self,
        model: SAM2Base,
        *,
        mix: HQMix,
        judge: Judge,
        policy: MemoryPolicy,
        cache: FeatureCache | None = None,
    ) -> None:
        super().__init__()
        freeze_all_but_hq(model)
        self.model = model.eval()
        self.mix = mix
        self.judge = judge  # clicks are placed on its grid; HQ losses compare points
        self.policy = policy
        self.cache = cache

    def forward(self, batch: TrainingBatch, draws: Draws) -> StepOutput:
        """Prompt every object of a still, or track those of a clip from their true masks.

        Raises:
            ValueError: if no picture shows an object, or no clip on its first frame.
        """
        if batch.frames.shape[1] > 1:
            return self._track(batch, draws)
        return self._prompt_stills(batch, draws)

    def _track(self, batch: TrainingBatch, draws: Draws) -> StepOutput:
        """Follow clips with the corrected masks in memory, as the predictor does."""
        with torch.no_grad():
            clip = ClipMemory(self.model, batch, self.policy)
            clip.adopt_truth(0)
        slots = batch.masks.shape[0] * batch.masks.shape[2]
        answers: list[Answer] = []
        for frame in range(1, batch.frames.shape[1]):
            with torch.no_grad():
                if answers:
                    last = answers[-1]
                    clip.keep(frame - 1, last.logits, last.token, last.object_score)
                scene = clip.recall(frame)
            numbers = draws.uniform(slots, num_numbers(self.mix.num_points), 2)[clip.rows.cpu()]
            truth = clip.truth[:, frame]
            several = self._asks_for_several(Prompt(), is_initial=False)
            answers.append(self._answer(scene, Prompt(), truth, numbers, several=several))
        losses = [
            # Who is out of sight has no outline to learn from.
            _of_rows(one.losses, is_present(clip.truth[:, frame]))
            for frame, one in enumerate(answers, 1)
        ]
        return StepOutput(join_losses(losses), clip.rows, answers[-1].logits)

    def _prompt_stills(self, batch: TrainingBatch, draws: Draws) -> StepOutput:
        masks = batch.masks[:, 0]
        rows = visible_rows(masks)
        features = self._encode(batch)
        scene = Scene(self.model.condition(features, None), features.high_res)
        truth = masks.flatten(0, 1)
        side = self.model.sam_prompt_encoder.mask_input_size[0]
        numbers = Numbers.draw(draws, len(truth), rounds=self.mix.max_corrections, side=side)
        clicks = draws.uniform(len(truth), self.mix.num_clicks)
        points = draws.uniform(len(truth), num_numbers(self.mix.num_points), 2)
        rounds = draws.integer(0, self.mix.max_corrections)
        look = draw_look(draws, self.mix.second_look)
        parts, last, order = [], [], []
        for kind, index in self._kinds(rows, numbers.rows(rows).kind):
            scenes, own_truth = scene.rows(index // masks.shape[1]), truth[index]
            own = numbers.rows(index)
            if kind == "points":
                prompt = Prompt(clicks_inside(own_truth > 0.5, clicks[index.cpu()]))
            else:
                prompt = first_prompt(kind, own_truth, own, self.judge, self.mix.central)
            if kind == "click":
                prompt = self._correct(scenes, prompt, own_truth, own.corrections[:, :rounds])
            several = self._asks_for_several(prompt, is_initial=True)
            if look is not None:
                seen = self._shown(scenes, prompt, several=several)
                prompt, several = Prompt(prompt.points, coarse_view(seen, look)), False
            answer = self._answer(scenes, prompt, own_truth, points[index.cpu()], several=several)
            parts.append(answer.losses)
            last.append(answer.logits)
            order.append(index)
        return StepOutput(join_losses(parts), torch.cat(order), torch.cat(last))

    @torch.no_grad()
    def _encode(self, batch: TrainingBatch) -> FrameFeatures:
        frames = batch.frames[:, 0]
        if self.cache is None or not batch.keys:
            return self.model.encode_image(normalize(frames))

        def encode(some: Tensor) -> FrameFeatures:
            return self.model.encode_image(normalize(some))

        return self.cache.get(batch.keys, frames, encode)

    def _kinds(self, rows: Tensor, numbers: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The objects by the kind of their prompt, by numbers [N] in 0..1."""
        kinds = self.mix.kinds
        chosen = (numbers * len(kinds)).long()
        for number, kind in enumerate(kinds):
            index = rows[chosen == number]
            if len(index):
                yield kind, index

    def _correct(self, scene: Scene, prompt: Prompt, truth: Tensor, numbers: Tensor) -> Prompt:
        """The prompt with further clicks on what people see wrong, and with the last mask."""
        for one in numbers.unbind(1):
            several = self._asks_for_several(prompt, is_initial=True)
            logits = self._shown(scene, prompt, several=several)
            prompt = correct(prompt, logits, truth, one, judge=self.judge, central=self.mix.central)
        return prompt

    @torch.no_grad()
    def _shown(self, scene: Scene, prompt: Prompt, *, several: bool) -> Tensor:
        """The logits [N, 1, 4g, 4g] that people see."""
        device = scene.embedding.device.type
        dtype = torch.get_autocast_dtype(device)
        is_on = torch.is_autocast_enabled(device)
        # Without the cache: older versions of torch keep the casts made here for the loss, and they
        # carry no gradient.
        with torch.autocast(device, dtype, enabled=is_on, cache_enabled=False):
            out, hq_logits = self._decode(scene, prompt, several=several)
            return (out.sam_logits + hq_logits).float()

    def _asks_for_several(self, prompt: Prompt, *, is_initial: bool) -> bool:
        return self.model.use_multimask(is_initial=is_initial, num_points=prompt.num_points)

    def _decode(
        self, scene: Scene, prompt: Prompt, *, several: bool
    ) -> tuple[DecoderOutput, Tensor]:
        """The best candidate, and its HQ logits [N, 1, 4g, 4g]."""
        out = self.model.decode_candidates(
            scene.embedding,
            scene.high_res,
            points=prompt.points,
            mask_logits=prompt.mask_logits,
            candidates="best" if several else "single",
        )
        assert out.hq_logits is not None  # `freeze_all_but_hq` has looked
        return out, out.hq_logits

    def _answer(
        self, scene: Scene, prompt: Prompt, truth: Tensor, numbers: Tensor, *, several: bool
    ) -> Answer:
        out, hq_logits = self._decode(scene, prompt, several=several)
        corrected = out.sam_logits.detach() + hq_logits
        mask = dice = corrected.new_zeros(len(corrected))
        for share, logits in (
            (self.mix.corrected, corrected),
            (1 - self.mix.corrected, hq_logits),
        ):
            points = unsure_points(logits, numbers, self.mix.num_points)
            one_mask, one_dice = point_losses(logits, truth, points)
            mask, dice = mask + share * one_mask, dice + share * one_dice
        nothing = torch.zeros_like(dice)
        overlap = self.judge.overlap(out.sam_logits, truth)[:, 0]
        losses = _of_rows(Losses(mask, dice, nothing, nothing), overlap >= self.mix.min_iou)
        return Answer(losses, corrected.detach(), out.tokens[:, 0], out.object_score)


def _of_rows(losses: Losses, counts: Tensor) -> Losses:
    """The losses of the rows that count, 0 for the others."""
    return Losses(*(torch.where(counts, term, 0.0) for term in losses))


def clicks_inside(truth: Tensor, numbers: Tensor) -> PointPrompt:
    """Positive clicks on objects: [N, S, S] bool and [N, P] in 0..1 to P clicks each."""
    width = truth.shape[-1]
    index = pick_pixels(truth, numbers)
    coords = torch.stack([index % width, index // width], dim=2).float()
    return PointPrompt(coords, torch.ones_like(index, dtype=torch.int32))
