"""`sam2-hq track`: follow objects through a video and write their masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from tqdm import tqdm

from sam2_hq.cli.options import (
    Boxes,
    Checkpoint,
    Config,
    Device,
    DType,
    HQModeOption,
    Masks,
    Overlay,
    Override,
    Overwrite,
    Points,
    PromptsFile,
    model_spec,
)
from sam2_hq.cli.outputs import TrackFolder
from sam2_hq.cli.overlays import write_overlay_video
from sam2_hq.cli.prompt_text import gather_prompts
from sam2_hq.cli.prompts import ObjectPrompt, check_prompts
from sam2_hq.cli.track_job import TrackJob, run_job
from sam2_hq.data.frames import VIDEO_DECODERS, VideoDecoder, VideoFrames, open_frames
from sam2_hq.data.video import MAX_FPS, MIN_FPS

DEFAULT_FPS = 24.0


def track(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of pictures, a video file or an animated gif or webp.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for masks/, overlay.mp4 and tracks.json.",
            show_default=False,
        ),
    ],
    point: Points = None,
    box: Boxes = None,
    mask: Masks = None,
    prompts: PromptsFile = None,
    checkpoint: Checkpoint = None,
    config: Config = None,
    override: Override = None,
    device: Device = None,
    dtype: DType = "float32",
    hq_mode: HQModeOption = None,
    backward: Annotated[
        bool, typer.Option("--backward", help="Track towards frame 0 instead of towards the end.")
    ] = False,
    start: Annotated[
        int | None,
        typer.Option(
            help="First frame tracked, from 0. Default: the first prompted frame; with --backward "
            "the last one.",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        int | None,
        typer.Option(
            help="Frame at which tracking stops; it is not tracked itself. Default: all frames.",
            show_default=False,
        ),
    ] = None,
    decoder: Annotated[
        str,
        typer.Option(
            help="Of video files: pyav, or decord, whose frames for the model are those of the "
            "published predictors."
        ),
    ] = "pyav",
    max_memory: Annotated[
        int | None,
        typer.Option(
            help="Frames whose memory is recalled and kept, beside the prompted ones. Default: "
            "all, or as the config says.",
            show_default=False,
        ),
    ] = None,
    per_object: Annotated[
        bool, typer.Option("--per-object", help="Also write objects/ID/FRAME.png, overlaps kept.")
    ] = False,
    rle: Annotated[
        bool, typer.Option("--rle", help="Also write masks.json with COCO run lengths.")
    ] = False,
    overlay: Overlay = True,
    fps: Annotated[
        float | None,
        typer.Option(
            help=f"Frames a second of the overlay. Default: of the source, else {DEFAULT_FPS:g}.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Follow objects through a video.

    From clicks, boxes or masks on any of its frames, in pixels of the video; frames count from 0.
    Stop it at any time; the same command with --resume goes on.
    """
    choice = model_spec(checkpoint, config, override, device, dtype, hq_mode)
    if fps is not None and not MIN_FPS <= fps <= MAX_FPS:
        raise ValueError(f"--fps must be {MIN_FPS} to {MAX_FPS}, got {fps}")
    if max_memory is not None and max_memory < 1:
        raise ValueError(f"--max-memory must be at least 1, got {max_memory}")
    said = gather_prompts(point, box, mask, prompts)
    if decoder not in VIDEO_DECODERS:
        raise ValueError(f"--decoder must be one of {', '.join(VIDEO_DECODERS)}, got {decoder!r}")
    with open_frames(source, decoder=cast("VideoDecoder", decoder)) as frames:
        check_prompts(said, len(frames), frames.size)
        span = _span(said, len(frames), start, end, backward=backward)
        job = TrackJob(source, frames, said, span, choice, max_memory, decoder)
        folder = TrackFolder(out, per_object=per_object, with_rle=rle)
        request = job.request() | {"per_object": per_object, "rle": rle}
        folder.check(request, resume=resume, overwrite=overwrite)
        if not (resume and folder.is_complete):
            _check_pictures(source, frames, span)
            run_job(job, folder, request, resume=resume)
        if overlay:
            rate = min(max(fps or frames.fps or DEFAULT_FPS, MIN_FPS), MAX_FPS)
            write_overlay_video(frames, sorted(span), folder.masks, folder.overlay, rate)
    typer.echo(f"{len(span)} frames of {len({p.object_id for p in said})} objects in {out}")


def _check_pictures(source: Path, frames: VideoFrames, span: range) -> None:
    """Decode the files of a folder once: a damaged one shall not end a long run in its middle."""
    if source.is_dir():
        for index in tqdm(span, desc="checking", unit="frame", leave=False):
            frames[index]


def _span(
    prompts: list[ObjectPrompt],
    num_frames: int,
    start: int | None,
    end: int | None,
    *,
    backward: bool,
) -> range:
    """The frames to track, in order."""
    prompted = [prompt.frame for prompt in prompts]
    if start is None:
        start = max(prompted) if backward else min(prompted)
    if not 0 <= start < num_frames:
        raise ValueError(f"--start must be 0 to {num_frames - 1}, got {start}")
    if end is None:
        return range(start, -1, -1) if backward else range(start, num_frames)
    lowest, highest = (0, start - 1) if backward else (start + 1, num_frames)
    if not lowest <= end <= highest:
        raise ValueError(
            f"--end must be {lowest} to {highest} when tracking starts at {start}, got {end}"
        )
    return range(start, end, -1 if backward else 1)
