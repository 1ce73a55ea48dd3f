"""The image and the warm-up step: how many answers, for which objects, and what learns."""

from __future__ import annotations

import pytest
import torch

from sam2_hq.training.answers import Judge
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.draws import Draws
from sam2_hq.training.image_step import ImageStep, PromptMix
from sam2_hq.training.losses import LossWeights
from sam2_hq.training.mixtures import ClipsAndStills, WithObjects
from sam2_hq.training.warmup_step import WarmupStep, shapes
from tests.training.scenes import Discs, toy_model

JUDGE = Judge(LossWeights())


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def batch(size: int = 3, **options) -> TrainingBatch:
    return Discs(**options).sample(size, draws(1))


@pytest.mark.parametrize("mix", [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_each_kind_of_prompt_answers_every_object_once_without_corrections(mix) -> None:
    click, box = mix
    step = ImageStep(
        toy_model(), mix=PromptMix(click=click, box=box, max_corrections=0), judge=JUDGE
    )
    output = step(batch(), draws())
    assert sorted(output.rows.tolist()) == list(range(6))
    assert len(output.losses.mask) == 6
    assert torch.isfinite(output.losses.total(LossWeights())).all()


@pytest.mark.parametrize("mix", [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_a_second_look_is_one_more_answer_to_the_same_prompt(mix) -> None:
    click, box = mix
    model = toy_model()
    outputs = [
        ImageStep(
            model,
            mix=PromptMix(click=click, box=box, max_corrections=0, second_look=share),
            judge=JUDGE,
        )(batch(), draws())
        for share in (0.0, 1.0)
    ]
    once, twice = (output.losses.mask for output in outputs)
    assert (len(once), len(twice)) == (6, 12)
    torch.testing.assert_close(twice[:6], once)
    assert (twice[6:] != once).all()
    assert (outputs[1].last_logits != outputs[0].last_logits).any()


def test_corrections_are_looked_at_again_too() -> None:
    step = ImageStep(toy_model(), mix=PromptMix(click=1.0, box=0.0, second_look=1.0), judge=JUDGE)
    rounds = {len(step(batch(), draws(seed)).losses.mask) // 6 for seed in range(12)}
    assert rounds == {2, 4, 6, 8}  # 0 to 3 corrections, all answers twice


def test_hidden_objects_are_not_asked_for() -> None:
    whole = batch()
    masks = whole.masks.clone()
    masks[1, :, 0] = 0
    step = ImageStep(toy_model(), mix=PromptMix(max_corrections=0), judge=JUDGE)
    output = step(TrainingBatch(whole.frames, masks), draws())
    assert sorted(output.rows.tolist()) == [0, 1, 3, 4, 5]


def test_everything_but_the_memory_and_the_hq_parts_learns_from_stills() -> None:
    step = ImageStep(toy_model(), mix=PromptMix(), judge=JUDGE)
    for seed in range(4):
        step(batch(), draws(seed)).losses.total(LossWeights()).mean().backward()
    still = {name.split(".")[0] for name, p in step.model.named_parameters() if p.grad is None}
    assert "image_encoder" not in still
    assert "sam_prompt_encoder" not in still
    assert {"memory_attention", "memory_encoder"} <= still


def test_the_warm_up_leaves_the_image_encoder_alone() -> None:
    step = WarmupStep(toy_model(), judge=JUDGE)
    losses = step(batch(2), draws()).losses
    assert len(losses.mask) == 8
    losses.total(LossWeights()).mean().backward()
    grads = {name for name, p in step.model.named_parameters() if p.grad is not None}
    assert not any(name.startswith("image_encoder.") for name in grads)
    assert "sam_mask_decoder.transformer.layers.0.cross_attn_image_to_token.q_proj.weight" in grads


def test_shapes_are_round_where_asked_and_centred_in_the_picture() -> None:
    numbers = torch.tensor([[0.5, 0.25, 0.0, 1.0]])
    disc = shapes(numbers, 128, round_only=True)[0].nonzero()
    height, width = (disc.amax(0) - disc.amin(0) + 1).tolist()
    assert height == width
    assert disc.float().mean(0).tolist() == pytest.approx([31.5, 63.5])
    ellipse = shapes(numbers, 128, round_only=False)[0].nonzero()
    height, width = (ellipse.amax(0) - ellipse.amin(0) + 1).tolist()
    assert height > 3 * width


class Numbered:
    """Clips that show their seed; only every third one has an object."""

    def make(self, seeds):
        values = torch.tensor(list(seeds))
        frames = (values % 1009).float()[:, None, None, None, None]
        return TrainingBatch(frames, (values % 3 == 0).float()[:, None, None, None, None])


def test_a_clip_without_objects_is_made_again_from_the_next_seed() -> None:
    seeds = draws().seeds(8)
    filled = WithObjects(Numbered()).sample(8, draws())
    assert (filled.masks > 0.5).all()
    wanted = [(seed + -seed % 3) % 1009 for seed in seeds]
    assert filled.frames.flatten().tolist() == wanted


def test_several_processes_make_the_clips_that_one_makes() -> None:
    source = WithObjects(Numbered())
    whole = source.sample(8, draws())
    shares = [source.sample(4, Draws(draws().generator, rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat([one.frames for one in shares]), whole.frames)


def test_a_source_without_any_object_is_an_error() -> None:
    class Empty:
        def make(self, seeds):
            return TrainingBatch(*(torch.zeros(len(seeds), 1, 1, 1, 1) for _ in range(2)))

    with pytest.raises(ValueError, match="must show an object"):
        WithObjects(Empty()).sample(2, draws())


def test_stills_come_as_often_as_asked() -> None:
    mixed = ClipsAndStills(Discs(side=16, num_frames=3), Discs(side=16), still_share=0.25)
    numbers = draws()
    shapes_seen = [mixed.sample(2, numbers).frames.shape[:2] for _ in range(200)]
    assert set(shapes_seen) == {(2, 3), (4, 1)}
    assert 30 < shapes_seen.count((4, 1)) < 70


def test_rows_of_several_processes_are_those_of_one() -> None:
    def make(rank: int, size: int) -> Draws:
        return Draws(torch.Generator().manual_seed(5), rank, size)

    whole = make(0, 1).uniform(6, 2)
    halves = [make(rank, 2).uniform(3, 2) for rank in range(2)]
    assert torch.equal(torch.cat(halves), whole)
