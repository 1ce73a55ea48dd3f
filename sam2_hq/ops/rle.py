"""COCO run lengths of masks, plain and compressed, without pycocotools.

Runs go down the columns and start with background: a mask whose first pixel is set starts with a
run of 0. A record is `{"size": [height, width], "counts": ...}`; counts are a list of run lengths
or, in the compressed form, the string that COCO tools read and write, which pycocotools makes as
bytes.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BITS = 5  # payload bits of a character; the sixth says whether another one follows
_FIRST_CHARACTER = 48


class RLE(TypedDict):
    """Run lengths of one mask."""

    size: list[int]
    counts: list[int] | str | bytes


def mask_to_rle_pytorch(masks: Tensor) -> list[RLE]:
    """Encode [N, H, W] bool masks as plain run lengths, with one transfer to the host for all.

    Raises:
        ValueError: if `masks` is not [N, H, W] bool.
    """
    if masks.dim() != 3 or masks.dtype != torch.bool:
        raise ValueError(f"masks must be [N, H, W] bool, got {list(masks.shape)} {masks.dtype}")
    num_masks, height, width = masks.shape
    columns = masks.transpose(1, 2).flatten(1)
    before = torch.nn.functional.pad(columns[:, :-1], (1, 0))  # background precedes the first pixel
    changes = (columns ^ before).nonzero().cpu().numpy()
    ends = np.searchsorted(changes[:, 0], np.arange(1, num_masks + 1))
    return [
        {
            "size": [height, width],
            "counts": np.diff(starts, prepend=0, append=height * width).tolist(),
        }
        for starts in np.split(changes[:, 1], ends)[:num_masks]
    ]


def rle_to_mask(rle: RLE) -> NDArray[np.bool_]:
    """Decode plain or compressed run lengths to an [H, W] bool mask.

    Raises:
        ValueError: if there are no size and runs, or they do not fit together.
    """
    try:
        height, width = (int(side // 1) for side in rle["size"])  # JSON may hold 480.0
        counts = _plain_counts(rle)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"rle must have size and counts, got {rle!r:.80}") from error
    if counts.sum() != height * width:
        raise ValueError(f"counts add up to {counts.sum()}, but size is {height} x {width}")
    is_foreground = np.arange(len(counts)) % 2 == 1
    return np.repeat(is_foreground, counts).reshape(width, height).T


def area_from_rle(rle: RLE) -> int:
    """Foreground pixels of plain or compressed run lengths."""
    return int(_plain_counts(rle)[1::2].sum())


def coco_encode_rle(rle: RLE) -> RLE:
    """The compressed form of plain run lengths; a compressed one is returned as it is."""
    counts = rle["counts"]
    if isinstance(counts, str):
        return rle
    if isinstance(counts, bytes):
        return {"size": list(rle["size"]), "counts": counts.decode("ascii")}
    return {"size": list(rle["size"]), "counts": _compress(_plain_counts(rle))}


def coco_decode_rle(rle: RLE) -> RLE:
    """The plain form of compressed run lengths; a plain one is returned as it is."""
    return {"size": list(rle["size"]), "counts": _plain_counts(rle).tolist()}


def _plain_counts(rle: RLE) -> NDArray[np.int64]:
    counts = rle["counts"]
    if isinstance(counts, str):
        return _decompress(counts.encode("ascii"))
    if isinstance(counts, bytes):
        return _decompress(counts)
    return np.array(list(counts), dtype=np.int64)


def _compress(counts: NDArray[np.int64]) -> str:
    """From the fourth run on the difference to the last run of that colour, low bits first."""
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    characters = []
    for number in numbers.tolist():
        is_last = False
        while not is_last:
            bits = number & 31
            number >>= _BITS
            # The highest payload bit is the sign of what follows.
            is_last = number == (-1 if bits & 16 else 0)
            characters.append(chr(_FIRST_CHARACTER + (bits if is_last else bits | 32)))
    return "".join(characters)


def _decompress(text: bytes) -> NDArray[np.int64]:
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if len(codes) == 0:
        return codes
    lasts = np.flatnonzero(codes < 32)
    if len(lasts) == 0 or lasts[-1] != len(codes) - 1 or codes.min() < 0 or codes.max() > 63:
        raise ValueError(f"counts is not a COCO run-length string: {text[:40]!r}")
    starts = np.concatenate([[0], lasts[:-1] + 1])
    lengths = lasts - starts + 1
    places = _BITS * (np.arange(len(codes)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((codes & 31) << places, starts)
    numbers -= np.where(codes[lasts] & 16, np.int64(1) << (_BITS * lengths), 0)
    for colour in (1, 2):
        numbers[colour::2] = np.cumsum(numbers[colour::2])
    return numbers
