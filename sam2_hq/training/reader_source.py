"""Batches from folders of pictures or videos: decoded when drawn, augmented like the packs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.clip_files import Clip
from sam2_hq.training.colour import ColourOptions
from sam2_hq.training.gallery import Gallery, Target, hang
from sam2_hq.training.pack_source import PackSource
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.scripts import SceneOptions, choose_frames
from sam2_hq.training.still_readers import HALF, Still

MAX_TRIES = 20
"""Samples drawn in place of one bad one before the data set is called unusable."""

LOAD_ZOOM = 2.0
"""Pictures are kept at most so many times as long as the side of the output: room to crop."""


class StillReader(Protocol):
    """A data set of pictures with masks."""

    def __len__(self) -> int: ...

    def sample_name(self, index: int) -> str:
        """What messages call a sample."""
        ...

    def __getitem__(self, index: int) -> Still:
        """Decode; ValueError for a bad sample."""
        ...


class ClipReader(Protocol):
    """A data set of videos with masks."""

    def __len__(self) -> int: ...

    def sample_name(self, index: int) -> str:
        """What messages call a video."""
        ...

    def num_frames(self, index: int) -> int:
        """Annotated frames; ValueError for a bad video."""
        ...

    def read(self, index: int, steps: Sequence[int]) -> Clip:
        """Decode; ValueError for a bad video."""
        ...


Reader = TypeVar("Reader", StillReader, ClipReader)
Sample = TypeVar("Sample", Still, Clip)


class ReaderSource(ABC, Generic[Reader, Sample]):
    """Makes clips from several data sets in proportion to their sizes; bad samples are replaced."""

    def __init__(
        self,
        readers: Sequence[Reader],
        *,
        side: int,
        num_frames: int = 1,
        max_objects: int = 3,
        options: SceneOptions | None = None,
        colours: ColourOptions | None = None,
        log: SampleLog | None = None,
        num_workers: int = 4,
        device: torch.device | str = "cpu",
    ) -> None:
        """Take the readers.

        Args:
            readers: data sets.
            side: S.
            num_frames: T.
            max_objects: O.
            options: the augmentation; what kinds of clips it mixes is not used, and nothing is
                pasted in front.
            colours: strength of colour changes.
            log: where bad samples are counted.
            num_workers: decoding threads.
            device: where batches are made.

        Raises:
            ValueError: if there are no samples.
        """
        self.readers: Sequence[Reader] = readers
        self.side, self.num_frames, self.max_objects = side, num_frames, max_objects
        self.options = options or SceneOptions()
        self.colours = colours
        self.log = SampleLog() if log is None else log
        self.num_workers = num_workers
        self.device = torch.device(device)
        self.lengths = np.array([len(reader) for reader in readers], dtype=np.int64)
        if not self.lengths.sum():
            raise ValueError("readers have no sample")

    def make(self, seeds: Sequence[int]) -> TrainingBatch:
        """Read and play one sample for each seed.

        Raises:
            ValueError: if `MAX_TRIES` samples in a row are bad.
        """
        rngs = [np.random.default_rng(seed) for seed in seeds]
        with ThreadPoolExecutor(self.num_workers) as pool:
            samples = list(pool.map(self._draw, rngs))
        return self._play(samples, rngs)

    def _draw(self, rng: np.random.Generator) -> Sample:
        """Draw until a sample can be read."""
        for _ in range(MAX_TRIES):
            number = int(rng.integers(self.lengths.sum()))
            which = int(np.searchsorted(self.lengths.cumsum(), number, side="right"))
            index = number - int(self.lengths[:which].sum())
            try:
                return self._read(self.readers[which], index, rng)
            except (ValueError, OSError) as error:
                self.log.skip(self.readers[which].sample_name(index), error)
        raise ValueError(f"{MAX_TRIES} samples in a row cannot be used: {self.log.summary()}")

    @abstractmethod
    def _read(self, reader: Reader, index: int, rng: np.random.Generator) -> Sample:
        """Decode one sample; ValueError or OSError if it is bad."""

    @abstractmethod
    def _play(
        self, samples: Sequence[Sample], rngs: Sequence[np.random.Generator]
    ) -> TrainingBatch:
        """Make a batch of decoded samples."""


class StillSource(ReaderSource[StillReader, Still]):
    """Stills, or with several frames clips that a camera makes of stills."""

    def _read(self, reader: StillReader, index: int, rng: np.random.Generator) -> Still:
        name, picture, masks = reader[index]
        longest = round(LOAD_ZOOM * self.side)
        shown = [small for one in masks if (small := _shrink(one, longest)).max() > HALF]
        if not shown:
            raise ValueError("no object has a pixel at this size")
        return Still(name, _shrink(picture, longest), np.stack(shown))

    def _play(self, samples: Sequence[Still], rngs: Sequence[np.random.Generator]) -> TrainingBatch:
        gallery = _gallery([one.picture for one in samples], [one.masks for one in samples])
        source = PackSource(
            side=self.side,
            photos=gallery.to(self.device),
            num_frames=self.num_frames,
            max_objects=self.max_objects,
            options=replace(self.options, photos=1.0, composites=0.0, clips=0.0),
            colours=self.colours,
        )
        write = source.writer.write_photo
        scripts = [write(row, self.num_frames, rng) for row, rng in enumerate(rngs)]
        return source.play(scripts, rngs)


class ClipSource(ReaderSource[ClipReader, Clip]):
    """Real clips: annotated frames in a row, or with gaps of up to two, forward or backward."""

    def _read(self, reader: ClipReader, index: int, rng: np.random.Generator) -> Clip:
        count = reader.num_frames(index)
        if not count:
            raise ValueError("it has no annotated frame")
        clip = reader.read(index, choose_frames(range(count), self.num_frames, rng))
        longest = round(LOAD_ZOOM * self.side)
        frames = np.stack([_shrink(one, longest) for one in clip.frames])
        masks = np.stack([[_shrink(one, longest) for one in own] for own in clip.masks])
        return Clip(clip.name, frames, masks)

    def _play(self, samples: Sequence[Clip], rngs: Sequence[np.random.Generator]) -> TrainingBatch:
        pictures = [frame for clip in samples for frame in clip.frames]
        starts = range(0, len(pictures), self.num_frames)
        gallery = _gallery(
            pictures,
            [masks for clip in samples for masks in clip.masks],
            clips=[list(range(start, start + self.num_frames)) for start in starts],
        )
        source = PackSource(
            side=self.side,
            clips=gallery.to(self.device),
            num_frames=self.num_frames,
            max_objects=self.max_objects,
            options=replace(self.options, photos=0.0, composites=0.0, clips=1.0, photo_actors=0.0),
            colours=self.colours,
        )
        write = source.writer.write_film
        scripts = [write(row, self.num_frames, rng) for row, rng in enumerate(rngs)]
        return source.play(scripts, rngs)


def _shrink(pixels: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Average down until the longer side is at most `longest`."""
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _gallery(
    pictures: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.uint8]],
    *,
    clips: list[list[int]] | None = None,
) -> Gallery:
    most = max(len(own) for own in masks)
    padded = [np.pad(own, ((0, most - len(own)), (0, 0), (0, 0))) for own in masks]
    return Gallery(
        pixels=hang(pictures),
        alphas=hang([own.transpose(1, 2, 0) for own in padded]),
        sizes=np.array([one.shape[:2] for one in pictures], dtype=np.int64),
        targets=[[_target(i + 1, mask) for i, mask in enumerate(own)] for own in masks],
        entries=[{} for _ in pictures],
        clips=clips or [],
    )


def _target(number: int, mask: NDArray[np.uint8]) -> Target:
    rows, columns = (np.flatnonzero((mask > HALF).any(axis)) for axis in (1, 0))
    if not len(rows):
        return Target(frozenset({number}), (0, 0, 0, 0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Target(frozenset({number}), box)
