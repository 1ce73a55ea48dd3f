"""How good and fast a small checkpoint is: the table of the model card, as JSON.

    python benchmarks/nano.py --clips CLIPS --photos photos.zip --cutouts cutouts.zip \
        --checkpoint WEIGHTS --json OUT.json

CLIPS has the folders of DAVIS: `JPEGImages/480p`, `Annotations/480p`. The packs are zip files with
an `index.jsonl`: photos name `img`, `mask` and `objects`; cut-outs name `rgba`. Every part is left
out whose data is not given.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from nano_baselines import BASELINES
from nano_stills import measure_photos, measure_thin_structures
from nano_videos import measure_baseline, measure_speed, measure_tracking, open_clips

from sam2_hq.build_sam import load
from sam2_hq.data.atomic import whole_file
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor


def main() -> None:
    """Measure what data is given for, print the table, write the JSON."""
    options = parse()
    torch.set_num_threads(options.threads)
    predictor = load(options.checkpoint, config=options.config, device=options.device)
    if options.one_look:
        predictor.zoom_in = None
    if options.as_decoded:
        predictor.options = replace(predictor.options, edge_reach=None, appearance_weight=0.0)
    modes = options.hq_modes or (["off", "correct", "auto"] if predictor.config.hq else ["off"])
    report: dict[str, Any] = {"checkpoint": options.checkpoint, "environment": environment(options)}
    with torch.inference_mode():
        if options.clips:
            report |= measure_videos(predictor, modes, options)
        if options.photos or options.cutouts:
            report |= measure_stills(predictor, modes, options)
    say(report)
    if options.json:
        with whole_file(options.json) as partial:
            partial.write_text(json.dumps(report, indent=1))


def measure_videos(
    predictor: SAM2VideoPredictor, modes: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Tracking in every HQ mode from every kind of prompt, the baselines, and speed."""
    clips = open_clips(options.clips, options.sequences)
    report: dict[str, Any] = {"tracking": {}, "baselines": {}}
    with tempfile.TemporaryDirectory() as temporary:
        masks = options.keep or Path(temporary)
        for mode in modes:
            predictor.hq_mode = mode  # type: ignore[assignment]
            for prompt in options.prompts:
                folder = masks / f"{prompt}-{mode}"
                report["tracking"][f"{prompt}, hq {mode}"] = measure_tracking(
                    predictor, clips, prompt, folder
                )
        for name, baseline in BASELINES.items() if options.baselines else ():
            report["baselines"][name] = measure_baseline(baseline, clips, masks / name)
    predictor.hq_mode = modes[min(1, len(modes) - 1)]  # type: ignore[assignment]
    report["speed"] = measure_speed(predictor, clips[0], repeats=options.repeats)
    return report


def measure_stills(
    predictor: SAM2VideoPredictor, modes: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Boxes and clicks on photos, and composites of cut-outs."""
    image_predictor = SAM2ImagePredictor(predictor)
    report: dict[str, Any] = {}
    if options.photos:
        report["photos"] = measure_photos(image_predictor, options.photos, modes, options.limit)
    if options.cutouts:
        backgrounds = options.backgrounds or options.photos
        report["thin structures"] = measure_thin_structures(
            image_predictor, options.cutouts, backgrounds, modes, options.composites
        )
    return report


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on beside the weights."""
    return {
        "torch": torch.__version__,
        "device": options.device,
        "threads": options.threads,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def say(report: dict[str, Any]) -> None:
    """Print the table."""
    for part in ("tracking", "baselines"):
        for name, scores in report.get(part, {}).items():
            videos, objects = scores["mean over videos"], scores["global"]
            print(
                f"{name:28} J&F {videos['J&F']:.4f}  J {videos['J']:.4f}  F {videos['F']:.4f}  "
                f"(over objects {objects['J&F']:.4f})"
            )
    for part in ("photos", "thin structures", "speed"):
        if part in report:
            print(f"{part}:", json.dumps({k: v for k, v in report[part].items() if k != "items"}))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="default: the model of the package")
    parser.add_argument("--config", help="default: recognised from the checkpoint")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--sequences", nargs="*", default=[], help="default: all")
    parser.add_argument("--prompts", nargs="*", default=["mask", "box"])
    parser.add_argument("--hq-modes", nargs="*", help="default: all of the model")
    parser.add_argument("--one-look", action="store_true", help="never zoom in on prompts")
    parser.add_argument(
        "--as-decoded", action="store_true", help="tracked masks as they are decoded"
    )
    parser.add_argument("--no-baselines", dest="baselines", action="store_false")
    parser.add_argument("--keep", type=Path, help="folder that keeps the predicted masks")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--limit", type=int, help="first so many photos; default: all")
    parser.add_argument("--cutouts", type=Path)
    parser.add_argument("--backgrounds", type=Path, help="default: the photos")
    parser.add_argument("--composites", type=int, default=2, help="pictures a cut-out")
    parser.add_argument("--repeats", type=int, default=3, help="passes of the speed measurement")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
