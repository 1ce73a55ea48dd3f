"""The forward pass of the scores stage: a frozen model learns how good its own masks are.

Of three candidates after a click, the one with the best predicted IoU is shown. While masks still
change, the head that predicts it runs after them, and on crops and pasted things it learns other
odds than whole photos have. Once nothing else moves, a few minutes set it right.
"""

from __future__ import annotations

from sam2_hq.config import MemoryPolicy
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.training.answers import Judge
from sam2_hq.training.optimizer import teach_only
from sam2_hq.training.video_step import VideoMix, VideoStep


class ScoresStep(VideoStep):
    """Losses of stills and clips of a model of which only the IoU head learns."""

    def __init__(
        self, model: SAM2Base, *, mix: VideoMix, judge: Judge, policy: MemoryPolicy
    ) -> None:
        teach_only(model, lambda name: "iou_prediction_head" in name)
        super().__init__(model.eval(), mix=mix, judge=judge, policy=policy)
