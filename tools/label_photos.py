"""Let a model label what nobody labelled on the photos of a pack, and train on that too.

    python tools/label_photos.py PHOTOS.zip --out PACK.zip [--source NAME ...] [--checkpoint FILE]

Many photos have one chosen object and much else to see. A thing that the model finds is taken if it
is found again on the mirrored photo, from a click in its middle and from its box; its mask is what
two of the three agree on. Objects that the pack has stay as they are. The masks are no better than
the model: they make few photos last longer, they are nothing to validate on.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from sam2_hq.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2_hq.build_sam import load
from sam2_hq.cli.main import USER_MISTAKES, explain
from sam2_hq.data.atomic import check_writable
from sam2_hq.data.masks import davis_palette
from sam2_hq.evaluation.clicks import box_around, next_click
from sam2_hq.evaluation.metrics import jaccard
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.training.packs import BAD_ITEM, Entry, decode_photo, read_items, write_items
from sam2_hq.training.sample_log import SampleLog

LABEL = "found by a model"
SMALLEST, LARGEST = 0.003, 0.6
"""Areas of a thing, as shares of the photo."""
SAME_FROM_CLICK, SAME_FROM_BOX = 0.65, 0.7
"""IoU from which what is seen on the mirrored photo is the same thing."""
COVERED = 0.1
"""A thing of which a labelled object covers more is that object, or a part of it."""
LEFT = 0.5
"""A thing of which less is left in front of the others is dropped."""

BoolMask = NDArray[np.bool_]


class Finder:
    """Finds things on photos.

    Args:
        checkpoint: weights; None for the bundled ones.
        device: where the model runs.
    """

    def __init__(self, checkpoint: str | None = None, device: str = "cpu") -> None:
        model = load(checkpoint, device=device)
        self._generator = SAM2AutomaticMaskGenerator(
            model,
            points_per_side=12,
            points_per_batch=72,
            pred_iou_thresh=0.7,
            stability_score_thresh=0.75,
            box_nms_thresh=0.6,
            min_mask_region_area=60,
        )
        self._predictor = SAM2ImagePredictor(model)

    def find(self, photo: NDArray[np.uint8]) -> list[BoolMask]:
        """Masks [H, W] of the things on a photo [H, W, 3] that are found twice."""
        found = [one["segmentation"] for one in self._generator.generate(photo)]
        self._predictor.set_image(np.ascontiguousarray(photo[:, ::-1]))
        twice = [self._find_again(mask[:, ::-1]) for mask in found if mask.mean() < LARGEST]
        return [mask[:, ::-1] for mask in twice if mask is not None]

    def _find_again(self, mask: BoolMask) -> BoolMask | None:
        x, y, label = next_click(np.zeros_like(mask), mask)
        answers = self._predictor.predict(np.array([[x, y]]), np.array([label]))[0] > 0
        clicked = max(answers, key=lambda one: jaccard(one, mask))
        box = np.array(box_around(mask), dtype=np.float32)
        boxed = self._predictor.predict(box=box, multimask_output=False)[0][0] > 0
        if jaccard(clicked, mask) < SAME_FROM_CLICK or jaccard(boxed, mask) < SAME_FROM_BOX:
            return None
        agreed: BoolMask = np.sum([mask, clicked, boxed], axis=0) >= 2
        return agreed


def add(labels: NDArray[np.uint8], found: Sequence[BoolMask]) -> NDArray[np.uint8]:
    """Ids [H, W] with those of `found` beside the present ones, small things in front of large."""
    known = labels > 0
    new = np.zeros(labels.shape, dtype=np.int64)
    areas = []
    for mask in sorted(found, key=np.sum, reverse=True):
        area = int(mask.sum())
        if area >= SMALLEST * mask.size and (mask & known).sum() <= COVERED * area:
            areas.append(area)
            new[mask] = len(areas)
    new[known] = 0
    merged = labels.copy()
    free = iter(sorted(set(range(1, np.iinfo(np.uint8).max + 1)) - set(np.unique(labels).tolist())))
    for number, area in enumerate(areas, 1):
        left = new == number
        if left.sum() >= max(LEFT * area, 1) and (unused := next(free, None)):
            merged[left] = unused
    return merged


def write_pack(path: Path, photos: Path, finder: Finder, sources: Collection[str] = ()) -> int:
    """Write the pack `photos` with what the finder sees; the number of things that came to it.

    Photos that cannot be used stay as they are, and are named.

    Args:
        path: the zip file to write.
        photos: the pack.
        finder: finds things.
        sources: only photos whose index entry has one of these as its `source`; all if empty.

    Raises:
        ValueError: if the pack cannot be read, or has no photo of a source.
    """
    check_writable(path)
    entries, files = read_items(photos)
    chosen = [one for one in entries if not sources or one.get("source") in sources]
    missing = set(sources) - {one.get("source") for one in chosen}
    if missing or not chosen:
        raise ValueError(f"pack '{photos}' has no photo" + f" of {sorted(missing)}" * bool(missing))
    log, count = SampleLog(), 0
    with zipfile.ZipFile(photos) as archive:
        for entry in tqdm(chosen, unit="photo", file=sys.stderr):
            try:
                picture, labels = decode_photo(archive, entry)
                objects = [*entry["objects"]]
            except BAD_ITEM as error:
                log.skip(f"{photos.name}:{entry['id']}", error)
                continue
            merged = add(labels, finder.find(picture))
            new = sorted(set(np.unique(merged).tolist()) - set(np.unique(labels).tolist()))
            areas = {one: round(float((merged == one).mean()), 4) for one in new}
            entry["objects"] = objects + [_object(one, area) for one, area in areas.items()]
            files[entry["mask"]] = _png(merged)
            count += len(new)
    write_items(path, entries, files)
    return count


def _object(number: int, area: float) -> Entry:
    return {"id": number, "label": LABEL, "area": area}


def _png(labels: NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(labels)
    picture.putpalette(davis_palette().tobytes())
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="a pack of photos with label maps")
    parser.add_argument("--out", type=Path, required=True, help="the zip file to write")
    parser.add_argument("--source", action="append", default=[], help="only photos of this source")
    parser.add_argument("--checkpoint", help="weights; the bundled ones by default")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    try:
        finder = Finder(options.checkpoint, options.device)
        count = write_pack(options.out, options.photos, finder, options.source)
    except USER_MISTAKES as error:
        raise SystemExit(f"label_photos: {explain(error)}") from error
    print(f"{count} things added: {options.out}")


if __name__ == "__main__":
    main()
