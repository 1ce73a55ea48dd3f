"""Batches from readers: bad samples are replaced and named, good ones augmented like packs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_hq.training.clip_files import Clip
from sam2_hq.training.reader_source import ClipSource, StillSource
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.still_readers import Still
from tests.training import toy_packs


class Discs:
    """Red discs on blue, of many sizes; samples whose number is in `bad` cannot be read."""

    def __init__(self, length: int, bad: frozenset[int] = frozenset()) -> None:
        self.length, self.bad = length, bad

    def __len__(self) -> int:
        return self.length

    def sample_name(self, index: int) -> str:
        return f"disc {index}"

    def __getitem__(self, index: int) -> Still:
        if index in self.bad:
            raise ValueError("it is torn")
        mask = toy_packs.disc(90 + 7 * index, 120, 60, 45, 30)
        return Still("disc", toy_packs.painted(mask), mask[None].astype(np.uint8) * np.uint8(255))

    def num_frames(self, index: int) -> int:
        return 5

    def read(self, index: int, steps) -> Clip:
        stills = [self[index] for _ in steps]
        masks = np.stack([one.masks for one in stills])
        return Clip("disc", np.stack([one.picture for one in stills]), masks)


@pytest.mark.parametrize(
    ("kind", "num_frames"), [(StillSource, 1), (StillSource, 3), (ClipSource, 3)]
)
def test_masks_follow_the_pictures(kind, num_frames):
    source = kind([Discs(3), Discs(2)], side=32, num_frames=num_frames, max_objects=2)
    batch = source.make(range(6))
    assert batch.frames.shape == (6, num_frames, 3, 32, 32)
    assert batch.masks.shape == (6, num_frames, 2, 32, 32)
    red, blue = batch.frames[:, :, 0], batch.frames[:, :, 2]
    mask = batch.masks[:, :, 0] > 0.5
    assert mask.any((2, 3)).all()
    assert (red - blue)[mask].mean() > (red - blue)[~mask].mean()


def test_the_same_seeds_give_the_same_batch_whatever_the_threads():
    drawn = [
        StillSource([Discs(9)], side=16, num_workers=workers).make(range(5)) for workers in (1, 4)
    ]
    torch.testing.assert_close(drawn[0].frames, drawn[1].frames, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [StillSource, ClipSource])
def test_a_clip_depends_on_its_seed_alone(kind):
    source = kind([Discs(9)], side=16, num_frames=2)
    together, first, rest = source.make(range(6)), source.make([0, 1]), source.make(range(2, 6))
    # Sizes of others change the canvas, whose shares are rounded.
    torch.testing.assert_close(
        torch.cat([first.frames, rest.frames]), together.frames, atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("kind", [StillSource, ClipSource])
def test_a_bad_sample_is_replaced_counted_and_named(kind):
    log = SampleLog()
    source = kind([Discs(4, bad=frozenset({1, 2}))], side=16, num_frames=2, log=log)
    assert len(source.make(range(12)).frames) == 12
    assert log.count > 0
    assert set(log.names) == {"disc 1", "disc 2"}
    assert "samples skipped" in log.summary()


def test_a_data_set_of_bad_samples_is_an_error():
    source = StillSource([Discs(2, bad=frozenset({0, 1}))], side=16)
    with pytest.raises(ValueError, match="samples in a row cannot be used"):
        source.make([0])


def test_no_samples_are_an_error():
    with pytest.raises(ValueError, match="readers have no sample"):
        StillSource([], side=16)
