"""IoU from boxes and clicks on photos, and boundary IoU of HQ and SAM masks on thin structures."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from sam2_hq.data.masks import BoolMask
from sam2_hq.evaluation.clicks import box_around, box_prompt
from sam2_hq.evaluation.interactive import click_segmenter, iou_after_clicks
from sam2_hq.evaluation.intervals import bootstrap_interval
from sam2_hq.evaluation.metrics import jaccard
from sam2_hq.evaluation.still_scores import StillScore, score_picture
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.structures import HQMode

CANVAS = (384, 512)  # height and width of a composite
PROMPTS = ["box", "1 click", "2 clicks", "3 clicks"]
NUM_CLICKS = len(PROMPTS) - 1
SMALLEST = 0.001  # of the picture: a smaller region is not worth a click


def measure_photos(
    predictor: SAM2ImagePredictor, pack: Path, modes: list[str], limit: int | None
) -> dict[str, Any]:
    """IoU from the box and after each of three clicks, the predictor's best guess each time.

    Means are over all masks. HQ less SAM comes with a 95 % bootstrap interval; a photo is one item
    of it, and weighs what it has masks.
    """
    tables: dict[str, list[Any]] = {mode: [] for mode in modes}  # a photo each, [masks, prompts]
    for image, masks in tqdm(photos(pack, limit), desc="photos", unit="photo"):
        if not masks:
            continue
        predictor.set_image(image)
        for mode in modes:
            tables[mode].append(np.array([score_prompts(predictor, mask, mode) for mask in masks]))
    if not tables[modes[0]]:
        raise ValueError(f"photos: no mask in '{pack}' has {SMALLEST:.1%} of its picture")
    report: dict[str, Any] = {}
    for mode in modes:
        means = np.concatenate(tables[mode]).mean(axis=0).tolist()
        report[f"hq {mode}"] = dict(zip(PROMPTS, means, strict=True))
    counts = [len(table) for table in tables[modes[0]]]
    for mode in compared(modes):
        gains = np.array(
            [(hq - sam).mean(axis=0) for hq, sam in zip(tables[mode], tables["off"], strict=True)]
        )
        report[f"{mode} minus off"] = {
            prompt: bootstrap_interval(gain, weights=counts)._asdict()
            for prompt, gain in zip(PROMPTS, gains.T, strict=True)
        }
    return report | {"photos": len(counts), "masks": sum(counts)}


def score_prompts(predictor: SAM2ImagePredictor, truth: BoolMask, mode: HQMode) -> list[float]:
    """IoU of one mask of the picture that is set, by `PROMPTS`."""
    masks, _, _ = predictor.predict(box=box_prompt(truth), multimask_output=False, hq_mode=mode)
    segment = click_segmenter(predictor, mode)
    return [jaccard(masks[0], truth), *iou_after_clicks(segment, truth, NUM_CLICKS)]


def compared(modes: list[str]) -> list[str]:
    """The modes that stand against plain SAM."""
    return [mode for mode in modes if mode != "off" and "off" in modes]


def measure_thin_structures(
    predictor: SAM2ImagePredictor,
    cutouts: Path,
    backgrounds: Path | None,
    modes: list[str],
    times: int,
) -> dict[str, Any]:
    """IoU and boundary IoU from the box, and HQ less SAM with a 95 % bootstrap interval.

    A cut-out is one item of the bootstrap, the mean of its composites.
    """
    rows: dict[str, list[list[StillScore]]] = {mode: [] for mode in modes}
    for pictures in tqdm(composites(cutouts, backgrounds, times), desc="thin structures"):
        measured = [
            score_picture(predictor, image, truth, box_around(truth), modes)  # type: ignore[arg-type]
            for image, truth in pictures
        ]
        for mode in modes:
            rows[mode].append([scores[mode] for scores in measured])
    per_item = {mode: np.mean(values, axis=1) for mode, values in rows.items()}
    report: dict[str, Any] = {
        f"hq {mode}": dict(zip(("IoU", "boundary IoU"), values.mean(axis=0).tolist(), strict=True))
        for mode, values in per_item.items()
    }
    for mode in compared(modes):
        gain = per_item[mode] - per_item["off"]
        report[f"{mode} minus off"] = {
            "IoU": bootstrap_interval(gain[:, 0])._asdict(),
            "boundary IoU": bootstrap_interval(gain[:, 1])._asdict(),
        }
    return report | {"cut-outs": len(per_item[modes[0]]), "composites a cut-out": times}


def photos(pack: Path, limit: int | None) -> Iterator[tuple[Any, list[Any]]]:
    """Photos as uint8 [H, W, 3] with their masks that are large enough to be clicked."""
    with zipfile.ZipFile(pack) as archive:
        for entry in index_of(archive)[:limit]:
            labels = np.asarray(opened(archive, entry["mask"]))
            masks = [labels == item["id"] for item in entry["objects"]]
            image = np.asarray(opened(archive, entry["img"]).convert("RGB"))
            yield image, [mask for mask in masks if mask.mean() >= SMALLEST]


def composites(
    cutouts: Path, backgrounds: Path | None, times: int
) -> Iterator[list[tuple[Any, Any]]]:
    """For each cut-out, pictures of it at some place on some ground, and its mask at alpha >= 0.5.

    The same at each run. Without backgrounds the ground is smooth noise.
    """
    rng = np.random.default_rng(0)
    grounds = ground_names(backgrounds)
    with zipfile.ZipFile(cutouts) as archive:
        for entry in index_of(archive):
            cutout = opened(archive, entry["rgba"]).convert("RGBA")
            pictures = []
            for _ in range(times):
                name = grounds[rng.integers(len(grounds))] if grounds else None
                ground = read_ground(backgrounds, name, rng)
                pictures.append(paste(cutout, ground, rng))
            yield pictures


def paste(cutout: Image.Image, ground: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """Blend a cut-out into the ground at 40 to 85 % of what fits, at any place."""
    share = rng.uniform(0.4, 0.85)
    fit = min(CANVAS[0] / cutout.height, CANVAS[1] / cutout.width)
    size = [max(1, round(side * fit * share)) for side in cutout.size]
    pixels = np.asarray(cutout.resize((size[0], size[1]), Image.Resampling.LANCZOS), np.float32)
    y = rng.integers(0, CANVAS[0] - size[1] + 1)
    x = rng.integers(0, CANVAS[1] - size[0] + 1)
    alpha = np.zeros((*CANVAS, 1), np.float32)
    colour = np.zeros((*CANVAS, 3), np.float32)
    alpha[y : y + size[1], x : x + size[0]] = pixels[..., 3:] / 255
    colour[y : y + size[1], x : x + size[0]] = pixels[..., :3]
    image = np.clip(alpha * colour + (1 - alpha) * ground, 0, 255).astype(np.uint8)
    return image, alpha[..., 0] >= 0.5


def ground_names(backgrounds: Path | None) -> list[str]:
    """Pictures of a pack that a cut-out can be pasted on."""
    if backgrounds is None:
        return []
    with zipfile.ZipFile(backgrounds) as archive:
        return [entry.get("bg") or entry["img"] for entry in index_of(archive)]


def read_ground(backgrounds: Path | None, name: str | None, rng: np.random.Generator) -> Any:
    """Float [H, W, 3] of the canvas."""
    size = (CANVAS[1], CANVAS[0])
    if backgrounds is None or name is None:
        noise = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        return np.asarray(noise.resize(size, Image.Resampling.BICUBIC), np.float32)
    with zipfile.ZipFile(backgrounds) as archive:
        image = opened(archive, name).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def index_of(archive: zipfile.ZipFile) -> list[dict[str, Any]]:
    """The entries of a pack."""
    return [json.loads(line) for line in archive.read("index.jsonl").splitlines() if line.strip()]


def opened(archive: zipfile.ZipFile, name: str) -> Image.Image:
    """A picture inside a pack."""
    return Image.open(io.BytesIO(archive.read(name)))
