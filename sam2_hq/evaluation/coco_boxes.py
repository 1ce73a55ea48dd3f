"""Boxes of a detector to masks: COCO and LVIS files in, COCO results out.

Nothing here needs pycocotools; `detection_ap.py` says how good the masks are.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast  # Any: JSON values

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_hq.ops.rle import RLE, coco_encode_rle, mask_to_rle_pytorch, rle_to_mask
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.structures import HQMode

Results = list[dict[str, Any]]
"""Masks as COCO tools read them, with the predicted IoU as `predicted_iou`."""

ScoreKind = Literal["detector", "product"]
BOXES_AT_ONCE = 32


@dataclass(frozen=True)
class Truth:
    """Annotated pictures in the format of COCO or LVIS.

    tree: `images`, `annotations`, `categories`.
    """

    tree: Mapping[str, Any]

    @property
    def images(self) -> dict[int, dict[str, Any]]:
        """Pictures by id."""
        return {image["id"]: image for image in self.tree["images"]}

    @property
    def is_federated(self) -> bool:
        """Whether pictures say which categories were looked for, as in LVIS."""
        return any("neg_category_ids" in image for image in self.tree["images"])

    @property
    def max_boxes(self) -> int:
        """Boxes a picture that the published evaluations take."""
        return 300 if self.is_federated else 100


def read_truth(path: str | os.PathLike[str]) -> Truth:
    """Read annotations; those of pictures that the file does not list are left out.

    Raises:
        ValueError: if the file is missing, has not the lists and keys that are needed, or an
            annotation has no outline or a damaged one.
    """
    tree = _read_json("annotations", Path(path))
    needed = {
        "images": ("id", "height", "width"),
        "annotations": ("image_id", "category_id", "segmentation"),
        "categories": ("id", "name"),
    }
    for name, keys in needed.items():
        entries = tree.get(name) if isinstance(tree, dict) else None
        if not isinstance(entries, list) or not entries:
            raise ValueError(f"annotations '{path}' must have a list of {name}, there is none")
        for number, entry in enumerate(entries):
            _check_entry(entry, keys, f"annotations '{path}': {name}[{number}]")
    sizes = {image["id"]: (image["height"], image["width"]) for image in tree["images"]}
    kept = []
    for number, entry in enumerate(tree["annotations"]):
        if entry["image_id"] not in sizes:
            continue
        name = f"annotations '{path}': annotations[{number}]"
        _check_outline(entry["segmentation"], sizes[entry["image_id"]], name)
        kept.append(entry)
    if not kept:
        raise ValueError(f"annotations '{path}' has none of its images")
    return Truth(tree | {"annotations": kept})


def read_detections(
    path: str | os.PathLike[str], truth: Truth, *, max_boxes: int | None = None
) -> dict[int, Results]:
    """Read a detector's results: a list of `image_id`, `category_id`, `bbox` and `score`.

    Args:
        path: the JSON file; `bbox` is x, y, width, height in pixels.
        truth: says which pictures and categories there are.
        max_boxes: the best so many of a picture; None for `truth.max_boxes`.

    Returns:
        Detections by picture, the best first, among equals as in the file.

    Raises:
        ValueError: if the file is missing, or an entry is not as it should be; the message has its
            number.
    """
    entries = _read_json("detections", Path(path))
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"detections '{path}' must be a list of results, got none")
    known = set(truth.images), {category["id"] for category in truth.tree["categories"]}
    found: dict[int, Results] = {}
    for number, entry in enumerate(entries):
        _check_detection(entry, f"detections '{path}'[{number}]", *known)
        found.setdefault(entry["image_id"], []).append(entry)
    limit = truth.max_boxes if max_boxes is None else max_boxes
    return {
        image_id: sorted(boxes, key=lambda entry: -entry["score"])[:limit]
        for image_id, boxes in found.items()
    }


def picture_files(truth: Truth, image_ids: Sequence[int], folder: Path) -> dict[int, Path]:
    """Files of pictures: `file_name`, or the end of `coco_url`, below the folder or right in it.

    Raises:
        ValueError: if there is no folder or a picture is not in it.
    """
    if not folder.is_dir():
        raise ValueError(f"images: there is no folder '{folder}'")
    images, files = truth.images, {}
    for image_id in image_ids:
        image = images[image_id]
        name = image.get("file_name") or "/".join(image.get("coco_url", "").split("/")[-2:])
        places = [folder / name, folder / Path(name).name]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise ValueError(f"image {image_id}: there is no file '{places[0]}'")
        files[image_id] = file
    return files


def corners(bbox: Sequence[float], size: tuple[int, int]) -> list[float]:
    """x0, y0, x1, y1 of a box x, y, width, height.

    What lies beyond the picture of (height, width) is cut off, and the box is at least one pixel
    wide and high, so that every detection gets a mask.
    """
    ends = []
    for start, length, limit in zip(bbox[:2], bbox[2:], reversed(size), strict=True):
        low = min(max(start, 0.0), limit - 1.0)
        ends.append((low, max(min(start + length, float(limit)), low + 1)))
    (x0, x1), (y0, y1) = ends
    return [x0, y0, x1, y1]


def segment_boxes(
    predictor: SAM2ImagePredictor,
    picture: NDArray[np.uint8],
    detections: Results,
    *,
    hq_modes: Sequence[HQMode],
    multimask: bool = False,
) -> dict[HQMode, Results]:
    """A mask for every box of one picture, which is encoded once.

    Args:
        predictor: the caller sets autocast.
        picture: uint8 [H, W, 3].
        detections: of this picture.
        hq_modes: how the HQ token is used, one list of results each.
        multimask: of three candidates, that with the highest predicted IoU.
    """
    size = picture.shape[0], picture.shape[1]
    predictor.set_image(picture)
    results: dict[HQMode, Results] = {mode: [] for mode in hq_modes}
    for start in range(0, len(detections), BOXES_AT_ONCE):
        part = detections[start : start + BOXES_AT_ONCE]
        box = np.array([corners(entry["bbox"], size) for entry in part], dtype=np.float32)
        for mode in hq_modes:
            masks, iou, _ = predictor.predict(
                box=box, multimask_output=multimask, hq_mode=mode, keep_prompt_axis=True
            )
            best = iou.argmax(axis=1)
            rows = np.arange(len(part))
            results[mode] += _records(part, masks[rows, best], iou[rows, best])
    return results


def scored(results: Results, kind: ScoreKind) -> Results:
    """Results whose score is the detector's, or that times the predicted IoU."""
    if kind == "detector":
        return results
    return [entry | {"score": entry["score"] * entry["predicted_iou"]} for entry in results]


