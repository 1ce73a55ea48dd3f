"""The forward pass of the image stage: encode once, then prompt and correct each object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.structures import PointPrompt
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.draws import Draws
from sam2_hq.training.losses import Losses, LossWeights, answer_losses, join_losses
from sam2_hq.training.prompts import (
    box_around,
    coarse_mask_logits,
    correction_click,
    first_click,
    join_points,
)
from sam2_hq.transforms import normalize

PROMPT_LOGIT_LIMIT = 32.0  # as the tracker clamps an earlier mask


@dataclass(frozen=True)
class PromptMix:
    """How objects are first asked for, and how they are corrected.

    click, box: shares of the objects; the rest gets a coarse mask.
    max_corrections: clicks after the first prompt, 0 to this many.
    forget_mask: chance that a correction sees the clicks alone, not the mask before it.
    central: share of clicks in the middle of the region.
    """

    click: float = 0.45
    box: float = 0.35
    max_corrections: int = 3
    forget_mask: float = 0.25
    central: float = 0.5


class Prompted(NamedTuple):
    """Objects asked for in one way: their rows, and the prompt."""

    rows: Tensor
    points: PointPrompt | None
    mask_logits: Tensor | None


class Targets(NamedTuple):
    """The truth of N objects: full [N, S, S], and pooled to the grid of the losses [N, h, w]."""

    full: Tensor
    pooled: Tensor


class StepOutput(NamedTuple):
    """Losses of all answers, and the last masks for people to look at.

    last_logits: [N, 1, 4g, 4g] of the objects in `rows` ([N], index into B * O).
    """

    losses: Losses
    rows: Tensor
    last_logits: Tensor


class ImageStep(nn.Module):
    """Losses of a batch of stills. Owns the model, so that gradients can be averaged around it."""

    def __init__(
        self, model: SAM2Base, *, mix: PromptMix, weights: LossWeights, loss_stride: int = 4
    ) -> None:
        super().__init__()
        self.model = model
        self.mix = mix
        self.weights = weights
        self.loss_stride = loss_stride

    def forward(self, batch: TrainingBatch, draws: Draws) -> StepOutput:
        """Answer prompts on the first frame of each clip."""
        masks = batch.masks[:, 0]  # [B, O, S, S]
        features = self.model.encode_image(normalize(batch.frames[:, 0]))
        embedding = self.model.condition(features, None)
        numbers = self._numbers(masks, draws)
        # One entry a correction: whether the mask before it is forgotten.
        forgets = [
            draws.chance(self.mix.forget_mask)
            for _ in range(draws.integer(0, self.mix.max_corrections))
        ]
        rows = (masks > 0.5).flatten(2).any(dim=2).flatten().nonzero()[:, 0]
        if not len(rows):
            raise ValueError("no clip of the batch shows an object on its first frame")
        truth = masks.flatten(0, 1)
        parts, last, order = [], [], []
        for group in self._groups(truth, rows, numbers):
            picture = group.rows // masks.shape[1]
            losses, logits = self._rounds(
                group,
                embedding[picture],
                tuple(level[picture] for level in features.high_res),
                targets=self._targets(truth[group.rows]),
                numbers=numbers.corrections[group.rows],
                forgets=forgets,
            )
            parts.append(losses)
            last.append(logits)
            order.append(group.rows)
        return StepOutput(join_losses(parts), torch.cat(order), torch.cat(last))

    def _numbers(self, masks: Tensor, draws: Draws) -> _Numbers:
        rows = masks.shape[0] * masks.shape[1]
        side = self.model.sam_prompt_encoder.mask_input_size
        return _Numbers(
            kind=draws.uniform(rows),
            first=draws.uniform(rows, 4),
            corrections=draws.uniform(rows, self.mix.max_corrections, 4),
            noise=draws.normal(rows, *side),
        )

    def _targets(self, truth: Tensor) -> Targets:
        return Targets(truth, F.avg_pool2d(truth[:, None], self.loss_stride)[:, 0])

    def _groups(self, truth: Tensor, rows: Tensor, numbers: _Numbers) -> Iterator[Prompted]:
        kind = numbers.kind[rows.cpu()].to(rows.device)
        click = rows[kind < self.mix.click]
        box = rows[(kind >= self.mix.click) & (kind < self.mix.click + self.mix.box)]
        mask = rows[kind >= self.mix.click + self.mix.box]
        if len(click):
            pooled = self._targets(truth[click]).pooled > 0.5
            first = numbers.first[click.cpu()]
            points = first_click(pooled, first, stride=self.loss_stride, central=self.mix.central)
            yield Prompted(click, _on_object(points, truth[click]), None)
        if len(box):
            yield Prompted(box, box_around(truth[box] > 0.5, numbers.first[box.cpu()]), None)
        if len(mask):
            stride = truth.shape[-1] // self.model.sam_prompt_encoder.mask_input_size[0]
            small = F.avg_pool2d(truth[mask][:, None], stride)[:, 0]
            yield Prompted(mask, None, coarse_mask_logits(small, numbers.noise[mask.cpu()]))

    def _rounds(
        self,
        group: Prompted,
        embedding: Tensor,
        high_res: tuple[Tensor, ...],
        *,
        targets: Targets,
        numbers: Tensor,
        forgets: Sequence[bool],
    ) -> tuple[Losses, Tensor]:
        points, mask_logits = group.points, group.mask_logits
        present = torch.ones(len(group.rows), dtype=torch.bool, device=embedding.device)
        parts = []
        for k in range(len(forgets) + 1):
            count = 0 if points is None else points.labels.shape[1]
            several = self.model.use_multimask(is_initial=True, num_points=count)
            out = self.model.decode_candidates(
                embedding,
                high_res,
                points=points,
                mask_logits=mask_logits,
                candidates="all" if several else "single",
            )
            logits = at_stride(out.sam_logits, targets.pooled)
            parts.append(
                answer_losses(
                    logits,
                    out.iou,
                    out.object_score,
                    targets.pooled,
                    is_present=present,
                    weights=self.weights,
                )
            )
            best = out.iou.detach().argmax(dim=1)
            index = torch.arange(len(best), device=best.device)
            last = out.sam_logits.detach()[index, best][:, None]
            if k < len(forgets):
                wrong = logits.detach()[index, best] > 0
                click = correction_click(
                    targets.pooled > 0.5,
                    wrong,
                    numbers[:, k],
                    stride=self.loss_stride,
                    central=self.mix.central,
                )
                points = join_points(points, click)
                known = last.clamp(-PROMPT_LOGIT_LIMIT, PROMPT_LOGIT_LIMIT)
                mask_logits = None if forgets[k] else known
        return join_losses(parts), last


class _Numbers(NamedTuple):
    """What chance decides for each object slot of the batch."""

    kind: Tensor  # [N]
    first: Tensor  # [N, 4]
    corrections: Tensor  # [N, rounds, 4]
    noise: Tensor  # [N, 4g, 4g]


def at_stride(logits: Tensor, target: Tensor) -> Tensor:
    """Mask logits [N, M, h, w] on the grid of a target [N, H, W]."""
    if logits.shape[-2:] == target.shape[-2:]:
        return logits
    return F.interpolate(logits.float(), target.shape[-2:], mode="bilinear", align_corners=False)


def _on_object(points: PointPrompt, truth: Tensor) -> PointPrompt:
    """A first click is a positive one, also on an object thinner than a cell of the loss grid."""
    is_missed = points.labels[:, 0] == 0
    if not is_missed.any():
        return points
    index = (truth[is_missed] > 0.5).flatten(1).float().argmax(dim=1)
    coords, labels = points.coords.clone(), points.labels.clone()
    side = truth.shape[-1]
    coords[is_missed, 0] = torch.stack([index % side, index // side], dim=1).to(coords)
    labels[is_missed] = 1
    return PointPrompt(coords, labels)
