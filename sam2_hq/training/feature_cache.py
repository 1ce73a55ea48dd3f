"""Features of pictures that come again, kept in memory or in a folder.

A frozen encoder gives the same picture the same features, so the encoder, the dearest part of a
step, runs once a picture. Pictures are told apart by their pixels; that they come again is the
business of the data (`mixtures.FixedPool`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sam2_hq.data.atomic import whole_file
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.structures import FrameFeatures

FEATURE_TENSORS = ("image_encoder.", "sam_mask_decoder.conv_s")
"""What the features of a picture depend on, as names of tensors begin."""

Encode = Callable[[Tensor], FrameFeatures]


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
        self._known: dict[str, list[Tensor]] = {}

    def get(self, frames: Tensor, encode: Encode) -> FrameFeatures:
        """Features of frames [B, 3, S, S]; `encode` is called with those that are new."""
        keys = [self._key(frame) for frame in frames]
        entries = {key: self._find(key) for key in keys}
        new = [i for i, key in enumerate(keys) if entries[key] is None]
        if new:
            fresh = encode(frames[new])
            for row, i in enumerate(new):
                maps = [fresh.embedding, *fresh.high_res]
                entries[keys[i]] = [one[row].detach().half().cpu() for one in maps]
                self._keep(keys[i], entries[keys[i]] or [])
        rows = [entries[key] or [] for key in keys]
        maps = [torch.stack(level).to(frames) for level in zip(*rows, strict=True)]
        return FrameFeatures(maps[0], tuple(maps[1:]))

    def _find(self, key: str) -> list[Tensor] | None:
        if key in self._known:
            return self._known[key]
        if self.folder is None or not (self.folder / f"{key}.safetensors").is_file():
            return None
        stored = load_file(self.folder / f"{key}.safetensors")
        return [stored[str(level)] for level in range(len(stored))]

    def _keep(self, key: str, maps: list[Tensor]) -> None:
        if self.folder is not None:
            named = {str(level): one.contiguous() for level, one in enumerate(maps)}
            with whole_file(self.folder / f"{key}.safetensors") as path:
                save_file(named, path)
            return
        if len(self._known) >= self.max_pictures:
            del self._known[next(iter(self._known))]
        self._known[key] = maps

    def _key(self, frame: Tensor) -> str:
        values = (frame * 255).round().byte().cpu().contiguous().numpy()
        return hashlib.sha256(self.encoder.encode() + values.tobytes()).hexdigest()[:32]


def encoder_key(model: SAM2Base) -> str:
    """A name for the weights that make features: equal for equal weights alone."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if name.startswith(FEATURE_TENSORS):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
