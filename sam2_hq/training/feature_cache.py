"""Features of pictures that come again, kept in memory or in a folder.

A frozen encoder gives the same picture the same features, so the encoder, the dearest part of a
step, runs once a picture. Which pictures come again, and under which key, is the business of the
data (`mixtures.FixedPool`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from sam2_hq.data.atomic import whole_file
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.structures import FrameFeatures

FEATURE_TENSORS = ("image_encoder.", "sam_mask_decoder.conv_s")
"""What the features of a picture depend on, as names of tensors begin."""

LOOK_SIDE = 16
MAX_APART = 2 / 255
"""How pictures are compared: by colours on a small grid, more than rounding apart."""

Encode = Callable[[Tensor], FrameFeatures]
_Entry = list[Tensor]
"""How the picture looks, its embedding, its high-resolution maps; all in half precision."""


class FeatureCache:
    """Features in half precision, one entry a picture, in memory or in a folder.

    In memory the oldest entries go when there are too many; a folder keeps what it is given.
    """

    def __init__(
        self,
        *,
        max_pictures: int = 4096,
        folder: str | os.PathLike[str] | None = None,
        encoder: str = "",
    ) -> None:
        """Say where and how much to keep.

        Args:
            max_pictures: entries in memory.
            folder: where entries are written and looked for; None keeps them in memory.
            encoder: what tells the encoder from others whose features may lie in the folder.

        Raises:
            ValueError: if `max_pictures` is not positive.
        """
        if max_pictures < 1:
            raise ValueError(f"max_pictures must be at least 1, got {max_pictures}")
        self.max_pictures = max_pictures
        self.encoder = encoder
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, _Entry] = {}

    def get(self, keys: Sequence[int], frames: Tensor, encode: Encode) -> FrameFeatures:
        """Features of frames [B, 3, S, S] by their keys; `encode` is called with those unknown.

        An entry of another picture, from before the data changed, is made anew.
        """
        names = [f"{self.encoder[:32]}_{frames.shape[-1]}_{key}" for key in keys]
        looks = F.adaptive_avg_pool2d(frames, LOOK_SIDE).half().cpu()
        found: dict[str, _Entry] = {}
        new: dict[str, int] = {}
        for i, name in enumerate(names):
            entry = self._find(name, looks[i])
            if entry is None:
                new[name] = i
            else:
                found[name] = entry
        if new:
            fresh = encode(frames[list(new.values())])
            maps = [fresh.embedding, *fresh.high_res]
            for row, (name, i) in enumerate(new.items()):
                found[name] = [looks[i], *(one[row].detach().half().cpu() for one in maps)]
                self._keep(name, found[name])
        levels = zip(*(found[name][1:] for name in names), strict=True)
        embedding, *high_res = (torch.stack([one.to(frames) for one in level]) for level in levels)
        return FrameFeatures(embedding, tuple(high_res))

    def _find(self, name: str, look: Tensor) -> _Entry | None:
        entry = self._known.get(name)
        if self.folder is not None and (self.folder / f"{name}.safetensors").is_file():
            stored = load_file(self.folder / f"{name}.safetensors")
            entry = [stored[str(number)] for number in range(len(stored))]
        if entry is None or (entry[0] - look).abs().max() > MAX_APART:
            return None
        return entry

    def _keep(self, name: str, entry: _Entry) -> None:
        if self.folder is not None:
            named = {str(number): one.contiguous() for number, one in enumerate(entry)}
            with whole_file(self.folder / f"{name}.safetensors") as path:
                save_file(named, path)
            return
        if name not in self._known and len(self._known) >= self.max_pictures:
            del self._known[next(iter(self._known))]
        self._known[name] = entry


def encoder_key(model: SAM2Base) -> str:
    """A name for the weights that make features: equal for equal weights alone."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if name.startswith(FEATURE_TENSORS):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
