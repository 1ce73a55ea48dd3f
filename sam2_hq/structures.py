"""The types that travel between model, tracker and faces. Nothing here computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

HQMode = Literal["off", "correct", "only", "auto"]
HQ_MODES: tuple[HQMode, ...] = ("off", "correct", "only", "auto")

NO_OBJECT_LOGIT = -1024.0
"""Logit written everywhere into the mask of an absent object."""

PADDING, NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = -1, 0, 1, 2, 3
"""What the points of a prompt are labelled with."""


class FrameFeatures(NamedTuple):
    """What the image encoder knows about a picture.

    embedding: [B, C, S/16, S/16].
    high_res: [B, C/8, S/4, S/4] and [B, C/4, S/8, S/8], already projected for the decoder.
    """

    embedding: Tensor
    high_res: tuple[Tensor, ...]


@dataclass(frozen=True)
class PointPrompt:
    """Clicks and boxes. A box is two points, placed first.

    coords: [B, P, 2] float, x and y in model pixels.
    labels: [B, P] int32; 1 foreground, 0 background, 2 and 3 box corners, -1 padding.
    """

    coords: Tensor
    labels: Tensor


@dataclass(frozen=True)
class MaskPrompt:
    """A painted mask: [B, 1, S, S] float in {0, 1}."""

    mask: Tensor


class MaskOutput(NamedTuple):
    """One decode, after the choice among the mask candidates.

    mask_logits: [B, 1, S/4, S/4].
    iou: [B, 1] predicted IoU of the SAM mask.
    pointer: [B, C] object pointer.
    object_score: [B, 1] logit; the object is present where it is > 0.
    hq_disagreement: [B, 1] one minus the IoU of SAM mask and HQ-corrected mask; 0 without HQ.
    """

    mask_logits: Tensor
    iou: Tensor
    pointer: Tensor
    object_score: Tensor
    hq_disagreement: Tensor


class ObjectScores(NamedTuple):
    """How sure the model is of one object on one frame; all NaN where its mask is not known.

    object_score: presence logit, present where > 0.
    iou: predicted IoU of the mask, 0 to 1.
    hq_disagreement: 0 where the SAM and the HQ mask agree, 1 where they share no pixel.
    """

    object_score: float
    iou: float
    hq_disagreement: float


class _FrameIdsMasks(NamedTuple):
    frame_idx: int
    obj_ids: list[Any]  # any hashable the user chose
    masks: Tensor


class TrackedFrame(_FrameIdsMasks):
    """What tracking yields: unpacks as `frame_idx, obj_ids, masks`, and knows the `scores`.

    masks: [O, 1, height, width] float32 logits in video pixels, objects in the order of `obj_ids`.
    score_table: [O, 3] the numbers of `ObjectScores`, still on the device.
    """

    score_table: Tensor

    def __new__(
        cls, frame_idx: int, obj_ids: list[Any], masks: Tensor, score_table: Tensor
    ) -> Self:
        """Bundle the three published values with the scores."""
        self = super().__new__(cls, frame_idx, obj_ids, masks)
        self.score_table = score_table
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What a copy or a pickle is made from."""
        return (*self, self.score_table)

    def _replace(self, **changes: Any) -> Self:
        """Another frame with some values changed; the score table is one of them."""
        return type(self)(**({**self._asdict(), "score_table": self.score_table} | changes))

    __replace__ = _replace

    @property
    def scores(self) -> dict[Any, ObjectScores]:
        """Scores by object id; reading them waits for the device."""
        rows = self.score_table.tolist()
        return {i: ObjectScores(*row) for i, row in zip(self.obj_ids, rows, strict=True)}
