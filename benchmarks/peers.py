"""Time of a tracked frame beside `transformers`' SAM 2 video model, on the same weights.

    python benchmarks/peers.py --objects 1 3 --out peers.json

Tiny SAM 2.1 at 1024 pixels with random weights, one thread of a CPU. Both see the same frames, turn
by turn in one process, from the first on; frames count once the memory is full. Ours also resizes
the masks to video pixels. Process CPU time decides: neighbours on a machine disturb wall time.
Needs transformers beside the package.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoInferenceSession,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
)
from transformers_names import to_transformers

from sam2_hq.build_sam import build_sam2_video_predictor
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.transforms import normalize_frame

SIDE = 1024
FULL_MEMORY = 7  # the first frame with 7 memories: the prompted one and 6 more
CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
OVERRIDES = ["++model.fill_hole_area=0"]  # the other model does not fill holes


class Turn(NamedTuple):
    """One frame of one model: seconds, and mask logits [O, 1, S / 4, S / 4]."""

    cpu: float
    wall: float
    logits: Tensor


def frames(count: int) -> NDArray[np.uint8]:
    """[count, S, S, 3]: noise under a bright disc that moves."""
    rng = np.random.default_rng(0)
    background = rng.integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    video = np.repeat(background[None], count, axis=0)
    for i, frame in enumerate(video):
        frame[(x - 400 - 12 * i) ** 2 + (y - 500) ** 2 < 120**2] = (230, 180, 60)
    return video


def clicks(num_objects: int) -> list[tuple[float, float]]:
    """One x, y in model pixels an object."""
    return [(400.0 + 60 * i, 500.0 + 40 * i) for i in range(num_objects)]


def random_model() -> SAM2VideoPredictor:
    """Our model with random weights under which objects are present and masks are not flat."""
    torch.manual_seed(0)
    model = build_sam2_video_predictor(CONFIG, device="cpu", hydra_overrides_extra=OVERRIDES)
    weights = model.state_dict()
    for name, value in weights.items():
        if value.ndim > 1 and not value.any():
            weights[name] = 0.02 * torch.randn_like(value)
    weights["sam_mask_decoder.pred_obj_score_head.layers.2.bias"].fill_(10.0)
    model.load_state_dict(weights)
    model.prepare()
    return model


def their_model(ours: SAM2VideoPredictor) -> Sam2VideoModel:
    """The same weights in the other house."""
    config = Sam2VideoConfig(
        enable_temporal_pos_encoding_for_object_pointers=True,
        enable_occlusion_spatial_embedding=True,
    )
    model = Sam2VideoModel(config)
    model.load_state_dict(to_transformers(ours.state_dict()), strict=True)
    return model.eval()


def our_turns(model: SAM2VideoPredictor, video: NDArray[np.uint8], objects: int) -> Iterator[Any]:
    """Yield once a frame."""
    state = model.init_state(video)
    for i, point in enumerate(clicks(objects)):
        model.add_new_points_or_box(state, 0, i, points=[point], labels=[1])
    for frame in model.propagate_in_video(state):
        yield frame.masks


def their_turns(model: Sam2VideoModel, video: NDArray[np.uint8], objects: int) -> Iterator[Tensor]:
    """Yield once a frame."""
    cpu = torch.device("cpu")
    pixels = torch.cat([normalize_frame(frame, cpu) for frame in video])
    session = Sam2VideoInferenceSession(
        video=pixels, video_height=SIDE, video_width=SIDE, dtype=torch.float32
    )
    processor = Sam2VideoProcessor(Sam2ImageProcessor(), Sam2VideoVideoProcessor())
    points = [[[list(point)] for point in clicks(objects)]]
    processor.add_inputs_to_inference_session(
        session,
        frame_idx=0,
        obj_ids=list(range(objects)),
        input_points=points,
        input_labels=[[[1]] * objects],
    )
    for frame in range(len(video)):
        yield model(inference_session=session, frame_idx=frame).pred_masks


def timed(turns: Iterator[Tensor]) -> Turn:
    """Run one turn."""
    wall, cpu = time.perf_counter(), time.process_time()
    masks = next(turns)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if masks.shape[-1] != SIDE:
        masks = F.interpolate(masks.flatten(0, -3)[:, None], (SIDE, SIDE), mode="bilinear")
    return Turn(cpu, wall, masks)


def compare(
    ours: SAM2VideoPredictor, theirs: Sam2VideoModel, objects: int, repeats: int
) -> dict[str, Any]:
    """Track the same video in turn; figures of the frames with a full memory."""
    video = frames(FULL_MEMORY + repeats)
    runs: tuple[list[Turn], list[Turn]] = ([], [])
    sides = (our_turns(ours, video, objects), their_turns(theirs, video, objects))
    for number in range(len(video)):
        for run, turns in zip(runs, sides, strict=True):
            run.append(timed(turns))
        a, b = (run[-1] for run in runs)
        print(f"objects {objects} frame {number:2d}: {a.cpu:6.2f} s, theirs {b.cpu:6.2f} s CPU")
    return {"objects": objects, **_figures(*runs)}


def _figures(ours: list[Turn], theirs: list[Turn]) -> dict[str, Any]:
    pairs = list(zip(ours, theirs, strict=True))
    spread = max(float(b.logits.abs().max()) for b in theirs)
    result: dict[str, Any] = {
        "largest_logit": spread,
        "largest_difference": max(float((a.logits - b.logits).abs().max()) for a, b in pairs),
        "pixels_that_differ": max(_disagreement(a.logits, b.logits) for a, b in pairs),
    }
    a, b = ours[FULL_MEMORY:], theirs[FULL_MEMORY:]
    for clock in ("cpu", "wall"):
        seconds = [[getattr(turn, clock) for turn in turns] for turns in (a, b)]
        for name, reduce in _REDUCTIONS.items():
            ours_s, theirs_s = (reduce(values) for values in seconds)
            result[f"{clock}_{name}_seconds"] = {"ours": ours_s, "transformers": theirs_s}
            result[f"{clock}_{name}_speedup"] = theirs_s / ours_s
    return result


_REDUCTIONS: dict[str, Callable[[list[float]], float]] = {"min": min, "median": median}


def _disagreement(a: Tensor, b: Tensor) -> float:
    return float(((a > 0) != (b > 0)).float().mean())


def main() -> None:
    """Compare for each number of objects; print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--repeats", type=int, default=5, help="frames timed with a full memory")
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        ours = random_model()
        theirs = their_model(ours)
        results = [compare(ours, theirs, n, options.repeats) for n in options.objects]
    report = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "frames": options.repeats,
        "results": results,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
