"""Run a recorded case through the public API and compare it with its recording."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sam2_hq import build_sam
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from tests.parity import inputs, weights

HERE = Path(__file__).parent
ABSENT_BELOW = -1000.0  # logits of an absent object are -1024 everywhere
BUILDERS = {
    "image": build_sam.build_sam2,
    "video": build_sam.build_sam2_video_predictor,
    "hq_video": build_sam.build_sam2_hq_video_predictor,
}

Arrays = dict[str, np.ndarray]


def manifests() -> dict[str, dict[str, list[int]]]:
    """Parameter names and shapes of the published models, by config name."""
    return json.loads(gzip.decompress((HERE / "state_dicts.json.gz").read_bytes()))


def build(kind: str, spec: dict[str, Any], folder: Path) -> Any:
    """The model of a case, its weights read from a checkpoint file as a user's would be."""
    name = Path(spec["config"]).stem
    bias = spec.get("object_bias", weights.PRESENT)
    path = folder / f"{name}_{spec['seed']}_{bias}.pt"
    if not path.exists():
        state = weights.make_state_dict(manifests()[name], spec["seed"], bias)
        torch.save({"model": state}, path)
    overrides = list(spec.get("overrides", []))
    return BUILDERS[kind](
        spec["config"],
        path,
        device="cpu",
        apply_postprocessing=False,
        hydra_overrides_extra=overrides,
    )


def write_clip(folder: Path, clip: tuple[int, int, int, int]) -> Path:
    """Lossless frames under names the published loader accepts."""
    folder.mkdir(exist_ok=True)
    for t, picture in enumerate(inputs.clip(*clip)):
        with open(folder / f"{t:05d}.jpg", "wb") as file:
            Image.fromarray(picture).save(file, format="PNG")
    return folder


def run_image(case: dict[str, Any], folder: Path) -> Arrays:
    """All calls of an image case."""
    predictor = SAM2ImagePredictor(build("image", case["model"], folder))
    pictures = [inputs.frame(*spec) for spec in case["images"]]
    is_batch = case.get("batch", False)
    if is_batch:
        predictor.set_image_batch(pictures)
    else:
        predictor.set_image(pictures[0])
    out: Arrays = {}
    low_res: dict[str, np.ndarray] = {}
    for name, arguments in case["calls"]:
        arguments = dict(arguments, return_logits=True)
        source = arguments.pop("mask_from", None)
        if source is not None:
            arguments["mask_input"] = low_res[source][:1]
        if is_batch:
            results = list(zip(*predictor.predict_batch(**arguments), strict=True))
        else:
            results = [predictor.predict(**arguments)]
        for i, (full, iou, low) in enumerate(results):
            key = f"{name}/image{i}" if is_batch else name
            low_res[key] = low.reshape(-1, *low.shape[-2:])
            _store(out, f"{key}/full", full, case.get("full_stride", 8))
            _store(out, f"{key}/low", low, case.get("low_stride", 2))
            out[f"{key}/iou"] = iou
    return out


def run_video(case: dict[str, Any], folder: Path) -> Arrays:
    """All steps of a video case."""
    predictor = build(case["kind"], case["model"], folder)
    _, height, width, _ = case["clip"]
    state = predictor.init_state(str(write_clip(folder / "clip", case["clip"])))
    out: Arrays = {}
    for index, step in enumerate(case["steps"]):
        step = dict(step)
        kind = step.pop("do")
        if kind == "propagate":
            got = list(predictor.propagate_in_video(state, **step))
        elif kind == "mask":
            shape, t, seed = step.pop("mask")
            draw = {"disc": inputs.disc_mask, "box": inputs.box_mask}[shape]
            got = [predictor.add_new_mask(state, mask=draw(height, width, t, seed), **step)]
        else:
            got = [predictor.add_new_points_or_box(state, **step)]
        key = f"{index}_{kind}"
        out[f"{key}/frames"] = np.asarray([frame for frame, _, _ in got], dtype=np.int32)
        out[f"{key}/objects"] = np.asarray(got[0][1], dtype=np.int32)
        logits = np.stack([masks[:, 0].numpy() for _, _, masks in got])
        _store(out, key, logits, case.get("stride", 3))
    return out


def _store(out: Arrays, key: str, logits: np.ndarray, stride: int) -> None:
    start = stride // 2
    out[f"{key}/logits"] = logits[..., start::stride, start::stride]
    flat = (logits > 0).reshape(*logits.shape[:-2], -1)
    out[f"{key}/bits"] = np.packbits(flat, axis=-1)


def recorded(name: str, case: dict[str, Any]) -> Arrays:
    """The recording of a case, without its internals."""
    with np.load(HERE / f"{case['file']}.npz") as file:
        keys = [k for k in file.files if k.startswith(f"{name}/") and "/debug/" not in k]
        return {k.removeprefix(f"{name}/"): file[k] for k in keys}


def differences(got: Arrays, want: Arrays, tolerance: dict[str, float]) -> list[str]:
    """Every array that is out of tolerance, in words."""
    wrong = [f"{key}: missing" for key in sorted(set(want) - set(got))]
    for key in sorted(set(want) & set(got)):
        for error, limit, what in _errors(key, got[key], want[key], tolerance):
            if not error <= limit:
                wrong.append(f"{key}: {error:.3g} > {limit:.3g} ({what})")
    return wrong


def _errors(
    key: str, got: np.ndarray, want: np.ndarray, tolerance: dict[str, float]
) -> list[tuple[float, float, str]]:
    if got.shape != want.shape:
        return [(np.inf, 0.0, f"shape {got.shape} instead of {want.shape}")]
    if key.endswith("/bits"):
        share = np.unpackbits(got ^ want, axis=-1).mean(axis=-1).max()
        return [(float(share), tolerance["bits"], "share of differing pixels")]
    if want.dtype.kind in "iu":
        return [(0.0 if np.array_equal(got, want) else np.inf, 0.0, "equal")]
    if key.endswith("/iou"):
        return [(float(np.abs(got - want).max()), tolerance["iou"], "difference")]
    return _mask_errors(got, want, tolerance)


def _mask_errors(
    got: np.ndarray, want: np.ndarray, tolerance: dict[str, float]
) -> list[tuple[float, float, str]]:
    """The worst single mask counts, relative to its own magnitude."""
    errors = []
    size = want.shape[-1] * want.shape[-2]
    for one, reference in zip(got.reshape(-1, size), want.reshape(-1, size), strict=True):
        is_absent = bool((reference < ABSENT_BELOW).all())
        if is_absent != bool((one < ABSENT_BELOW).all()):
            errors.append((np.inf, 0.0, "presence"))
        if is_absent:
            continue
        error, magnitude = np.abs(one - reference), np.abs(reference)
        errors.append((error.max() / magnitude.max(), tolerance["max"], "max"))
        errors.append((error.mean() / magnitude.mean(), tolerance["mean"], "mean"))
    return errors
