"""A picture of what a step was asked, what was true, and what the model answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch.nn.functional as F
from PIL import Image

from sam2_hq.data.atomic import whole_file
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.image_step import StepOutput

MAX_OBJECTS = 8
TRUTH, ANSWER = (40, 200, 80), (230, 60, 60)


def draw_sheet(path: Path, batch: TrainingBatch, output: StepOutput) -> bool:
    """Write a PNG of last frames: one column an object; picture, truth in green, answer in red.

    Returns:
        Whether there was an object to show: the warm-up has none.
    """
    columns = []
    for row, logits in list(zip(output.rows.tolist(), output.last_logits, strict=True))[
        :MAX_OBJECTS
    ]:
        clip, slot = divmod(row, batch.masks.shape[2])
        frame = (batch.frames[clip, -1].permute(1, 2, 0) * 255).byte().cpu().numpy()
        truth = batch.masks[clip, -1, slot].cpu().numpy()
        side = frame.shape[:2]
        answer = F.interpolate(logits[None].float(), side, mode="bilinear")[0, 0].sigmoid()
        tinted = [_tint(frame, truth, TRUTH), _tint(frame, answer.cpu().numpy(), ANSWER)]
        columns.append(np.concatenate([frame, *tinted], axis=0))
    if not columns:
        return False
    with whole_file(path) as partial:
        Image.fromarray(np.concatenate(columns, axis=1)).save(partial, format="PNG")
    return True


def _tint(frame: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    share = 0.6 * mask[..., None]
    return (frame * (1 - share) + np.array(color) * share).astype(np.uint8)
