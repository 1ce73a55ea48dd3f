"""Numbers on data that is never trained on, from the metrics that the evaluation uses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_hq.data.masks import VOID, read_id_map
from sam2_hq.evaluation.clicks import box_prompt
from sam2_hq.evaluation.datasets import Dataset, VideoSequence, find_sequences, load_dataset
from sam2_hq.evaluation.evaluate import Means, evaluate
from sam2_hq.evaluation.interactive import click_segmenter, iou_after_clicks
from sam2_hq.evaluation.metrics import boundary_iou, jaccard
from sam2_hq.evaluation.semi_supervised import TrackingRules
from sam2_hq.evaluation.tracked_folder import track_sequence
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import HQMode
from sam2_hq.training.clip_readers import FrameFolders
from sam2_hq.training.config import StageName, TrainingConfig, pack_path
from sam2_hq.training.data_sets import open_folders
from sam2_hq.training.packs import read_photos
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.sav_reader import SavFolder
from sam2_hq.training.still_readers import HALF, HQSEG_VALIDATION_FOLDERS, StillFolder
from sam2_hq.training.trainer import Validate

VALIDATION_KEY = "train.data.validation"

NUM_CLICKS = 3

MAX_PICTURES = 200
"""Of a folder so many are measured, evenly spread."""

Still = tuple[str, NDArray[np.uint8], list[NDArray[np.bool_]]]
"""Name, picture [H, W, 3], masks [H, W]."""

DATASETS = {"davis": "davis2017", "mose": "mose", "youtube_vos": "youtube-vos", "sav": "sav"}
"""The benchmark by whose conventions videos of a layout are scored."""


class AnnotatedClip(NamedTuple):
    """A video with frames, and the benchmark by whose conventions it is tracked and scored."""

    sequence: VideoSequence
    dataset: Dataset


def make_validation(train: TrainingConfig, log: SampleLog) -> Validate:
    """Open what a recipe validates on: `packs.photos_val`, and the folders of `validation`.

    Args:
        train: the recipe. The HQ stage is measured with its HQ masks, pictures also without; the
            memory stage with the masks that the model shows; the other stages without HQ.
        log: where bad samples are counted.

    Raises:
        ValueError: if there is nothing to validate on, or no picture of a folder can be read.
    """
    # Pictures are read anew each time: a folder of large ones need not fit into memory.
    stills: list[Callable[[], Iterable[Still]]] = []
    packs = train.data.packs
    if packs is not None and packs.photos_val is not None:
        stills.append(read_photos(pack_path(packs, packs.photos_val), log=log).stills)
    clips: list[AnnotatedClip] = []
    for options in train.data.validation:
        folders, videos = open_folders(
            [options], log, key=VALIDATION_KEY, hqseg_sets=HQSEG_VALIDATION_FOLDERS
        )
        for folder in folders:
            stills.append(partial(_read_stills, folder, log))
            if next(iter(_read_stills(folder, log)), None) is None:
                raise ValueError(f"{VALIDATION_KEY}: no picture in '{folder.images}' can be used")
        clips += [clip for video in videos for clip in _annotated_clips(video, options.layout)]
    if not stills and not clips:
        raise ValueError(
            "train.trainer.validate_steps needs train.data.packs.photos_val or "
            f"{VALIDATION_KEY}, got neither"
        )

    def validate(model: SAM2Base) -> Mapping[str, float]:
        hq_modes = _hq_modes(train.stage, model)
        numbers: dict[str, float] = {}
        if stills:
            pictures = chain.from_iterable(read() for read in stills)
            numbers |= validate_stills(model, pictures, hq_modes=hq_modes)
        if clips:
            numbers |= validate_clips(model, clips, log, hq_mode=hq_modes[0])
        return numbers

    return validate


def _hq_modes(stage: StageName, model: SAM2Base) -> tuple[HQMode, ...]:
    """What a stage is measured with; clips with the first."""
    if stage == "hq":
        return "correct", "off"
    return (model.hq_mode if stage == "memory" else "off",)


def validate_stills(
    model: SAM2Base,
    stills: Iterable[Still],
    *,
    max_objects: int = 1,
    hq_modes: Sequence[HQMode] = ("off",),
) -> dict[str, float]:
    """Mean IoU after a box, after one click and after three; after a box also boundary IoU.

    Args:
        model: in evaluation mode.
        stills: pictures with masks.
        max_objects: the first so many masks of each are asked for.
        hq_modes: which masks are measured; the names of all but the first end in their mode.

    Raises:
        ValueError: if there is no mask at all.
    """
    predictor = SAM2ImagePredictor(model)
    scores: dict[str, list[float]] = defaultdict(list)
    with torch.inference_mode():
        for _, picture, masks in stills:
            predictor.set_image(picture)
            for truth in islice((mask for mask in masks if mask.any()), max_objects):
                for mode in hq_modes:
                    suffix = "" if mode == hq_modes[0] else f"_{mode}"
                    for name, value in _score(predictor, truth, mode).items():
                        scores[name + suffix].append(value)
    if not scores:
        raise ValueError("stills must have masks to validate on, got none")
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _score(
    predictor: SAM2ImagePredictor, truth: NDArray[np.bool_], mode: HQMode
) -> dict[str, float]:
    box = np.array(box_prompt(truth), dtype=np.float32)
    answer = predictor.predict(box=box, multimask_output=False, hq_mode=mode)[0][0].astype(bool)
    clicks = iou_after_clicks(click_segmenter(predictor, mode), truth, NUM_CLICKS)
    return {
        "iou_box": jaccard(answer, truth),
        "boundary_iou_box": boundary_iou(answer, truth),
        "iou_click_1": clicks[0],
        f"iou_click_{NUM_CLICKS}": clicks[-1],
    }


def validate_clips(
    model: SAM2Base, clips: Iterable[AnnotatedClip], log: SampleLog, *, hq_mode: HQMode = "off"
) -> dict[str, float]:
    """Mean J&F, J and F of objects that are given as masks on the first frame.

    Args:
        model: a video predictor in evaluation mode.
        clips: videos; one that cannot be read or has nothing to measure is skipped.
        log: where skipped videos are counted.
        hq_mode: which masks are measured.

    Returns:
        Nothing if all were skipped.

    Raises:
        TypeError: if the model cannot track.
    """
    if not isinstance(model, SAM2VideoPredictor):
        raise TypeError(f"model must be a video predictor, got {type(model).__name__}")
    model.hq_mode = hq_mode
    parts: list[Means] = []
    for sequence, dataset in clips:
        conventions = replace(dataset.conventions, mean_over="objects")
        with TemporaryDirectory() as folder:
            try:
                with torch.inference_mode():
                    track_sequence(
                        model,
                        sequence,
                        dataset,
                        Path(folder) / sequence.name,
                        rules=TrackingRules(may_overlap=dataset.per_object),
                    )
                found = evaluate([sequence], folder, conventions)
            except (ValueError, OSError) as error:  # the run is worth more than one bad video
                log.skip(sequence.name, error)
                continue
        parts += [means for _, _, means in found.objects()]
    if not parts:
        return {}
    overall = Means.over(parts)
    return {"j_and_f": overall.j_and_f, "j": overall.j, "f": overall.f}


def _read_stills(folder: StillFolder, log: SampleLog) -> Iterable[Still]:
    count = min(len(folder), MAX_PICTURES)
    for index in np.linspace(0, len(folder) - 1, count).round().astype(int).tolist():
        try:
            name, picture, masks = folder[index]
        except (ValueError, OSError) as error:
            log.skip(folder.sample_name(index), error)
            continue
        yield name, picture, list(masks > HALF)


def _annotated_clips(folder: FrameFolders | SavFolder, layout: str) -> list[AnnotatedClip]:
    if isinstance(folder, SavFolder):
        raise ValueError(
            f"{VALIDATION_KEY} must hold masks as pictures, got JSON in '{folder.annotations}'"
        )
    clips = []
    for video in folder.videos:
        is_binary = _is_binary(video.annotations)
        dataset = load_dataset("davis2016" if is_binary else DATASETS[layout])
        (sequence,) = find_sequences(
            folder.annotations, dataset.conventions, frames=folder.images, names=[video.name]
        )
        clips.append(AnnotatedClip(sequence, dataset))
    return clips


def _is_binary(annotations: Iterable[Path | dict[int, Path]]) -> bool:
    """Whether the first mask that is not empty is of 255 alone: one object, as training has it."""
    for annotation in annotations:
        if isinstance(annotation, dict):  # a picture for each object
            return False
        try:
            ids = set(np.unique(read_id_map(annotation)).tolist()) - {0}
        except ValueError:  # named when the video is tracked
            return False
        if ids:
            return ids == {VOID}
    return False
