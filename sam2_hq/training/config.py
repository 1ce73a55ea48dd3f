"""What a training run is, as one typed tree, and the reading of it from YAML.

A training config is a model config with a `train` section beside `model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from sam2_hq.checks import check_counts, check_shares
from sam2_hq.compose import ConfigSource, compose_tree, config_dir
from sam2_hq.config import check_keys
from sam2_hq.training.colour import ColourOptions
from sam2_hq.training.hq_step import HQMix
from sam2_hq.training.image_step import PromptMix
from sam2_hq.training.scripts import SceneOptions
from sam2_hq.training.trainer import Phase, TrainerOptions
from sam2_hq.training.video_step import VideoMix

StageName = Literal["warmup", "image", "video", "scores", "hq", "memory"]
STILL_STAGES = ("warmup", "image")


@dataclass(frozen=True)
class PackOptions:
    """Zip packs in a folder, by kind; null for none.

    photos_val: photos to validate on, read where `trainer.validate_steps` asks for it.
    allow: licence classes to take.
    """

    folder: str
    photos: str | None = "photos_train.zip"
    cutouts: str | None = "cutouts_train.zip"
    backgrounds: str | None = "backgrounds_train.zip"
    clips: str | None = None
    photos_val: str | None = "photos_val.zip"
    allow: tuple[str, ...] = ("permissive", "copyleft", "mixed", "unstated")


@dataclass(frozen=True)
class FolderOptions:
    """A published folder layout.

    layout: the name of a reader: images_masks, hqseg44k, davis, youtube_vos, mose or sav.
    root: its folder.
    videos: of a video layout, a text file with a name of a video a line, such as
        ImageSets/2017/train.txt, as a path or below `root`; null for all videos.
    sets: of hqseg44k, the sets to take, such as DIS5K-TR; empty for all.
    """

    layout: str
    root: str
    videos: str | None = None
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataOptions:
    """Where batches come from: packs or folders, exactly one of them.

    num_frames, max_objects: T and O of a batch. Warm-up and image stage see stills only.
    still_share: share of the batches that are stills, of stages that see clips, if T is not 1; such
        a batch has two stills for each clip of `batch_size`.
    scene, still_scene: what clips and stills show; None for stills as in clips. Folders take how
        much of a picture is seen and how things move, packs all of it.
    colours: what light, lens and sensor change, in stills and clips of packs and of folders.
    validation: folders to validate on: pictures by boxes and clicks, videos by J&F.
    cache: the HQ stage draws its stills from so many fixed ones and keeps their features; 0 draws
        new ones without end. cache_folder: keep the features there instead of in memory.
    workers: threads that decode samples of folders, while the step before is computed.
    """

    packs: PackOptions | None = None
    folders: tuple[FolderOptions, ...] = ()
    validation: tuple[FolderOptions, ...] = ()
    num_frames: int = 1
    max_objects: int = 3
    still_share: float = 0.2
    cache: int = 0
    cache_folder: str | None = None
    workers: int = 4
    scene: SceneOptions = field(default_factory=SceneOptions)
    still_scene: SceneOptions | None = None
    colours: ColourOptions = field(default_factory=ColourOptions)

    def __post_init__(self) -> None:
        if (self.packs is None) == (not self.folders):
            raise ValueError("train.data must have either packs or folders")
        check_shares(vars(self), "still_share")
        check_counts(vars(self), "num_frames", "max_objects", "workers", least=1)
        check_counts(vars(self), "cache")
        if self.cache_folder is not None and not self.cache:
            raise ValueError(
                "train.data.cache_folder needs train.data.cache, the number of pictures to keep"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """A run of one stage.

    checkpoint: weights to start from; null for fresh ones.
    loss_stride: model pixels a cell of the grid on which masks are compared.
    image, video, hq: how the stages ask; `video` is that of the scores and the memory stage, too.
    """

    stage: StageName
    data: DataOptions
    trainer: TrainerOptions
    checkpoint: str | None = None
    loss_stride: int = 4
    image: PromptMix = field(default_factory=PromptMix)
    video: VideoMix = field(default_factory=VideoMix)
    hq: HQMix = field(default_factory=HQMix)

    def __post_init__(self) -> None:
        check_counts(vars(self), "loss_stride", least=1)
        for phase in self.trainer.phases:
            if phase.image_size % self.loss_stride:
                raise ValueError(
                    f"loss_stride must divide the image_size {phase.image_size} of every phase, "
                    f"got {self.loss_stride}"
                )
        self._check_clips()
        self._check_clips_are_shown()
        if self.data.validation and not self.trainer.validate_steps:
            raise ValueError(
                "train.data.validation needs train.trainer.validate_steps, the steps from one "
                "validation to the next, got 0"
            )

    def num_frames(self, phase: Phase) -> int:
        """T of the batches of a phase."""
        return phase.num_frames or self.data.num_frames

    def _check_clips(self) -> None:
        """Stages that teach the memory learn nothing of it from stills."""
        lengths = [self.num_frames(phase) for phase in self.trainer.phases]
        if self.stage == "video" and (max(lengths) == 1 or self.data.still_share == 1):
            raise ValueError(
                "the video stage needs train.data.num_frames of 2 or more and "
                f"train.data.still_share below 1, got {max(lengths)} and {self.data.still_share}"
            )
        if self.stage == "memory" and (min(lengths) == 1 or self.data.still_share):
            raise ValueError(
                "the memory stage learns from clips alone: it needs train.data.still_share=0 and "
                "train.data.num_frames of 2 or more in every phase, "
                f"got {self.data.still_share} and {min(lengths)}"
            )

    def _check_clips_are_shown(self) -> None:
        data = self.data
        lengths = [self.num_frames(phase) for phase in self.trainer.phases]
        stills_alone = self.stage in STILL_STAGES or max(lengths) == 1
        has_stills = stills_alone or min(lengths) == 1 or data.still_share > 0
        keys = ["still_scene" if data.still_scene else "scene"] * has_stills
        keys += ["scene"] * (not stills_alone)
        shares = {key: getattr(data, key).clips for key in keys}
        if data.packs and data.packs.clips and not any(shares.values()):
            wanted = " or ".join(f"train.data.{key}.clips" for key in shares)
            raise ValueError(
                f"train.data.packs.clips needs a share of clips: {wanted} must be above 0, "
                f"or nothing would show the pack {data.packs.clips!r}"
            )


@dataclass(frozen=True)
class Recipe:
    """A training config and the model tree beside it."""

    model: dict[str, Any]
    train: TrainingConfig


def read_recipe(
    config: ConfigSource, overrides: Sequence[str] = (), *, model: ConfigSource | None = None
) -> Recipe:
    """Read a training config.

    Args:
        config: a packaged name such as `train/image.yaml`, a path (`./train/image.yaml` is one's
            own file in any case), or a mapping.
        overrides: such as `train.trainer.minutes=30`.
        model: a config whose model is trained in place of that of `config`; see `compose_tree`.

    Raises:
        TypeError, ValueError: if a key or a value is wrong; the message names it.
    """
    if isinstance(config, str) and not config.startswith(("./", "../", "/", "~")):
        name = config.removeprefix("configs/").removesuffix(".yaml")
        packaged = config_dir() / f"{name}.yaml"
        config = str(packaged) if packaged.is_file() else config
    tree = compose_tree(config, overrides, model=model)
    if "train" not in tree:
        raise ValueError(f"config must have a section 'train' to train by, got {sorted(tree)}")
    return Recipe({"model": tree["model"]}, parse(TrainingConfig, tree["train"], "train"))


T = TypeVar("T")


def parse(kind: type[T], tree: object, key: str) -> T:
    """Make a dataclass from a mapping, and the dataclasses in it.

    Raises:
        TypeError: if a value is of another type.
        ValueError: if a key is unknown or missing.
    """
    if not isinstance(tree, Mapping):
        raise TypeError(f"config key {key} must be a mapping, got {tree!r}")
    assert is_dataclass(kind)
    check_keys(tree, {one.name for one in fields(kind)}, key)
    for one in fields(kind):
        has_default = one.default is not MISSING or one.default_factory is not MISSING
        if one.name not in tree and not has_default:
            raise ValueError(f"config key {key}.{one.name} is missing")
    wanted = get_type_hints(kind)
    values = {name: _value(wanted[name], tree[name], f"{key}.{name}") for name in tree}
    return kind(**values)


def _value(wanted: Any, value: Any, key: str) -> Any:
    if isinstance(wanted, UnionType):
        return _of_union(wanted, value, key)
    if is_dataclass(wanted):
        return parse(wanted, value, key)  # type: ignore[arg-type]
    if get_origin(wanted) is Literal:
        if value not in get_args(wanted):
            raise ValueError(f"config key {key} must be one of {get_args(wanted)}, got {value!r}")
        return value
    if get_origin(wanted) is tuple:
        return _tuple(wanted, value, key)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:  # bool is no int here
        raise TypeError(f"config key {key} must be {wanted.__name__}, got {value!r}")
    return value


def _of_union(wanted: UnionType, value: Any, key: str) -> Any:
    if value is None:
        return None
    (own,) = (kind for kind in get_args(wanted) if kind is not type(None))
    return _value(own, value, key)


def _tuple(wanted: Any, value: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"config key {key} must be a list, got {value!r}")
    member, *others = get_args(wanted)
    if others != [...] and len(value) != 1 + len(others):
        raise ValueError(f"config key {key} must be {1 + len(others)} values, got {value!r}")
    return tuple(_value(member, one, f"{key}[{i}]") for i, one in enumerate(value))


def pack_path(packs: PackOptions, name: str) -> Path:
    """The file of a pack."""
    return Path(packs.folder).expanduser() / name
