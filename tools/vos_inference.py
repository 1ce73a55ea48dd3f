"""Track the objects of a data set from their annotations, with the published flags and folders.

    python tools/vos_inference.py --sam2_cfg configs/sam2.1/sam2.1_hq_hiera_l.yaml \
        --sam2_checkpoint sam2.1_hq_hiera_large.pt --base_video_dir DAVIS/JPEGImages/480p \
        --input_mask_dir DAVIS/Annotations/480p --output_mask_dir outputs

The same command goes on where it was stopped. `sam2-hq track-dataset` has more to offer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sam2_hq.batch.jobs import DatasetJob
from sam2_hq.batch.local import LocalEngine
from sam2_hq.batch.runner import run_dataset
from sam2_hq.cli.main import USER_MISTAKES, explain
from sam2_hq.cli.track_dataset import say_how_it_ended
from sam2_hq.device import choose_device
from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import Dataset, read_sequence_list, subfolders
from sam2_hq.model_spec import ModelSpec


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    try:
        job = _job(options)
        engine = LocalEngine(options.workers)
        summary = run_dataset(job, engine=engine, overwrite=options.overwrite, progress=True)
    except USER_MISTAKES as error:
        parser.exit(2, f"vos_inference: {explain(error)}\n")
    say_how_it_ended(job, summary)
    if summary.failed:
        parser.exit(1)


def _job(options: argparse.Namespace) -> DatasetJob:
    videos, masks = options.base_video_dir, options.input_mask_dir
    if not videos.is_dir():
        raise ValueError(f"--base_video_dir: there is no folder '{videos}'")
    names = (
        read_sequence_list(options.video_list_file)
        if options.video_list_file
        else subfolders(videos)
    )
    layout = Dataset(
        frames=".",
        annotations=str(masks.absolute()),
        per_object=options.per_obj_png_file,
        late_objects=options.track_object_appearing_later_in_video,
        conventions=Conventions(void=options.void),
    )
    return DatasetJob(
        videos,
        options.output_mask_dir,
        layout,
        _model(options),
        score_threshold=options.score_thresh,
        every_mask=options.use_all_masks,
        names=tuple(names),
    )


def _model(options: argparse.Namespace) -> ModelSpec:
    # The published scores were made in bfloat16 on CUDA.
    is_cuda = choose_device(options.device).type == "cuda"
    return ModelSpec(
        options.sam2_checkpoint,
        options.sam2_cfg,
        device=options.device,
        dtype="bfloat16" if is_cuda else "float32",
        hq_mode=options.hq_mode,
        compiled=options.use_vos_optimized_video_predictor,
        postprocessing=options.apply_postprocessing,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("vos_inference", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sam2_cfg", default="configs/sam2.1/sam2.1_hiera_b+.yaml", help="config name or file")
    add("--sam2_checkpoint", default="./checkpoints/sam2.1_hiera_base_plus.pt")
    add("--base_video_dir", type=Path, required=True, help="a folder of frames a video")
    add("--input_mask_dir", type=Path, required=True, help="a folder of masks a video")
    add("--video_list_file", type=Path, help="one video a line; default: all")
    add("--output_mask_dir", type=Path, required=True, help="gets a folder of masks a video")
    add("--score_thresh", type=float, default=0.0, help="an object is where its logit is above")
    add("--use_all_masks", action="store_true", help="prompt with all masks, not the first alone")
    add("--per_obj_png_file", action="store_true", help="one folder an object, as in SA-V")
    add("--apply_postprocessing", action="store_true", help="published scores are without")
    add("--track_object_appearing_later_in_video", action="store_true")
    add("--use_vos_optimized_video_predictor", action="store_true", help="compile the network")
    add("--device", help="cpu, cuda or cuda:1; default: CUDA if there is one")
    add("--hq_mode", help="off, correct, only or auto, for HQ models")
    add("--void", type=int, help="an id that is no object, 255 in DAVIS; default: none")
    add("--workers", type=int, help="processes over all GPUs; 0: this one alone")
    add("--overwrite", action="store_true", help="start again in a folder that holds a run")
    return parser


if __name__ == "__main__":
    main()
