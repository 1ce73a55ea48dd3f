"""Batches whose colours tell the truth: red and green are objects, blue is nobody's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2_hq.training.colour import ColourOptions, change_colours
from sam2_hq.training.pack_source import MIN_PIXELS, PackSource
from sam2_hq.training.packs import read_backgrounds, read_clips, read_cutouts, read_photos
from sam2_hq.training.scripts import SceneOptions, choose_frames
from tests.training import toy_packs

PLAIN = ColourOptions(0, 0, 0, 0, 0, 0, 0, 0, 0)
PHOTOS = SceneOptions(photos=1, composites=0, visitors=0)
COMPOSITES = SceneOptions(photos=0, composites=1, photo_actors=0, ground_objects=0)
CLIPS = SceneOptions(photos=0, composites=0, clips=1, visitors=0)


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs")
    return {
        "photos": read_photos(toy_packs.photos(folder / "photos.zip")),
        "cutouts": read_cutouts(toy_packs.cutouts(folder / "cutouts.zip")),
        "backgrounds": read_backgrounds(toy_packs.backgrounds(folder / "backgrounds.zip")),
        "clips": read_clips(toy_packs.clips(folder / "clips.zip")),
    }


def rngs(count):
    return [np.random.default_rng(seed) for seed in range(count)]


def draw(packs, options, *, seed=0, batch_size=8, **arguments):
    source = PackSource(side=32, options=options, **packs, **arguments)
    return source.make(range(1000 * seed, 1000 * seed + batch_size))


@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_batch_has_the_promised_form(packs, num_frames):
    mix = SceneOptions(photos=1, composites=1, clips=1)
    batch = draw(packs, mix, num_frames=num_frames, max_objects=2)
    assert batch.frames.shape == (8, num_frames, 3, 32, 32)
    assert batch.masks.shape == (8, num_frames, 2, 32, 32)
    for tensor in (batch.frames, batch.masks):
        assert tensor.dtype == torch.float32
        assert tensor.min() >= 0
        assert tensor.max() <= 1


@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_clip_depends_on_its_seed_alone(packs, num_frames):
    options = SceneOptions(clips=0.5 * (num_frames > 1))
    noisy = ColourOptions(blur_chance=0.5, noise_chance=0.5)
    source = PackSource(side=32, options=options, colours=noisy, num_frames=num_frames, **packs)
    together = source.make(range(12))
    for own in (slice(0, 5), slice(5, 6), slice(6, 12)):
        apart = source.make(range(12)[own])
        torch.testing.assert_close(apart.frames, together.frames[own])
        torch.testing.assert_close(apart.masks, together.masks[own])


def test_other_seeds_give_other_clips(packs):
    first, other = (draw(packs, SceneOptions(), seed=seed) for seed in (3, 4))
    assert not torch.equal(first.frames, other.frames)


@pytest.mark.parametrize("num_frames", [1, 4])
def test_masks_of_photos_follow_the_picture(packs, num_frames):
    batch = draw(packs, PHOTOS, num_frames=num_frames, colours=PLAIN, max_objects=3, batch_size=16)
    red, green, _ = batch.frames.unbind(2)
    objects = (red > 0.5) | (green > 0.5)
    found = batch.masks.amax(2) > 0.5
    asked = found.any((1, 2, 3))
    assert asked.float().mean() > 0.9
    # Edges of colours and of masks are cut at half a pixel's difference, and what is smaller than
    # MIN_PIXELS is not asked for.
    assert (objects != found)[asked].float().mean() < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_masks_of_composites_are_the_visible_alpha(packs, seed):
    chosen = {name: packs[name] for name in ("cutouts", "backgrounds")}
    batch = draw(chosen, COMPOSITES, colours=PLAIN, max_objects=4, batch_size=16, seed=seed)
    # Red things on blue: what is not blue is a thing, in proportion to its alpha.
    covered = 1 - batch.frames[:, 0, 2]
    truth = batch.masks[:, 0].sum(1)
    assert ((covered - truth).abs().sum((1, 2)) < MIN_PIXELS * 4).all()
    assert (truth <= 1 + 1e-5).all()
    soft = (batch.masks > 0.05) & (batch.masks < 0.95)
    assert soft.any()


def test_masks_of_real_clips_follow_every_frame(packs):
    batch = draw(packs, CLIPS, num_frames=4, colours=PLAIN, batch_size=12)
    asked = batch.masks[:, 0].amax((1, 2, 3)) > 0
    assert asked.any()
    red = batch.frames[asked][:, :, 0] > 0.5
    found = batch.masks[asked][:, :, 0] > 0.5
    assert (red != found).float().mean() < 0.02
    assert (found.sum((2, 3)) == 0).any(), "the disc is gone on the last frame"


def test_an_object_that_is_asked_for_is_there_on_the_first_frame(packs):
    batch = draw(packs, SceneOptions(clips=0.5), num_frames=5, batch_size=24)
    areas = batch.masks.sum((-2, -1))
    asked = areas.amax(1) > 0
    assert (areas[:, 0][asked] >= MIN_PIXELS).all()
    assert (asked.int().diff(dim=1) <= 0).all(), "used slots come first"


def test_objects_move_leave_and_return(packs):
    options = replace(COMPOSITES, still=0.0, max_actors=1, ground_objects=0.0)  # none hides it
    batch = draw(packs, options, num_frames=8, batch_size=64, max_objects=1)
    there = batch.masks.sum((-2, -1)) > 0
    seen = there.transpose(1, 2).flatten(0, 1)
    seen = seen[seen[:, 0]]
    returned = (~seen[:, 1:-1]).any(1) & seen[:, -1]
    assert returned.any()
    moved = (batch.masks[:, 0] - batch.masks[:, -1]).abs().sum((-2, -1))
    assert (moved[there[:, 0]] > 1).float().mean() > 0.9


def test_actors_sink_behind_the_ground_and_come_back(packs):
    chosen = {name: packs[name] for name in ("cutouts", "backgrounds")}
    options = replace(COMPOSITES, fronts=1.0, max_actors=1)
    form = {"num_frames": 7, "colours": PLAIN, "batch_size": 48, "max_objects": 1}
    batch = draw(chosen, options, **form)
    # Red things on blue: what is not blue is a thing, on every frame.
    covered, truth = 1 - batch.frames[:, :, 2], batch.masks.sum(2)
    asked = truth[:, 0].amax((1, 2)) > 0
    wrong = (covered - truth)[asked].abs().sum((2, 3))
    assert (wrong < MIN_PIXELS * 2).all()

    assert sunk(batch.masks) > 0.15
    assert sunk(draw(chosen, replace(options, fronts=0.0), **form).masks) < 0.03


def sunk(masks):
    """Share of the clips in which less than half is left of an object, none of it at the edges."""
    areas, inner = (one.sum((2, 3, 4)) for one in (masks, masks[..., 1:-1, 1:-1]))
    small = (areas < 0.5 * areas[:, :1]) & (inner == areas) & (areas > 0)
    return small.any(1).float().mean()


def test_an_object_of_the_ground_stays_visible_in_front_of_actors(packs):
    chosen = {name: packs[name] for name in ("cutouts", "photos")}
    options = replace(PHOTOS, visitors=1.0, fronts=1.0, photo_actors=0.0)
    source = PackSource(side=32, options=options, num_frames=6, colours=PLAIN, **chosen)
    rng = np.random.default_rng(2)
    scripts = [source.writer.write_photo(number % 4, 6, rng) for number in range(24)]
    for script in scripts:
        script.slots = list(range(len(script.objects)))
    batch = source.play(scripts, rngs(24))
    for script in scripts:
        script.front = None
    without = source.play(scripts, rngs(24))
    assert (batch.masks.sum() > without.masks.sum() + 100).all()
    # Green is only in the photo, so it is seen as often as masks say.
    green = (batch.frames[:, :, 1] > 0.5).sum()
    assert green > (without.frames[:, :, 1] > 0.5).sum()


def test_fronts_of_a_batch_stay_with_their_clips(packs):
    options = SceneOptions(clips=1.0, visitors=0.8, fronts=0.6)
    source = PackSource(side=32, options=options, num_frames=4, **packs)
    together = source.make(range(16))
    scripts = [source.writer.write(4, np.random.default_rng(seed)) for seed in range(16)]
    fronted = {script.ground for script in scripts if script.front}
    assert fronted >= {"photos", "clips"}
    assert any(script.front is None for script in scripts)
    for seed in range(16):
        alone = source.make([seed])
        torch.testing.assert_close(alone.frames[0], together.frames[seed])
        torch.testing.assert_close(alone.masks[0], together.masks[seed])


def test_stills_have_nothing_to_go_behind(packs):
    options = replace(COMPOSITES, fronts=1.0)
    writer = PackSource(side=32, options=options, **packs).writer
    rng = np.random.default_rng(0)
    assert not any(writer.write(num_frames, rng).front for num_frames in (1, 2) * 10)
    assert all(writer.write(3, rng).front for _ in range(10))


def test_actors_can_be_smaller_and_cameras_faster(packs):
    def drawn(options):
        writer = PackSource(side=32, options=options, **packs).writer
        rng = np.random.default_rng(0)
        return [writer.write(6, rng) for _ in range(60)]

    def size(script):
        return 1 / np.sqrt(np.linalg.det(script.actors[0].matrices[0, :2, :2]).__abs__())

    def shift(script):
        way = np.linalg.inv(script.matrices[0]) @ script.matrices[-1]
        return np.hypot(*way[:2, 2])

    usual = replace(COMPOSITES, max_actors=1, still=0.0)
    small = replace(usual, smallest_actor=0.03)
    assert min(map(size, drawn(small))) < 0.06 < 0.1 < min(map(size, drawn(usual)))
    fast = replace(usual, fast_camera=1.0)
    assert np.median([*map(shift, drawn(fast))]) > 1.5 * np.median([*map(shift, drawn(usual))])


@pytest.mark.parametrize("size", [0.0, -0.1, 0.8])
def test_the_smallest_actor_must_be_smaller_than_the_largest(size):
    with pytest.raises(ValueError, match=f"smallest_actor must be above 0 .* 0.75, got {size}"):
        SceneOptions(smallest_actor=size)


@pytest.mark.parametrize("name", ["fronts", "fast_camera"])
def test_chances_of_scenes_lie_between_none_and_all(name):
    with pytest.raises(ValueError, match=f"{name} must be between 0 and 1, got 1.2"):
        SceneOptions(**{name: 1.2})


def test_thin_cutouts_can_be_preferred(packs):
    options = replace(COMPOSITES, thin_power=20.0, max_actors=1)
    writer = PackSource(side=32, options=options, **packs).writer
    rng = np.random.default_rng(0)
    chosen = [writer.write(1, rng).actors[0].part.picture for _ in range(20)]
    assert chosen.count(2) == 20


@pytest.mark.parametrize(
    ("missing", "options", "message"),
    [
        ("photos", PHOTOS, "no pack of photos"),
        ("clips", CLIPS, "no pack of clips"),
        ("cutouts", COMPOSITES, "packs of cutouts and of photos or backgrounds"),
    ],
)
def test_a_mix_needs_its_packs(packs, missing, options, message):
    given = {name: pack for name, pack in packs.items() if name != missing}
    with pytest.raises(ValueError, match=message):
        PackSource(side=32, options=options, **given)


@pytest.mark.parametrize("name", ["side", "num_frames", "max_objects"])
def test_counts_must_be_positive(packs, name):
    arguments = {"side": 32, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
        PackSource(**arguments, **packs)


def test_a_clip_shorter_than_asked_runs_back_and_forth():
    for seed in range(20):
        steps = choose_frames(range(3), 8, np.random.default_rng(seed))
        assert len(steps) == 8
        assert set(np.abs(np.diff(steps))) == {1}
    assert choose_frames([7], 4, np.random.default_rng(0)) == [7] * 4


def test_no_colour_change_changes_nothing():
    frames = torch.rand(2, 3, 3, 8, 8)
    same = change_colours(frames, rngs(2), PLAIN)
    torch.testing.assert_close(same, frames)


def test_gray_has_no_colour():
    frames = torch.rand(2, 3, 3, 8, 8)
    gray = change_colours(frames, rngs(2), replace(PLAIN, gray_chance=1.0))
    torch.testing.assert_close(gray[:, :, 0], gray[:, :, 1])
    torch.testing.assert_close(gray[:, :, 0], gray[:, :, 2])


def test_blur_keeps_the_mean_and_noise_is_small():
    frames = torch.full((2, 2, 3, 16, 16), 0.5)
    blurred = change_colours(frames, rngs(2), replace(PLAIN, blur_chance=1.0))
    torch.testing.assert_close(blurred, frames)
    options = replace(PLAIN, noise_chance=1.0, max_noise=0.05)
    noisy = change_colours(frames, rngs(2), options)
    assert 0 < (noisy - frames).std() < 0.06


@pytest.mark.parametrize(("name", "value"), [("brightness", -0.1), ("blur_chance", 1.5)])
def test_strengths_and_chances_lie_between_none_and_all(name, value):
    with pytest.raises(ValueError, match=f"{name} must be between 0 and 1, got {value}"):
        ColourOptions(**{name: value})


def test_noise_can_be_fainter_than_usual():
    options = replace(PLAIN, noise_chance=1.0, max_noise=0.005)
    frames = torch.full((1, 1, 3, 32, 32), 0.5)
    noisy = change_colours(frames, [np.random.default_rng(0)], options)
    assert 0.004 < (noisy - frames).std() < 0.006
