"""Play scripts: ground, actors from back to front, colours, and the masks of what stays visible.

`PackSource` makes all clips that come from packs: stills are clips of one frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_hq.checks import check_counts
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.colour import ColourOptions, change_colours
from sam2_hq.training.fronts import cover
from sam2_hq.training.gallery import Gallery
from sam2_hq.training.rendering import look
from sam2_hq.training.scripts import Actor, SceneOptions, Script, ScriptWriter

MIN_PIXELS = 6.0
"""An object of fewer visible pixels is absent."""


class PackSource:
    """Makes clips from packs, on the device that the packs lie on."""

    def __init__(
        self,
        *,
        side: int,
        photos: Gallery | None = None,
        cutouts: Gallery | None = None,
        backgrounds: Gallery | None = None,
        clips: Gallery | None = None,
        num_frames: int = 1,
        max_objects: int = 3,
        options: SceneOptions | None = None,
        colours: ColourOptions | None = None,
    ) -> None:
        """Take the packs and the form of the batches.

        Args:
            side: S.
            photos: with masks.
            cutouts: RGBA.
            backgrounds: without masks.
            clips: real clips with masks.
            num_frames: T; 1 draws stills.
            max_objects: O.
            options: what the clips are made of; the image stage's mix by default.
            colours: strength of colour changes.

        Raises:
            ValueError: if a number is not positive, or the mix needs a pack that is not given.
        """
        self.side = side
        self.num_frames = num_frames
        self.max_objects = max_objects
        check_counts(vars(self), "side", "num_frames", "max_objects", least=1)
        self.colours = colours or ColourOptions()
        self.packs = {
            "photos": photos,
            "cutouts": cutouts,
            "backgrounds": backgrounds,
            "clips": clips,
        }
        self.writer = ScriptWriter(
            photos=photos,
            cutouts=cutouts,
            backgrounds=backgrounds,
            clips=clips,
            options=options or SceneOptions(),
            max_objects=max_objects,
        )

    def make(self, seeds: Sequence[int]) -> TrainingBatch:
        """Write and play one script for each seed."""
        rngs = [np.random.default_rng(seed) for seed in seeds]
        return self.play([self.writer.write(self.num_frames, rng) for rng in rngs], rngs)

    def play(self, scripts: Sequence[Script], rngs: Sequence[np.random.Generator]) -> TrainingBatch:
        """Render scripts of the same length; the colours of each change by its own chance."""
        frames, grounds = self._lay_grounds(scripts)
        hidden = [row for row, script in enumerate(scripts) if script.front]
        bare = frames[hidden], grounds[hidden]
        alphas: list[list[Tensor]] = [[] for _ in scripts]
        for layer in range(max(len(script.actors) for script in scripts)):
            rows = [row for row, script in enumerate(scripts) if layer < len(script.actors)]
            things = self._show_actors([scripts[row].actors[layer] for row in rows])
            some = torch.tensor(rows, device=frames.device)
            gone = 1 - things[:, :, 3:]
            frames[some] = frames[some] * gone + things[:, :, :3]
            grounds[some] = grounds[some] * gone
            for row, alpha, left in zip(rows, things[:, :, 3], gone[:, :, 0], strict=True):
                alphas[row] = [*(one * left for one in alphas[row]), alpha]
        if hidden:
            fronts = self._show_fronts([scripts[row] for row in hidden], frames.device)
            frames[hidden] = torch.lerp(frames[hidden], bare[0], fronts)
            grounds[hidden] = torch.lerp(grounds[hidden], bare[1], fronts)
            for row, left in zip(hidden, 1 - fronts[:, :, 0], strict=True):
                alphas[row] = [one * left for one in alphas[row]]
        masks = self._fill_slots(scripts, grounds, alphas)
        return TrainingBatch(change_colours(frames, rngs, self.colours), masks)

    def _pack(self, name: str) -> Gallery:
        pack = self.packs[name]
        assert pack is not None, name
        return pack

    def _lay_grounds(self, scripts: Sequence[Script]) -> tuple[Tensor, Tensor]:
        """[B, T, 3, S, S] pixels and [B, T, O, S, S] masks of the objects of the grounds."""
        shape = (len(scripts), len(scripts[0].pictures))
        device = next(pack.pixels.device for pack in self.packs.values() if pack is not None)
        frames = torch.empty(*shape, 3, self.side, self.side, device=device)
        masks = torch.zeros(*shape, self.max_objects, self.side, self.side, device=device)
        for name in sorted({script.ground for script in scripts}):
            rows = [row for row, script in enumerate(scripts) if script.ground == name]
            own = [scripts[row] for row in rows]
            values, inside = self._look_at_ground(name, own)
            some = torch.tensor(rows, device=device)
            frames[some] = values[:, :, :3]
            if values.shape[2] > 3:
                has_objects = torch.tensor([bool(one.objects) for one in own], device=device)
                known = inside | ~has_objects[:, None, None, None, None]
                frames[some] = _paint_outside(values[:, :, :3], known)
                own_masks = values[:, :, 3:]
                if self._pack(name).labels is not None:
                    own_masks = (own_masks > 0.5).float()  # a label map has hard edges
                masks[some, :, : values.shape[2] - 3] = own_masks * inside
        return frames, masks

    def _look_at_ground(self, name: str, scripts: Sequence[Script]) -> tuple[Tensor, Tensor]:
        pack = self._pack(name)
        matrices = np.stack([script.matrices for script in scripts])
        bends = np.stack([script.bends for script in scripts])
        if name != "clips":
            numbers = [script.pictures[0] for script in scripts]
            canvas = pack.gather(numbers, [script.objects for script in scripts])
            return look(canvas, matrices, sizes=pack.sizes[numbers], side=self.side, bends=bends)
        numbers = [number for script in scripts for number in script.pictures]
        objects = [script.objects for script in scripts for _ in script.pictures]
        values, inside = look(
            pack.gather(numbers, objects),
            matrices.reshape(-1, 1, 3, 3),
            sizes=pack.sizes[numbers],
            side=self.side,
        )
        shape = matrices.shape[:2]
        return values[:, 0].unflatten(0, shape), inside[:, 0].unflatten(0, shape)

    def _show_actors(self, actors: Sequence[Actor]) -> Tensor:
        """[n, T, 4, S, S]: colour times alpha, and alpha."""
        pieces: list[tuple[list[int], Tensor]] = []
        for origin in sorted({actor.part.origin for actor in actors}):
            rows = [row for row, actor in enumerate(actors) if actor.part.origin == origin]
            own = [actors[row] for row in rows]
            pack = self._pack(origin)
            numbers = [actor.part.picture for actor in own]
            canvas = pack.gather(numbers, [[actor.part.ids] for actor in own])
            if origin == "photos":
                canvas[:, 3:] = F.avg_pool2d(canvas[:, 3:], 3, stride=1, padding=1)
            gains = canvas.new_tensor(np.stack([actor.gain for actor in own]))
            canvas[:, :3] *= canvas[:, 3:]
            values, inside = look(
                canvas,
                np.stack([actor.matrices for actor in own]),
                sizes=pack.sizes[numbers],
                side=self.side,
                bends=np.stack([actor.bends for actor in own]),
            )
            values *= inside
            values[:, :, :3] *= gains[:, None, :, None, None]
            values[:, :, :3] = torch.minimum(values[:, :, :3], values[:, :, 3:])
            pieces.append((rows, values))
        things = torch.empty(len(actors), *pieces[0][1].shape[1:], device=pieces[0][1].device)
        for rows, values in pieces:
            things[torch.tensor(rows, device=things.device)] = values
        return things

    def _show_fronts(self, scripts: Sequence[Script], device: torch.device) -> Tensor:
        """[n, T, 1, S, S]: what of each pixel is ground in front of the actors."""
        fronts = [script.front for script in scripts if script.front]
        matrices = [script.matrices for script in scripts]
        return cover(fronts, matrices, side=self.side, device=device)

    def _fill_slots(
        self, scripts: Sequence[Script], grounds: Tensor, alphas: list[list[Tensor]]
    ) -> Tensor:
        masks = torch.zeros_like(grounds)
        for row, script in enumerate(scripts):
            for slot, who in enumerate(script.slots):
                behind = len(script.objects)
                own = grounds[row, :, who] if who < behind else alphas[row][who - behind]
                masks[row, :, slot] = own
        areas = masks.sum((-2, -1))
        # An object nobody can point at in the first frame is not asked for.
        kept = (areas >= MIN_PIXELS) & (areas[:, :1] >= MIN_PIXELS)
        masks = masks * kept[..., None, None]
        first_used = (~kept[:, 0]).int().argsort(dim=1, stable=True)
        return masks.gather(2, first_used[:, None, :, None, None].expand_as(masks))


def _paint_outside(frames: Tensor, known: Tensor) -> Tensor:
    """The mean colour where a picture ends: the mirror image of an object would have no mask."""
    mean = frames.mean((1, 3, 4), keepdim=True)
    return torch.where(known, frames, mean)
