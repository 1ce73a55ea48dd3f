"""mIoU and mBIoU of still pictures with one mask each, prompted by its box, as HQ-SAM reports them.

Layout: a folder of pictures and one of masks with the same names, as in DIS5K, COIFT, HRSOD and
ThinObject5K.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple  # Any: JSON values

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from sam2_hq.data.frames import IMAGE_SUFFIXES, JPEG_SUFFIXES, natural_key
from sam2_hq.data.masks import gray_channel, has_coloured_palette, read_id_map
from sam2_hq.data.pictures import read_picture
from sam2_hq.evaluation.clicks import box_prompt
from sam2_hq.evaluation.intervals import bootstrap_interval
from sam2_hq.evaluation.mask_folders import png_files
from sam2_hq.evaluation.metrics import BOUNDARY_IOU_RATIO, boundary_iou, jaccard
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.structures import HQMode

LABEL_SIDE = 1024  # the square on which the published protocol takes the box
FOREGROUND = 128  # labels above it


class Still(NamedTuple):
    """One picture and its mask, as files."""

    name: str
    picture: Path
    mask: Path


class StillScore(NamedTuple):
    """Of one mask, 0 to 1."""

    iou: float
    boundary_iou: float


@dataclass
class StillScores:
    """Scores by picture and HQ mode.

    empty: pictures whose mask has no foreground; they have no box, and do not count.
    """

    rows: dict[str, Mapping[HQMode, StillScore]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def means(self) -> dict[HQMode, StillScore]:
        """mIoU and mBIoU by HQ mode: the unweighted means over pictures."""
        return {mode: StillScore(*self._table(mode).mean(axis=0).tolist()) for mode in self.modes}

    @property
    def modes(self) -> list[HQMode]:
        """HQ modes, in the order they were asked for."""
        return list(next(iter(self.rows.values()))) if self.rows else []

    def gain(self, mode: HQMode, base: HQMode) -> dict[str, dict[str, float]]:
        """Mean difference over pictures, with its paired 95 % bootstrap interval."""
        difference = self._table(mode) - self._table(base)
        return {
            name: bootstrap_interval(values)._asdict()
            for name, values in zip(("mIoU", "mBIoU"), difference.T, strict=True)
        }

    def to_json(self) -> dict[str, Any]:
        """Means, gains over the first mode with intervals, and every picture."""
        first, *others = self.modes
        return {
            "means": {
                mode: {"mIoU": mean.iou, "mBIoU": mean.boundary_iou}
                for mode, mean in self.means().items()
            },
            "gains": {mode: self.gain(mode, first) for mode in others},
            "pictures": {
                name: {mode: score._asdict() for mode, score in row.items()}
                for name, row in self.rows.items()
            },
            "empty": self.empty,
        }

    def _table(self, mode: HQMode) -> NDArray[np.float64]:
        return np.array([row[mode] for row in self.rows.values()])


def find_stills(pictures: Path, masks: Path) -> list[Still]:
    """Pair pictures with `<stem>.png` among the masks, in natural order; hidden files are nothing.

    In one folder with their masks, as some sets are published, pictures are the JPEGs.

    Raises:
        ValueError: if a folder or a mask is missing, there is no picture, or two of one name.
    """
    for name, folder in (("images", pictures), ("masks", masks)):
        if not folder.is_dir():
            raise ValueError(f"{name}: there is no folder '{folder}'")
    suffixes = JPEG_SUFFIXES if pictures.resolve() == masks.resolve() else IMAGE_SUFFIXES
    shown = [p for p in pictures.iterdir() if p.is_file() and not p.name.startswith(".")]
    files = [p for p in shown if p.suffix.lower() in suffixes]
    if not files:
        raise ValueError(f"images: '{pictures}' has no picture")
    labels = png_files(masks)
    stills: list[Still] = []
    for file in sorted(files, key=lambda file: natural_key(file.stem)):
        if stills and stills[-1].name == file.stem:
            raise ValueError(f"images: '{stills[-1].picture}' and '{file.name}' share a mask")
        if file.stem not in labels:
            raise ValueError(f"mask '{masks / file.stem}.png': no such file")
        stills.append(Still(file.stem, file, labels[file.stem]))
    return stills


def score_stills(
    predictor: SAM2ImagePredictor,
    stills: Iterable[Still],
    hq_modes: Sequence[HQMode],
    *,
    ratio: float = BOUNDARY_IOU_RATIO,
) -> StillScores:
    """Score all pictures.

    Args:
        predictor: the caller sets autocast.
        stills: files.
        hq_modes: every one is scored; the picture is encoded once.
        ratio: of boundary IoU.

    Raises:
        ValueError: if a file is damaged, sizes differ, or no mask has foreground.

    Source: the evaluation of HQ-SAM (Ke et al., 2023).
    """
    scores = StillScores()
    for still in stills:
        picture = read_picture(still.picture, f"image '{still.picture}'")
        truth = read_label(still.mask)
        if truth.shape != picture.shape[:2]:
            raise ValueError(
                f"mask '{still.mask}' is {list(truth.shape)}, "
                f"its picture {list(picture.shape[:2])} (height, width)"
            )
        box = label_box(truth)
        if box is None:
            scores.empty.append(still.name)
            continue
        scores.rows[still.name] = score_picture(
            predictor, picture, truth > FOREGROUND, box, hq_modes, ratio=ratio
        )
    if not scores.rows:
        raise ValueError(f"no mask has foreground, a value above {FOREGROUND}")
    return scores


def score_picture(
    predictor: SAM2ImagePredictor,
    picture: NDArray[np.uint8],
    truth: NDArray[np.bool_],
    box: Sequence[float],
    hq_modes: Sequence[HQMode],
    *,
    ratio: float = BOUNDARY_IOU_RATIO,
) -> dict[HQMode, StillScore]:
    """Scores of one mask [H, W] by HQ mode, from the box x0, y0, x1, y1 in pixels."""
    predictor.set_image(picture)
    scores = {}
    for mode in hq_modes:
        masks, _, _ = predictor.predict(box=box, multimask_output=False, hq_mode=mode)
        scores[mode] = StillScore(
            jaccard(masks[0], truth), boundary_iou(masks[0], truth, ratio=ratio)
        )
    return scores


def read_label(path: Path) -> NDArray[np.uint8]:
    """Label [H, W], 0 to 255: gray values; a mask of 0 and 1 becomes 0 and 255.

    A palette with a colour is one of ids, and what is not id 0 becomes 255; a palette of grays is
    gray values, as published.

    Raises:
        ValueError: if the file is damaged, or in colour without a palette.
    """
    name = f"mask '{path}'"
    picture = read_picture(path, name)
    with Image.open(path) as image:
        holds_ids = has_coloured_palette(image)
    if holds_ids:
        return (read_id_map(path) != 0) * np.uint8(255)
    label = gray_channel(picture, name)
    return label * np.uint8(255) if label.max() == 1 else label


def label_box(label: NDArray[np.uint8]) -> list[float] | None:
    """Box x0, y0, x1, y1 of the foreground in pixels of the picture; None if there is none.

    As published it is taken after scaling the label to a square of 1024 without antialiasing, up to
    and with the last row and column there.
    """
    values = torch.from_numpy(label.astype(np.float32))[None, None]
    square = F.interpolate(values, (LABEL_SIDE, LABEL_SIDE), mode="bilinear", align_corners=False)
    found = (square[0, 0] > FOREGROUND).numpy()
    if not found.any():
        return None
    scale = np.array(label.shape[::-1] * 2) / LABEL_SIDE
    return (np.array(box_prompt(found)) * scale).tolist()
