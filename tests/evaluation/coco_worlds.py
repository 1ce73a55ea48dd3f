"""Small annotated pictures in the formats of COCO and LVIS, with detections that err."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sam2_hq.ops.rle import RLE, coco_encode_rle, mask_to_rle_pytorch

SIZE = (40, 56)
Mask = np.ndarray[Any, Any]


def rle(mask: Mask) -> RLE:
    return coco_encode_rle(mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0])


def disc(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> tuple[float, float, float]:
    return rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(2, 14)


def painted(y: float, x: float, radius: float, size: tuple[int, int] = SIZE) -> Mask:
    rows, columns = np.ogrid[: size[0], : size[1]]
    mask = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    mask[min(int(y), size[0] - 1), min(int(x), size[1] - 1)] = True
    return mask


def world(
    seed: int, *, num_images: int = 4, num_categories: int = 3, crowds: bool = True
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations and results: objects found well, badly, twice, not at all, or as another kind.

    Scores have one digit, so that many are equal.
    """
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id in range(10, 10 + num_images):
        for _ in range(rng.integers(0, 5)):
            y, x, radius = disc(rng)
            category = int(rng.integers(1, num_categories + 1))
            mask = painted(y, x, radius)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "segmentation": rle(mask),
                    "area": int(mask.sum()),
                    "iscrowd": int(crowds and rng.random() < 0.15),
                    "bbox": [0, 0, 1, 1],
                }
            )
            for _ in range(rng.integers(0, 3)):
                shift = rng.normal(0, rng.choice([0.3, 3]), 3)
                found = painted(y + shift[0], x + shift[1], max(1.0, radius + shift[2]))
                is_kind = rng.random() < 0.8
                kind = category if is_kind else int(rng.integers(1, num_categories + 1))
                results.append(result(rng, image_id, kind, found))
        for _ in range(rng.integers(0, 3)):
            stray = painted(*disc(rng))
            results.append(result(rng, image_id, int(rng.integers(1, num_categories + 1)), stray))
    tree = {
        "images": [
            {"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(10, 10 + num_images)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"kind {i}"} for i in range(1, num_categories + 1)],
    }
    return tree, results


def result(rng: np.random.Generator, image_id: int, category: int, mask: Mask) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "category_id": category,
        "segmentation": rle(mask),
        "score": float(rng.integers(0, 10)) / 10,
    }


def federated(tree: dict[str, Any], seed: int) -> dict[str, Any]:
    """As LVIS: categories looked for and not found, or not all found, and how common they are."""
    rng = np.random.default_rng(seed)
    kinds = [category["id"] for category in tree["categories"]]
    images = []
    for image in tree["images"]:
        there = {a["category_id"] for a in tree["annotations"] if a["image_id"] == image["id"]}
        negative = [k for k in kinds if k not in there and rng.random() < 0.5]
        partial = [k for k in there if rng.random() < 0.4]
        images.append(
            {**image, "neg_category_ids": negative, "not_exhaustive_category_ids": partial}
        )
    categories = [
        {**category, "frequency": "rcf"[category["id"] % 3]} for category in tree["categories"]
    ]
    without_crowds = [
        {k: v for k, v in entry.items() if k != "iscrowd"} for entry in tree["annotations"]
    ]
    return {**tree, "images": images, "categories": categories, "annotations": without_crowds}
