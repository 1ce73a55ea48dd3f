"""Growth of memory with the length of a video: a stream through the model, and the reader alone.

    python benchmarks/memory.py --out memory.json

The stream is the nano HQ model with random weights and one object; the reader takes 1080p frames of
an H.264 file made here. Resident memory is read every few frames; the slope is that of the least
squares line over the second half, when all that is bounded has reached its bound.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_hq.build_sam import build_sam2_hq_video_predictor
from sam2_hq.data.frames import PrefetchedFrames, VideoFrames, open_frames
from sam2_hq.data.video import VideoWriter

CONFIG = "configs/sam2.1/sam2.1_hq_hiera_n.yaml"
FULL_HD = (1080, 1920)
STEP = 10  # frames between two readings


def resident_mib() -> float:
    """Memory of this process that is in RAM (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def noise_frames(size: tuple[int, int], count: int) -> Iterator[NDArray[np.uint8]]:
    """Frames that differ, [H, W, 3]."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for number in range(count):
        yield np.roll(base, 4 * number, axis=1)


def stream_steps(side: int, num_frames: int) -> Iterator[None]:
    """Track one object through a stream, a frame at a time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    overrides = [f"++model.image_size={side}"]
    model = build_sam2_hq_video_predictor(CONFIG, device="cpu", hydra_overrides_extra=overrides)
    stream = model.open_stream()
    for number, frame in enumerate(noise_frames((270, 480), num_frames)):
        stream.step(frame)
        if number == 0:
            stream.add_new_points_or_box("object", points=[[240, 135]], labels=[1])
        yield


def reader_steps(path: Path) -> Iterator[None]:
    """Read a file ahead, as a session does."""
    with open_frames(path) as frames, PrefetchedFrames(frames, VideoFrames.__getitem__) as images:
        for number in range(len(frames)):
            images.get(number)
            yield


def write_video(path: Path, num_frames: int) -> None:
    """Make the file that is read."""
    with VideoWriter(path, 25, FULL_HD) as writer:
        for frame in noise_frames((FULL_HD[0] // 8, FULL_HD[1] // 8), num_frames):
            writer.write(frame.repeat(8, axis=0).repeat(8, axis=1))


def growth(steps: Callable[..., Iterator[None]], *options: Any) -> dict[str, Any]:
    """Run the steps; resident memory at the end of each half and its slope over the second."""
    readings = []
    for number, _ in enumerate(steps(*options)):
        if number % STEP == 0:
            gc.collect()
            readings.append((number, resident_mib()))
    half = readings[len(readings) // 2 :]
    frames, mib = zip(*half, strict=True)
    slope = float(np.polyfit(frames, mib, 1)[0])
    return {
        "frames": readings[-1][0] + STEP,
        "mib_half_way": half[0][1],
        "mib_at_the_end": half[-1][1],
        "largest_mib": max(value for _, value in readings),
        "mib_per_100_frames": 100 * slope,
    }


def in_own_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call a function where nothing else has used memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def main() -> None:
    """Measure both; print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600, help="length of stream and file")
    parser.add_argument("--side", type=int, default=256, help="model pixels of the stream")
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    options = parser.parse_args()
    alone = partial(in_own_process, growth)
    report = {"stream": alone(stream_steps, options.side, options.frames)}
    with tempfile.TemporaryDirectory() as folder:
        for count in (options.frames // 3, options.frames):
            path = Path(folder) / f"{count}.mp4"
            write_video(path, count)
            report[f"reader_{count}"] = alone(reader_steps, path)
    text = json.dumps(report, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
