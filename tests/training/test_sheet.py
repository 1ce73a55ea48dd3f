"""Pictures of predictions show the frame that was answered."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.image_step import StepOutput
from sam2_hq.training.losses import Losses
from sam2_hq.training.sheet import draw_sheet

SIDE = 32


def test_truth_and_answer_lie_on_the_last_frame(tmp_path) -> None:
    frames = torch.zeros(1, 2, 3, SIDE, SIDE)
    frames[:, 1] = 1
    masks = torch.zeros(1, 2, 1, SIDE, SIDE)
    masks[:, 0, :, : SIDE // 2], masks[:, 1, :, SIDE // 2 :] = 1, 1
    logits = torch.where(masks[:, 1] > 0, 20.0, -20.0)
    nothing = torch.zeros(1)
    output = StepOutput(Losses(nothing, nothing, nothing, nothing), torch.tensor([0]), logits)
    assert draw_sheet(tmp_path / "sheet.png", TrainingBatch(frames, masks), output)
    picture, truth, answer = np.split(np.asarray(Image.open(tmp_path / "sheet.png")), 3)
    assert (picture == 255).all()
    for tinted in (truth, answer):
        assert (tinted[: SIDE // 2 - 1] > 250).all()
        assert (tinted[SIDE // 2 + 1 :].min(axis=-1) < 200).all()


def test_without_an_object_there_is_no_picture(tmp_path) -> None:
    none = torch.zeros(0)
    output = StepOutput(Losses(none, none, none, none), none.long(), torch.zeros(0, 1, 8, 8))
    batch = TrainingBatch(torch.zeros(1, 1, 3, SIDE, SIDE), torch.zeros(1, 1, 1, SIDE, SIDE))
    assert not draw_sheet(tmp_path / "sheet.png", batch, output)
    assert not list(tmp_path.iterdir())
