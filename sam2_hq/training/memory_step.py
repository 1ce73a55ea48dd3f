"""The forward pass of the memory stage: a model that answers pictures well learns to remember.

A video stage that teaches everything moves what the image stage taught, and clicks get worse.
Here what answers pictures is frozen. The presence head learns too: no still teaches that an
object is gone.
"""

from __future__ import annotations

from sam2_hq.config import MemoryPolicy
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.training.answers import Judge
from sam2_hq.training.optimizer import teach_only
from sam2_hq.training.video_step import VideoMix, VideoStep

TAUGHT = (
    "memory_attention.",
    "memory_encoder.",
    "maskmem_tpos_enc",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "sam_mask_decoder.pred_obj_score_head.",
)


class MemoryStep(VideoStep):
    """Losses of clips of a model of which only memory and presence head learn.

    It remembers the masks that the model shows, with HQ where it has that.
    """

    def __init__(
        self, model: SAM2Base, *, mix: VideoMix, judge: Judge, policy: MemoryPolicy
    ) -> None:
        teach_only(model, lambda name: name.startswith(TAUGHT))
        super().__init__(model, mix=mix, judge=judge, policy=policy)
        self.hq_mode = model.hq_mode
