"""The video step tracks as inference does and learns through its memories."""

from __future__ import annotations

import pytest
import torch

from sam2_hq.training.answers import Judge, Prompt, ask
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.draws import Draws
from sam2_hq.training.losses import LossWeights
from sam2_hq.training.memory_step import MemoryStep
from sam2_hq.training.video_step import VideoMix, VideoStep
from tests.training.scenes import Discs, toy_model


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def step(mix: VideoMix | None = None) -> VideoStep:
    model = toy_model()
    return VideoStep(
        model, mix=mix or VideoMix(), judge=Judge(LossWeights()), policy=model.memory_policy
    )


@pytest.mark.parametrize(
    "mix",
    [
        VideoMix(points=0.0),
        VideoMix(points=1.0, box=1.0, corrected_frames=2),
        VideoMix(points=1.0, box=0.0, corrected_frames=2, second=1.0),
        VideoMix(points=0.0, second=1.0),
    ],
)
def test_every_way_of_prompting_gives_finite_losses_and_gradients_for_the_memory(mix) -> None:
    video = step(mix)
    batch = Discs(num_frames=4).sample(2, draws(1))
    output = video(batch, draws())
    loss = output.losses.total(LossWeights()).mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert output.last_logits.shape == (4, 1, 32, 32)
    for name in ("memory_encoder.out_proj.weight", "obj_ptr_proj.layers.0.weight"):
        gradient = video.model.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().sum() > 0, name


def test_the_memory_stage_remembers_the_masks_that_people_see() -> None:
    batch = Discs(num_frames=3).sample(2, draws(1))
    mix, judge = VideoMix(points=0.0), Judge(LossWeights())
    kept = {}
    for mode in ("correct", "off"):
        model = toy_model().eval()  # without dropout
        model.hq_mode = mode
        memory = MemoryStep(model, mix=mix, judge=judge, policy=model.memory_policy)
        kept[mode] = memory(batch, draws())
    # Frame 1 is answered alike; what frame 2 recalls of it is not.
    half = len(kept["off"].losses.mask) // 2
    first, second = (
        torch.isclose(kept["off"].losses.mask[rows], kept["correct"].losses.mask[rows])
        for rows in (slice(half), slice(half, None))
    )
    assert first.all()
    assert not second.all()


def test_without_prompts_by_points_there_is_one_answer_a_tracked_frame_and_object() -> None:
    output = step(VideoMix(points=0.0, second=0.0))(
        Discs(num_frames=5).sample(2, draws(1)), draws()
    )
    assert len(output.losses.mask) == 4 * 4


def test_an_object_that_leaves_pays_for_its_presence_alone() -> None:
    batch = Discs(num_frames=3, num_objects=1).sample(2, draws(1))
    gone = batch.masks.clone()
    gone[:, 1:] = 0
    output = step(VideoMix(points=0.0, second=0.0))(TrainingBatch(batch.frames, gone), draws())
    assert output.losses.mask.abs().sum() == 0
    assert (output.losses.presence > 0).all()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """The prompts of a step, as they are asked."""
    heard: list[Prompt] = []

    def listen(model, scene, prompt, truth, **options):
        heard.append(prompt)
        return ask(model, scene, prompt, truth, **options)

    monkeypatch.setattr("sam2_hq.training.video_step.ask", listen)
    return heard


def test_an_object_out_of_sight_is_asked_for_by_a_negative_click(asked: list[Prompt]) -> None:
    batch = Discs(num_frames=3, num_objects=1).sample(2, draws(1))
    masks = batch.masks.clone()
    masks[:, 1:] = 0
    mix = VideoMix(points=1.0, box=0.0, second=1.0, corrected_frames=0)
    step(mix)(TrainingBatch(batch.frames, masks), draws())
    first, second, *_ = (prompt.points for prompt in asked)
    assert [one.labels.tolist() for one in (first, second) if one] == [[[1], [1]], [[0], [0]]]


def test_objects_in_sight_keep_their_boxes_beside_one_that_is_not(asked: list[Prompt]) -> None:
    batch = Discs(num_frames=3, num_objects=2).sample(1, draws(1))
    masks = batch.masks.clone()
    masks[:, 1:, 0] = 0
    mix = VideoMix(points=1.0, box=1.0, second=1.0, corrected_frames=0)
    step(mix)(TrainingBatch(batch.frames, masks), draws())
    second = asked[1].points
    assert second is not None
    assert second.labels.tolist() == [[0, -1], [2, 3]]


def test_batches_of_stills_go_through_the_image_step() -> None:
    output = step()(Discs().sample(2, draws(1)), draws())
    assert torch.isfinite(output.losses.total(LossWeights())).all()


def test_a_clip_without_objects_at_its_start_is_refused() -> None:
    batch = Discs(num_frames=2).sample(1, draws(1))
    with pytest.raises(ValueError, match="first frame"):
        step()(TrainingBatch(batch.frames, batch.masks * 0), draws())
