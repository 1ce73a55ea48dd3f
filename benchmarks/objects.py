"""Time of a tracked frame by the number of objects: tiny HQ-SAM 2 at 1024 pixels, memory full.

    python benchmarks/objects.py --objects 1 3 8 --out objects.json

Random weights, one thread of a CPU. The objects share one history: what a frame costs depends on
how much is remembered, not on what.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from statistics import median

import numpy as np
import torch

from sam2_hq.benchmark.clock import Clock
from sam2_hq.build_sam import build_sam2_hq_video_predictor
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.tracking.state import FeatureCache, VideoState

SIDE = 1024
FULL_MEMORY = 7  # the first frame with 7 memories: the prompted one and 6 more
CONFIG = "configs/sam2.1/sam2.1_hq_hiera_t.yaml"


def full_session(model: SAM2VideoPredictor, num_frames: int) -> VideoState:
    """One object, tracked until its memory is full."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (num_frames, SIDE, SIDE, 3), dtype=np.uint8)
    state = model.init_state(video)
    model.add_new_points_or_box(state, 0, 0, points=[[512, 512]], labels=[1])
    for _ in model.propagate_in_video(state, num_frames=FULL_MEMORY):
        pass
    return state


def seconds_a_frame(
    model: SAM2VideoPredictor, state: VideoState, objects: int, repeats: int
) -> list[float]:
    """CPU seconds of the frames after the history, with `objects` copies of its object."""
    history = state.tracks[0]
    state.tracks.clear()
    state.features = FeatureCache(1)  # every measurement encodes its frames
    for i in range(objects):
        state.tracks[i] = copy.deepcopy(history)
    frames = model.propagate_in_video(state, start_frame_idx=FULL_MEMORY, num_frames=repeats)
    seconds = Clock(cpu_time=True).laps(frames)
    print(f"objects {objects}:", *(f"{s:6.2f}" for s in seconds), "s CPU", flush=True)
    state.tracks.clear()
    state.tracks[0] = history
    return seconds


def main() -> None:
    """Measure each number of objects; print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3, 8])
    parser.add_argument("--repeats", type=int, default=3, help="frames timed, one after another")
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_sam2_hq_video_predictor(CONFIG, device="cpu")
    with torch.inference_mode():
        state = full_session(model, FULL_MEMORY + options.repeats)
        results = {n: seconds_a_frame(model, state, n, options.repeats) for n in options.objects}
    report = {
        "torch": torch.__version__,
        "cpu_seconds_a_frame": {
            n: {"min": min(values), "median": median(values)} for n, values in results.items()
        },
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
