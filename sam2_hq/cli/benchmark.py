"""`sam2-hq benchmark`: how fast a model is on this machine."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any  # Any: JSON values

import torch
import typer

from sam2_hq.benchmark.clock import Clock
from sam2_hq.benchmark.environment import describe_environment
from sam2_hq.benchmark.image_speed import time_image
from sam2_hq.benchmark.plan import Plan
from sam2_hq.benchmark.report import facts, table
from sam2_hq.benchmark.scene import clip
from sam2_hq.benchmark.video_speed import HeldVideo, time_video
from sam2_hq.build_sam import DEFAULT_WEIGHTS
from sam2_hq.cli.files import check_free
from sam2_hq.cli.options import (
    Checkpoint,
    Config,
    Device,
    DType,
    HQModeOption,
    Override,
    Overwrite,
    model_spec,
)
from sam2_hq.data.atomic import write_json
from sam2_hq.data.frames import VideoFrames, open_frames
from sam2_hq.model_spec import ModelSpec
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor

PATHS = {"video": ("video",), "image": ("image",), "both": ("video", "image")}


def benchmark(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="A folder of pictures or a video. Default: discs that drift over noise.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    config: Config = None,
    override: Override = None,
    device: Device = None,
    dtype: DType = "float32",
    hq_mode: HQModeOption = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile",
            help="Run the network through torch.compile; raise --warm-up-passes if the first "
            "counted pass is slow.",
        ),
    ] = False,
    path: Annotated[str, typer.Option(help="What is timed: video, image or both.")] = "both",
    objects: Annotated[
        list[int] | None,
        typer.Option(help="Objects tracked, and boxes on a picture. Repeatable. Default: 1."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the square that the model sees, in pixels. Default: of the config.",
            show_default=False,
        ),
    ] = None,
    frame_size: Annotated[
        str, typer.Option(help="HEIGHTxWIDTH in pixels of the frames when there is no SOURCE.")
    ] = "480x854",
    warm_up: Annotated[
        int, typer.Option(help="Frames of a pass, or pictures, before the first that counts.")
    ] = Plan.warm_up,
    repeats: Annotated[
        int, typer.Option(help="Frames of a pass, or pictures, that count.")
    ] = Plan.repeats,
    passes: Annotated[int, typer.Option(help="Video sessions that count.")] = Plan.passes,
    warm_up_passes: Annotated[
        int, typer.Option(help="Video sessions before them.")
    ] = Plan.warm_up_passes,
    by_verb: Annotated[
        bool,
        typer.Option("--by-verb", help="Also say how a tracked frame's time is shared; a pass."),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(help="Of the CPU. Default: as torch chooses.", min=1, show_default=False),
    ] = None,
    cpu_time: Annotated[
        bool,
        typer.Option("--cpu-time", help="Count CPU time instead of wall time; for a busy machine."),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures here.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Time pictures and tracked frames: warm up, then median, quartiles and repeats a second."""
    if path not in PATHS:
        raise ValueError(f"--path must be one of {', '.join(PATHS)}, got {path!r}")
    if json_file is not None:
        check_free(json_file, overwrite=overwrite)
    sized = [f"++model.image_size={image_size}"] if image_size is not None else []
    choice = model_spec(checkpoint, config, [*sized, *(override or [])], device, dtype, hq_mode)
    counts = objects or [1]
    plans = [Plan(count, warm_up, repeats, passes, warm_up_passes) for count in counts]
    if threads is not None:
        torch.set_num_threads(threads)
    with _open_source(source, plans[0], frame_size, max(counts)) as frames:
        predictor = replace(choice, compiled=compiled).open()
        clock = Clock(predictor.device, cpu_time=cpu_time)
        height, width = frames.size
        report: dict[str, Any] = {
            "environment": describe_environment(predictor.device),
            "model": _describe_model(predictor, choice) | {"compiled": compiled},
            "source": {"name": str(source or "synthetic"), "height": height, "width": width},
            "clock": "cpu" if cpu_time else "wall",
        }
        typer.echo(facts(report["environment"] | report["model"] | {"frames": f"{height}x{width}"}))
        with choice.running_on(predictor.device):
            if "video" in PATHS[path]:
                report["video"] = _video(predictor, frames, plans, clock, by_verb)
            if "image" in PATHS[path]:
                report["image"] = _image(predictor, frames, plans, clock)
    if json_file is not None:
        write_json(json_file, report)


def _video(
    predictor: SAM2VideoPredictor,
    frames: VideoFrames,
    plans: list[Plan],
    clock: Clock,
    by_verb: bool,
) -> dict[str, Any]:
    video = HeldVideo(frames, plans[0].num_frames, predictor.image_size, clock)
    speeds = [time_video(predictor, video, plan, clock, by_verb=by_verb) for plan in plans]
    typer.echo("\n" + table("video", speeds, video.reading))
    return {
        "plan": {name: getattr(plans[0], name) for name in _PLANNED},
        "read": video.reading.to_json(),
        "speeds": [speed.to_json() for speed in speeds],
    }


_PLANNED = ("warm_up", "repeats", "passes", "warm_up_passes")


def _image(
    predictor: SAM2VideoPredictor, frames: VideoFrames, plans: list[Plan], clock: Clock
) -> dict[str, Any]:
    image_predictor = SAM2ImagePredictor(predictor)
    speeds = [time_image(image_predictor, frames[0], plan, clock) for plan in plans]
    typer.echo("\n" + table("image", speeds))
    return {
        "plan": {name: getattr(plans[0], name) for name in _PLANNED[:2]},
        "speeds": [speed.to_json() for speed in speeds],
    }


def _open_source(source: Path | None, plan: Plan, frame_size: str, objects: int) -> VideoFrames:
    if source is not None:
        return open_frames(source)
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", frame_size)
    if match is None:
        raise ValueError(f"--frame-size must be HEIGHTxWIDTH such as 480x854, got {frame_size!r}")
    return open_frames(clip(plan.num_frames, (int(match[1]), int(match[2])), objects))


def _describe_model(predictor: SAM2VideoPredictor, choice: ModelSpec) -> dict[str, Any]:
    return {
        "checkpoint": choice.checkpoint or DEFAULT_WEIGHTS.name,
        "config": choice.config,
        "overrides": list(choice.overrides),
        "parameters": sum(p.numel() for p in predictor.parameters()),
        "image_size": predictor.image_size,
        "hq_mode": predictor.hq_mode,
        "dtype": choice.dtype,
    }
