"""The HQ stage trains 13 tensors on points where masks are unsure."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sam2_hq.checkpoint import HQ_TENSORS
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import FrameFeatures
from sam2_hq.training.answers import Judge
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.draws import Draws
from sam2_hq.training.feature_cache import FeatureCache, encoder_key
from sam2_hq.training.hq_step import HQMix, HQStep, freeze_all_but_hq
from sam2_hq.training.losses import LossWeights
from sam2_hq.training.point_losses import num_numbers, point_losses, sample_at, unsure_points
from sam2_hq.training.prompts import coarse_view
from tests.toy import SIDE
from tests.training.scenes import Discs, toy_model

MIX = HQMix(num_points=128)


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def hq_step(cache: FeatureCache | None = None) -> HQStep:
    model = toy_model()
    judge = Judge(LossWeights())
    return HQStep(model, mix=MIX, judge=judge, policy=model.memory_policy, cache=cache)


@pytest.mark.parametrize("num_frames", [1, 3])
def test_exactly_the_hq_tensors_get_a_gradient(num_frames) -> None:
    step = hq_step()
    batch = Discs(num_frames=num_frames).sample(3, draws(1))
    step(batch, draws()).losses.total(LossWeights()).mean().backward()
    moved = {name for name, p in step.model.named_parameters() if p.grad is not None}
    assert moved == set(HQ_TENSORS)


def test_corrections_see_the_mask_that_people_would_correct(monkeypatch) -> None:
    step = hq_step()
    decode = step.model.decode_candidates
    asked: list[tuple[int, bool]] = []
    shown = torch.empty(0)

    def watched(*args, points=None, mask_logits=None, **kwargs):
        nonlocal shown
        asked.append((0 if points is None else points.labels.shape[1], mask_logits is not None))
        if points is not None and mask_logits is not None:
            assert torch.equal(mask_logits, shown)
        out = decode(*args, points=points, mask_logits=mask_logits, **kwargs)
        shown = (out.sam_logits + out.hq_logits).detach().clamp(-32, 32)
        return out

    monkeypatch.setattr(step.model, "decode_candidates", watched)
    for seed in range(6):
        step(Discs().sample(4, draws(seed)), draws(seed))
    assert {(1, False), (2, True), (3, True)} <= set(asked)  # a click, two corrections
    assert {(10, False), (0, True)} <= set(asked)  # many clicks, a coarse mask


def test_a_second_look_sees_the_mask_of_the_first_and_the_same_clicks(monkeypatch) -> None:
    step = hq_step()
    step.mix = replace(MIX, second_look=1.0, max_corrections=0)
    decode = step.model.decode_candidates
    asked, shown = [], []

    def watched(*args, points=None, mask_logits=None, candidates, **kwargs):
        out = decode(*args, points=points, mask_logits=mask_logits, candidates=candidates, **kwargs)
        asked.append((points, mask_logits, candidates))
        shown.append((out.sam_logits + out.hq_logits).detach())
        return out

    monkeypatch.setattr(step.model, "decode_candidates", watched)
    for seed in range(4):
        output = step(Discs().sample(4, draws(seed)), draws(seed))
        assert len(output.losses.mask) == len(output.rows)  # the second answers alone teach
    for first, mask, second in zip(asked[::2], shown[::2], asked[1::2], strict=True):
        assert first[0] is second[0]  # the same clicks
        assert any(torch.equal(second[1], coarse_view(mask, factor)) for factor in (1, 2, 3, 4))
        assert second[2] == "single"
    assert {first[2] for first in asked[::2]} == {"best", "single"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_corrections_leave_the_gradients_of_all_hq_tensors(monkeypatch, dtype) -> None:
    monkeypatch.setattr(HQMix, "kinds", ("click",))
    step = hq_step()
    for seed in range(4):
        step.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = step(Discs().sample(2, draws(seed)), draws(seed))
        output.losses.total(LossWeights()).mean().backward()
        moved = {name for name, p in step.model.named_parameters() if p.grad is not None}
        assert moved == set(HQ_TENSORS)


@pytest.mark.parametrize(
    ("name", "value"), [("max_corrections", -1), ("central", 1.2), ("corrected", -0.5)]
)
def test_a_mix_that_cannot_be_is_refused(name, value) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .* got {value}"):
        HQMix(**{name: value})


@pytest.mark.parametrize("bfloat16", [False, True])
def test_features_from_the_cache_give_the_losses_of_fresh_ones(bfloat16: bool) -> None:
    step = hq_step(FeatureCache())
    batch = replace(Discs().sample(2, draws(1)), keys=(5, 9))
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        first = step(batch, draws()).losses.total(LossWeights())
        step.model.encode_image = None  # type: ignore[method-assign, assignment]
        again = step(batch, draws()).losses.total(LossWeights())
    assert torch.equal(first, again)


def test_a_clip_gives_one_answer_a_tracked_frame_and_object() -> None:
    output = hq_step()(Discs(num_frames=4).sample(2, draws(1)), draws())
    assert output.losses.mask.shape == (2 * 2 * 3,)
    assert output.last_logits.shape == (4, 1, 32, 32)
    assert (output.losses.mask > 0).all()


def test_an_object_out_of_sight_teaches_no_outline() -> None:
    batch = Discs(num_frames=3, num_objects=1).sample(2, draws(1))
    masks = batch.masks.clone()
    masks[:, 1] = 0
    losses = hq_step()(TrainingBatch(batch.frames, masks), draws()).losses
    assert losses.mask[:2].tolist() == [0, 0]
    assert (losses.mask[2:] > 0).all()


def test_masks_that_miss_the_object_teach_nothing() -> None:
    def losses(min_iou: float, num_frames: int) -> torch.Tensor:
        step = hq_step()
        step.mix = replace(MIX, min_iou=min_iou)
        batch = Discs(num_frames=num_frames).sample(3, draws(1))
        return step(batch, draws()).losses.mask

    for num_frames in (1, 3):
        every, some, none = (losses(least, num_frames) for least in (0.0, 0.05, 1.0))
        assert (every > 0).all()
        assert (none == 0).all()  # an untrained model hits nothing exactly
        assert 0 < (some > 0).sum() < len(some)
        assert torch.equal(some[some > 0], every[some > 0])


def test_a_clip_is_tracked_as_the_predictor_tracks_it() -> None:
    step = hq_step()
    predictor = step.model
    assert isinstance(predictor, SAM2VideoPredictor)
    batch = Discs(num_frames=3, num_objects=1).sample(1, draws(1))
    pictures = (batch.frames * 255).round()
    logits = step(TrainingBatch(pictures / 255, batch.masks), draws()).last_logits
    state = predictor.init_state(pictures[0].permute(0, 2, 3, 1).byte().numpy())
    tracked = {}
    for mode in ("correct", "off"):
        predictor.hq_mode = mode
        predictor.reset_state(state)
        predictor.add_new_mask(state, 0, 1, batch.masks[0, 0, 0] > 0.5)
        *_, (_, _, tracked[mode]) = predictor.propagate_in_video(state)
    expected = F.interpolate(logits, SIDE, mode="bilinear", align_corners=False)
    # A memory of masks that are 0.03 lower would change more than this.
    torch.testing.assert_close(tracked["correct"], expected, atol=1e-4, rtol=0)
    assert (tracked["off"] - expected).abs().max() > 0.01  # the HQ masks matter here


def test_a_plain_model_is_refused() -> None:
    with pytest.raises(ValueError, match="HQ token"):
        freeze_all_but_hq(toy_model(hq=False))


def encode(frames: torch.Tensor) -> FrameFeatures:
    return FrameFeatures(frames[:, :, ::16, ::16], (frames[:, :, ::4, ::4],))


def test_a_cache_encodes_each_picture_once_and_forgets_the_oldest(tmp_path) -> None:
    frames = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    asked: list[int] = []

    def count(some: torch.Tensor) -> FrameFeatures:
        asked.append(len(some))
        return encode(some)

    cache = FeatureCache(max_pictures=2)
    cache.get([0, 1], frames[:2], count)
    cache.get([1, 0, 2], frames[[1, 0, 2]], count)
    cache.get([0], frames[:1], count)
    assert asked == [2, 1, 1]
    on_disk = FeatureCache(max_pictures=1, folder=tmp_path)
    first = on_disk.get(range(3), frames, count)
    again = FeatureCache(folder=tmp_path).get(range(3), frames, count)
    assert asked == [2, 1, 1, 3]
    torch.testing.assert_close(first.embedding, again.embedding)
    torch.testing.assert_close(first.embedding, encode(frames).embedding, atol=1e-3, rtol=0)


def test_rounding_is_no_other_picture_but_changed_data_is() -> None:
    frames = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    cache = FeatureCache()
    before = cache.get([7], frames, encode).embedding
    assert torch.equal(cache.get([7], frames + 1e-5, encode).embedding, before)
    changed = cache.get([7], 1 - frames, encode).embedding
    torch.testing.assert_close(changed, encode(1 - frames).embedding, atol=1e-3, rtol=0)


def test_a_folder_of_features_never_serves_those_of_other_weights(tmp_path) -> None:
    frames = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = toy_model()
        torch.nn.init.normal_(model.image_encoder.neck.convs[0].conv.weight)
        cache = FeatureCache(folder=tmp_path, encoder=encoder_key(model))
        found.append(cache.get([0], frames, model.encode_image).embedding)
    assert not torch.allclose(*found)
    assert len(list(tmp_path.iterdir())) == 2


def test_most_points_lie_where_the_mask_is_unsure() -> None:
    logits = torch.linspace(-10, 10, 32).expand(1, 1, 32, 32)  # unsure in the middle columns
    numbers = torch.rand(1, num_numbers(400), 2, generator=torch.Generator().manual_seed(0))
    points = unsure_points(logits, numbers, 400)
    assert points.shape == (1, 400, 2)
    near = (points[..., 0] - 0.5).abs() < 0.13  # a quarter of the width; 3 candidates a point
    assert near.float().mean() > 0.7


def test_point_losses_are_those_of_whole_maps_when_all_pixels_are_points() -> None:
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    truth = (torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    axis = (torch.arange(8) + 0.5) / 8
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).flatten(0, 1)[None]
    points = points.expand(2, -1, -1)
    torch.testing.assert_close(sample_at(truth[:, None], points), truth.flatten(1))
    cross_entropy, dice = point_losses(logits, truth, points)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[:, 0], truth, reduction="none"
    )
    torch.testing.assert_close(cross_entropy, expected.mean((1, 2)))
    p = logits[:, 0].sigmoid()
    overlap = 2 * (p * truth).sum((1, 2)) + 1
    torch.testing.assert_close(dice, 1 - overlap / (p.sum((1, 2)) + truth.sum((1, 2)) + 1))
