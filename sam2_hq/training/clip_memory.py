"""What a model remembers of the clips of a batch while it tracks them, as inference does."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sam2_hq.config import MemoryPolicy
from sam2_hq.modeling.sam2_base import MemoryTokens, SAM2Base
from sam2_hq.ops.masks import certain_logits
from sam2_hq.structures import NO_OBJECT_LOGIT, FrameFeatures, MaskPrompt
from sam2_hq.tracking.memory import select_memory
from sam2_hq.training.answers import Scene
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.image_step import visible_rows
from sam2_hq.transforms import normalize


class _Memory(NamedTuple):
    spatial: Tensor  # [N, Cm, g, g]
    pointer: Tensor  # [N, C]


class ClipMemory:
    """The N objects that show on the first frame of each clip, and what is known of them.

    It never decides what an answer is: it gives scenes, and keeps what it is told.

    rows: [N] object slots, an index into B * O.
    truth: [N, T, S, S].
    """

    def __init__(self, model: SAM2Base, batch: TrainingBatch, policy: MemoryPolicy) -> None:
        """Encode all frames; nothing is remembered yet.

        Raises:
            ValueError: if no clip shows an object on its first frame.
        """
        self.model = model
        # The objects of a clip share their passes, so all of them recall the same frames.
        self.policy = replace(policy, min_memory_iou=None)
        self.rows = visible_rows(batch.masks[:, 0])
        self.truth = batch.masks.transpose(1, 2).flatten(0, 1)[self.rows]
        self.features = self._encode(batch)
        self._prompted: list[int] = []  # frames that users have answered for, oldest first
        self._memories: dict[int, _Memory] = {}

    def _encode(self, batch: TrainingBatch) -> list[FrameFeatures]:
        """Features of each frame, one row an object."""
        num_frames, num_slots = batch.masks.shape[1:3]
        every = self.model.encode_image(normalize(batch.frames.flatten(0, 1)))
        features = []
        for frame in range(num_frames):
            index = self.rows // num_slots * num_frames + frame
            high_res = tuple(level[index] for level in every.high_res)
            features.append(FrameFeatures(every.embedding[index], high_res))
        return features

    def scene(self, frame: int) -> Scene:
        """A frame as it is seen without memory."""
        features = self.features[frame]
        return Scene(self.model.condition(features, None), features.high_res)

    def recall(self, frame: int) -> Scene:
        """A frame as it is seen in the light of the others."""
        others = self._memories.keys() - set(self._prompted)
        recall = select_memory(
            frame,
            self._prompted,
            others,
            others,
            num_frames=len(self.features),
            backward=False,
            policy=self.policy,
        )
        slots, offsets = recall.layout
        tokens = MemoryTokens(
            torch.stack([self._memories[f].spatial for f, _ in recall.spatial], dim=1),
            slots,
            torch.stack([self._memories[f].pointer for f, _ in recall.pointers], dim=1),
            offsets,
        )
        features = self.features[frame]
        return Scene(self.model.condition(features, tokens), features.high_res)

    def keep(
        self,
        frame: int,
        logits: Tensor,
        token: Tensor,
        object_score: Tensor,
        *,
        is_prompted: bool = False,
    ) -> None:
        """Remember an answer: [N, 1, 4g, 4g], [N, C] and [N, 1]; a prompted one for good."""
        present = (object_score > 0)[..., None, None]
        logits = torch.where(present, logits.float(), NO_OBJECT_LOGIT)
        pointer = self.model.make_pointer(token, object_score)
        self._store(frame, logits, object_score, pointer, is_prompted)

    def adopt_truth(self, frame: int) -> None:
        """Remember the true masks of a frame, as if users had painted them."""
        mask = (self.truth[:, frame] > 0.5).float()[:, None]
        out = self.model.adopt_mask(self.features[frame], MaskPrompt(mask))
        self._store(frame, certain_logits(mask), out.object_score, out.pointer, is_prompted=True)

    def _store(
        self, frame: int, logits: Tensor, score: Tensor, pointer: Tensor, is_prompted: bool
    ) -> None:
        spatial = self.model.encode_memory(self.features[frame], logits, score)
        self._memories[frame] = _Memory(spatial, pointer)
        if is_prompted:
            self._prompted.append(frame)
