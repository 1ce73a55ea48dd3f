"""Numbers on data that is never trained on, from the metrics that the evaluation uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_hq.data.frames import open_frames
from sam2_hq.data.masks import VOID, read_id_map, write_id_map
from sam2_hq.evaluation.clicks import box_prompt
from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import VideoSequence, find_sequences, load_dataset
from sam2_hq.evaluation.evaluate import Means, evaluate
from sam2_hq.evaluation.interactive import click_segmenter, iou_after_clicks
from sam2_hq.evaluation.metrics import jaccard
from sam2_hq.evaluation.semi_supervised import first_appearances, id_map, track_objects
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor
from sam2_hq.structures import HQMode
from sam2_hq.training.clip_readers import FrameFolders
from sam2_hq.training.config import TrainingConfig, pack_path
from sam2_hq.training.data_sets import open_folders
from sam2_hq.training.packs import read_photos
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.sav_reader import SavFolder
from sam2_hq.training.still_readers import StillFolder
from sam2_hq.training.trainer import Validate

NUM_CLICKS = 3

MAX_PICTURES = 200
"""Of a folder so many are measured, evenly spread."""

Still = tuple[str, NDArray[np.uint8], list[NDArray[np.bool_]]]
"""Name, picture [H, W, 3], masks [H, W]."""

AnnotatedClip = tuple[VideoSequence, Conventions]
"""A video with frames, and how its masks are to be read."""


def make_validation(train: TrainingConfig, log: SampleLog) -> Validate:
    """Open what a recipe validates on: `packs.photos_val`, and the folders of `validation`.

    Args:
        train: the recipe. The HQ stage is measured with its HQ masks, the others without.
        log: where bad samples are counted.

    Raises:
        ValueError: if there is nothing to validate on, or no picture of a folder can be read.
    """
    # Pictures are read anew each time: a folder of large ones need not fit into memory.
    stills: list[Callable[[], Iterable[Still]]] = []
    packs = train.data.packs
    if packs is not None and packs.photos_val is not None:
        stills.append(read_photos(pack_path(packs, packs.photos_val), log=log).stills)
    folders, videos = open_folders(train.data.validation, log)
    for folder in folders:
        stills.append(partial(_read_stills, folder, log))
        if next(iter(_read_stills(folder, log)), None) is None:
            raise ValueError(f"train.data.validation: no picture in '{folder.images}' can be used")
    clips = [clip for video in videos for clip in _annotated_clips(video)]
    if not stills and not clips:
        raise ValueError(
            "train.trainer.validate_steps needs train.data.packs.photos_val or "
            "train.data.validation, got neither"
        )
    hq_mode: HQMode = "correct" if train.stage == "hq" else "off"

    def validate(model: SAM2Base) -> Mapping[str, float]:
        numbers: dict[str, float] = {}
        if stills:
            pictures = chain.from_iterable(read() for read in stills)
            numbers |= validate_stills(model, pictures, hq_mode=hq_mode)
        if clips:
            numbers |= validate_clips(model, clips, log, hq_mode=hq_mode)
        return numbers

    return validate


def validate_stills(
    model: SAM2Base, stills: Iterable[Still], *, max_objects: int = 1, hq_mode: HQMode = "off"
) -> dict[str, float]:
    """Mean IoU after a box, after one click and after three.

    Args:
        model: in evaluation mode.
        stills: pictures with masks.
        max_objects: the first so many masks of each are asked for.
        hq_mode: which masks are measured.

    Raises:
        ValueError: if there is no mask at all.
    """
    predictor = SAM2ImagePredictor(model)
    scores: dict[str, list[float]] = {"box": [], "click_1": [], f"click_{NUM_CLICKS}": []}
    with torch.inference_mode():
        for _, picture, masks in stills:
            predictor.set_image(picture)
            for truth in islice((mask for mask in masks if mask.any()), max_objects):
                box = np.array(box_prompt(truth), dtype=np.float32)
                answer = predictor.predict(box=box, multimask_output=False, hq_mode=hq_mode)
                scores["box"].append(jaccard(answer[0][0].astype(bool), truth))
                segment = click_segmenter(predictor, hq_mode)
                clicks = iou_after_clicks(segment, truth, NUM_CLICKS)
                scores["click_1"].append(clicks[0])
                scores[f"click_{NUM_CLICKS}"].append(clicks[-1])
    if not scores["box"]:
        raise ValueError("stills must have masks to validate on, got none")
    return {f"iou_{name}": float(np.mean(values)) for name, values in scores.items()}


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
    for sequence, conventions in clips:
        with TemporaryDirectory() as folder:
            try:
                _track(model, sequence, Path(folder) / sequence.name)
                found = evaluate([sequence], folder, conventions)
            except (ValueError, OSError) as error:  # the run is worth more than one bad video
                log.skip(sequence.name, error)
                continue
        parts += [means for _, _, means in found.objects()]
    if not parts:
        return {}
    overall = Means.over(parts)
    return {"j_and_f": overall.j_and_f, "j": overall.j, "f": overall.f}


@torch.inference_mode()
def _track(predictor: SAM2VideoPredictor, sequence: VideoSequence, out: Path) -> None:
    assert sequence.frames is not None  # `_annotated_clips` names the frames
    out.mkdir()
    with open_frames(sequence.frames) as frames:
        prompts = first_appearances(sequence.truth, frames.names, size=frames.size, late=False)
        for index, masks in track_objects(predictor, frames, prompts):
            write_id_map(out / f"{frames.names[index]}.png", id_map(masks, frames.size))


def _read_stills(folder: StillFolder, log: SampleLog) -> Iterable[Still]:
    count = min(len(folder), MAX_PICTURES)
    for index in np.linspace(0, len(folder) - 1, count).round().astype(int).tolist():
        try:
            name, picture, masks = folder[index]
        except (ValueError, OSError) as error:
            log.skip(folder.sample_name(index), error)
            continue
        yield name, picture, list(masks > 127)


def _annotated_clips(folder: FrameFolders | SavFolder) -> list[AnnotatedClip]:
    if isinstance(folder, SavFolder):
        raise ValueError(
            f"train.data.validation must hold masks as pictures, got JSON in '{folder.annotations}'"
        )
    clips = []
    for video in folder.videos:
        is_binary = _is_binary(video.annotations[0])
        conventions = load_dataset("davis2016" if is_binary else "davis2017").conventions
        (sequence,) = find_sequences(
            folder.annotations, conventions, frames=folder.images, names=[video.name]
        )
        clips.append((sequence, conventions))
    return clips


def _is_binary(annotation: Path | dict[int, Path]) -> bool:
    """Whether a video's first mask knows 0 and 255 alone: one object, as training reads it."""
    if isinstance(annotation, dict):  # a picture for each object
        return False
    try:
        return set(np.unique(read_id_map(annotation)).tolist()) <= {0, VOID}
    except ValueError:  # named when the video is tracked
        return False