def _records(
    detections: Results, masks: NDArray[np.bool_], iou: NDArray[np.float32]
) -> Iterator[dict[str, Any]]:
    for entry, rle, quality in zip(
        detections, mask_to_rle_pytorch(torch.from_numpy(masks)), iou.tolist(), strict=True
    ):
        # No box: COCO's tools would take its area for that of the mask.
        yield {
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "segmentation": coco_encode_rle(rle),
            "score": entry["score"],
            "predicted_iou": quality,
        }


def _check_entry(entry: Any, keys: Sequence[str], name: str) -> None:
    """Refuse what lacks a key, or has something else than an id or a size where one is needed."""
    for key in keys:
        if not isinstance(entry, dict) or key not in entry:
            raise ValueError(f"{name} has no {key!r}")
        value = entry[key]
        if key.endswith("id") and not (_is_whole(value) or isinstance(value, str)):
            raise ValueError(f"{name}: {key} must be a whole number or a name, got {value!r}")
        if key in ("height", "width") and not _is_whole(value):
            raise ValueError(f"{name}: {key} must be a whole number, got {value!r}")


def _check_outline(outline: Any, size: tuple[int, int], name: str) -> None:
    """Refuse an outline that is neither polygons nor run lengths of a picture of that size."""
    if not outline:
        raise ValueError(f"{name} has no outline")
    if isinstance(outline, dict):
        try:
            shape = rle_to_mask(cast("RLE", outline)).shape
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if shape != size:
            raise ValueError(f"{name} is {list(shape)}, its picture {list(size)} (height, width)")
        return
    polygons = outline if isinstance(outline, list) else [outline]
    are_points = all(
        isinstance(polygon, list) and all(map(_is_finite, polygon)) and len(polygon) % 2 == 0
        for polygon in polygons
    )
    # pycocotools fills parts of fewer points with nothing, but takes a first one of two for a box.
    if not are_points or len(polygons[0]) < 6:
        raise ValueError(
            f"{name}: segmentation must be run lengths, or polygons of three points or more "
            f"(x, y, x, y, ...), got {outline!r:.60}"
        )


def _check_detection(entry: Any, name: str, image_ids: set[int], categories: set[int]) -> None:
    _check_entry(entry, ("image_id", "category_id", "bbox", "score"), name)
    for key, known in (("image_id", image_ids), ("category_id", categories)):
        if entry[key] not in known:
            raise ValueError(f"{name}: the annotations have no {key} {entry[key]!r}")
    numbers = [*entry["bbox"], entry["score"]] if isinstance(entry["bbox"], list) else []
    if len(numbers) != 5 or not all(_is_finite(value) for value in numbers):
        raise ValueError(
            f"{name}: bbox must be four numbers and score one, "
            f"got {entry['bbox']!r} and {entry['score']!r}"
        )


def _is_whole(value: Any) -> bool:
    return _is_finite(value) and value % 1 == 0


def _is_finite(value: Any) -> bool:
    """Whether it is a number that a float can hold; True and False are none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # not for NaN


def _read_json(name: str, path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"{name} '{path}': no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} '{path}' is no JSON: {error}") from error
