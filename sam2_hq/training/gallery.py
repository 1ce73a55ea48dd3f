"""Pictures of one kind held in memory, in the form that a batch is gathered from at once.

Each lies at the top left of a uint8 canvas, all canvases are of one size, and the real sizes stand
beside it. Where pictures come from is not decided here (`packs.py`, `reader_source.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from torch import Tensor

CANVAS_MULTIPLE = 8
"""Canvas sides are multiples of it, so that they can be halved for minified views."""

Ids = frozenset[int]
IntBox = tuple[int, int, int, int]


class Target(NamedTuple):
    """An object on one picture: its ids, and its box x0, y0, x1, y1 in pixels, ends excluded.

    A box of four zeros says that the object is absent on this picture.
    """

    ids: Ids
    box: IntBox


@dataclass(frozen=True)
class Gallery:
    """Pictures with what is known about each.

    pixels: [N, C, H, W] uint8; RGB, or RGBA for cut-outs.
    labels: [N, H, W] uint8, ids of objects, 0 background; None without.
    alphas: [N, O, H, W] uint8, soft masks that may overlap, of the ids 1 to O; instead of labels.
    sizes: height and width of each picture, [N, 2].
    targets: for each picture its objects; a union of ids is an object too.
    clips: for each clip the pictures of its frames in order; empty for stills.
    entries: what the index says of each picture (of each clip in a gallery of clips).
    """

    pixels: Tensor
    sizes: NDArray[np.int64]
    targets: list[list[Target]]
    # Any: an index may say whatever its writer liked.
    entries: list[dict[str, Any]]
    labels: Tensor | None = None
    alphas: Tensor | None = None
    clips: list[list[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sizes)

    def to(self, device: torch.device | str) -> Gallery:
        """The same gallery with its tensors on `device`."""
        return replace(
            self,
            pixels=self.pixels.to(device),
            labels=None if self.labels is None else self.labels.to(device),
            alphas=None if self.alphas is None else self.alphas.to(device),
        )

    def stills(self) -> Iterator[tuple[str, NDArray[np.uint8], list[NDArray[np.bool_]]]]:
        """Every picture in the order of the index: its id, [H, W, C], its masks [H, W].

        Raises:
            ValueError: if these are clips.
        """
        if self.clips:
            raise ValueError("a gallery of clips has no stills")
        for number, (height, width) in enumerate(self.sizes):
            pixels = self.pixels[number, :, :height, :width].permute(1, 2, 0).cpu().numpy()
            objects = [one.ids for one in self.targets[number]]
            masks: list[NDArray[np.bool_]] = []
            if objects:
                canvas = self.gather([number], [objects])[0, self.pixels.shape[1] :]
                masks = list((canvas[:, :height, :width] > 0.5).cpu().numpy())
            yield self.entries[number]["id"], pixels, masks

    def gather(self, numbers: Sequence[int], objects: Sequence[Sequence[Ids]]) -> Tensor:
        """Pictures with masks as further channels.

        Args:
            numbers: which pictures.
            objects: for each of them the objects wanted.

        Returns:
            [n, C + O, H, W] float in 0..1, O the largest number of objects; unused ones are 0.
        """
        some = torch.tensor(numbers, device=self.pixels.device)
        pixels = self.pixels[some]
        channels = pixels.shape[1]
        has_masks = self.labels is not None or self.alphas is not None
        count = max(len(own) for own in objects) if has_masks else 0
        shape = (len(numbers), channels + count, *pixels.shape[2:])
        canvas = torch.zeros(shape, dtype=torch.float32, device=some.device)
        torch.div(pixels, 255, out=canvas[:, :channels])
        if count and self.labels is not None:
            canvas[:, channels:] = _pick_labels(self.labels[some], objects, count)
        elif count and self.alphas is not None:
            for row, own in enumerate(objects):
                for column, ids in enumerate(own):
                    chosen = self.alphas[numbers[row], [i - 1 for i in sorted(ids)]]
                    canvas[row, channels + column] = chosen.amax(0) / 255
        return canvas


def hang(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Lay pictures [H, W, C] on canvases of one size: [N, C, H, W].

    The edges of a picture are repeated up to the next multiple of `CANVAS_MULTIPLE`, so that
    halving does not mix them with the empty rest.
    """
    margins = [[-side % CANVAS_MULTIPLE for side in one.shape[:2]] for one in pictures]
    padded = [
        np.pad(one, ((0, bottom), (0, right), (0, 0)), mode="edge")
        for one, (bottom, right) in zip(pictures, margins, strict=True)
    ]
    height, width = np.max([one.shape[:2] for one in padded], axis=0)
    canvas = torch.zeros(len(pictures), pictures[0].shape[2], height, width, dtype=torch.uint8)
    for number, picture in enumerate(padded):
        own = torch.from_numpy(picture).permute(2, 0, 1)
        canvas[number, :, : own.shape[1], : own.shape[2]] = own
    return canvas


def boxes_of_ids(labels: NDArray[np.uint8], objects: Collection[Ids]) -> list[Target]:
    """The objects with their boxes in a label map [H, W]."""
    boxes = find_objects(labels)
    return [
        Target(ids, _union([one for i in ids if i <= len(boxes) and (one := boxes[i - 1])]))
        for ids in objects
    ]


def _union(boxes: Sequence[tuple[slice, ...]]) -> IntBox:
    if not boxes:
        return (0, 0, 0, 0)
    return (
        min(x.start for _, x in boxes),
        min(y.start for y, _ in boxes),
        max(x.stop for _, x in boxes),
        max(y.stop for y, _ in boxes),
    )


def _pick_labels(labels: Tensor, objects: Sequence[Sequence[Ids]], count: int) -> Tensor:
    """[n, O, H, W] bool: where the label is one of the ids."""
    masks = labels.new_zeros((len(objects), count, *labels.shape[1:]), dtype=torch.bool)
    ids = [
        (row, slot, number, label)
        for row, own in enumerate(objects)
        for slot, members in enumerate(own)
        for number, label in enumerate(sorted(members))
    ]
    # The first ids of all objects at once, then the second ones of those that have two, and so on.
    for wanted in range(1 + max(number for _, _, number, _ in ids)):
        chosen = torch.tensor([one for one in ids if one[2] == wanted], device=labels.device)
        rows, slots, _, values = chosen.unbind(1)
        masks[rows, slots] |= labels[rows] == values.to(labels)[:, None, None]
    return masks
