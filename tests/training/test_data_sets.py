"""What a recipe says of its folders is what training sees."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam2_hq.data.masks import write_id_map
from sam2_hq.training import data_sets
from sam2_hq.training.colour import ColourOptions
from sam2_hq.training.config import DataOptions, FolderOptions, PackOptions, parse
from sam2_hq.training.data_sets import open_data, open_folders
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.scripts import SceneOptions
from sam2_hq.training.still_readers import HQSEG_FOLDERS, HQSEG_VALIDATION_FOLDERS
from tests.training import toy_packs

SIZE = (48, 64)
DISC = toy_packs.disc(*SIZE, 32, 24, 10)
SHARE = DISC.mean()
PLAIN = ColourOptions(
    brightness=0, contrast=0, saturation=0, tint=0, drift=0, gray_chance=0, noise_chance=0
)


def save_video(root: Path, name: str) -> None:
    images, masks = root / "JPEGImages" / name, root / "Annotations" / name
    for folder in (images, masks):
        folder.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(toy_packs.painted(DISC)).save(images / f"{number:05d}.png")
        write_id_map(masks / f"{number:05d}.png", DISC.astype(np.uint8))


def save_still(images: Path, masks: Path) -> None:
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(toy_packs.painted(DISC)).save(images / "a.jpg")
    Image.fromarray(DISC.astype(np.uint8) * np.uint8(255)).save(masks / "a.png")


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two videos to train on and one to validate on, as DAVIS lists them."""
    root = tmp_path / "DAVIS"
    for name in ("bear", "cow", "dog"):
        save_video(root, name)
    lists = root / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("bear\ncow\n\n")
    (lists / "val.txt").write_text("dog\n")
    (lists / "empty.txt").write_text("\n")
    (lists / "wrong.txt").write_text("bear\nbeer\nwine\n")
    return root


def videos_of(folder: FolderOptions) -> list[str]:
    _, (reader,) = open_folders([folder], SampleLog())
    return [reader.sample_name(i) for i in range(len(reader))]


def test_a_list_says_which_videos_are_trained_on(davis: Path) -> None:
    root = str(davis)
    assert videos_of(FolderOptions("davis", root)) == ["bear", "cow", "dog"]
    assert videos_of(FolderOptions("davis", root, "ImageSets/2017/train.txt")) == ["bear", "cow"]
    own = davis.parent / "own.txt"
    own.write_text("cow")
    assert videos_of(FolderOptions("davis", root, str(own))) == ["cow"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test", r"folders: videos: .*ImageSets/2017/test\.txt': no such file"),
        ("empty", r"folders: videos: .*ImageSets/2017/empty\.txt' is empty"),
        ("wrong", r"got 2 that are not: beer, wine"),
    ],
)
def test_a_list_that_does_not_fit_is_named(davis: Path, name: str, message: str) -> None:
    folder = FolderOptions("davis", str(davis), f"ImageSets/2017/{name}.txt")
    with pytest.raises(ValueError, match=message):
        open_folders([folder], SampleLog())


def test_sets_of_hqseg_can_be_chosen(tmp_path: Path) -> None:
    for images, masks in (HQSEG_FOLDERS | HQSEG_VALIDATION_FOLDERS).values():
        save_still(tmp_path / images, tmp_path / masks)
    tree = {"layout": "hqseg44k", "root": str(tmp_path)}

    def names(usual: Iterable[str] = HQSEG_FOLDERS, **more: object) -> list[str]:
        folder = parse(FolderOptions, tree | more, "folders")
        stills, _ = open_folders([folder], SampleLog(), hqseg_sets=usual)
        return [one.name for one in stills]

    assert names() == list(HQSEG_FOLDERS)
    assert names(HQSEG_VALIDATION_FOLDERS) == list(HQSEG_VALIDATION_FOLDERS)
    assert names(sets=["FSS", "DIS5K-TR"]) == ["DIS5K-TR", "FSS"]
    with pytest.raises(ValueError, match=r"sets must be of .*, got \['COCO'\]"):
        names(sets=["COCO"])


@pytest.mark.parametrize(
    ("layout", "more", "message"),
    [
        ("coco", {}, "layout must be .* mose or sav, got 'coco'"),
        ("images_masks", {"videos": "a.txt"}, "videos must be null for layout images_masks"),
        ("hqseg44k", {"videos": "a.txt"}, "videos must be null for layout hqseg44k"),
        ("images_masks", {"sets": ("FSS",)}, "sets must be empty for layout images_masks"),
        ("davis", {"sets": ("FSS",)}, "sets must be empty for layout davis"),
    ],
)
def test_an_option_without_use_is_refused(layout: str, more: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_folders([FolderOptions(layout, "anywhere", **more)], SampleLog())


def test_videos_alone_give_stills_too(davis: Path) -> None:
    data = DataOptions(folders=(FolderOptions("davis", str(davis)),))
    make = open_data(data, device=torch.device("cpu"), log=SampleLog())
    assert make(32, 3).make(range(2)).frames.shape == (2, 3, 3, 32, 32)
    batch = make(32, 1).make(range(2))
    assert batch.frames.shape == (2, 1, 3, 32, 32)
    assert (batch.masks > 0.5).flatten(1).any(1).all()


def test_stills_can_be_frames_of_clips(tmp_path: Path) -> None:
    toy_packs.clips(tmp_path / "clips.zip")
    packs = PackOptions(
        str(tmp_path), photos=None, cutouts=None, backgrounds=None, clips="clips.zip"
    )
    data = DataOptions(packs=packs, scene=SceneOptions(photos=0, composites=0, clips=1))
    batch = open_data(data, device=torch.device("cpu"), log=SampleLog())(32, 1).make(range(4))
    assert batch.frames.shape == (4, 1, 3, 32, 32)
    assert (batch.masks > 0.5).flatten(1).any(1).all()


def test_a_pack_beyond_memory_is_named(tmp_path: Path, monkeypatch) -> None:
    def read(path: Path, **_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(data_sets, "read_photos", read)
    packs = DataOptions(packs=PackOptions(str(tmp_path)))
    with pytest.raises(ValueError, match=r"memory is too small for pack '.*photos_train\.zip'"):
        open_data(packs, device=torch.device("cpu"), log=SampleLog())


@pytest.mark.parametrize("layout", ["davis", "images_masks"])
def test_a_recipe_says_how_folders_are_cropped(davis: Path, layout: str) -> None:
    root = davis if layout == "davis" else davis.parent / "stills"
    if layout == "images_masks":
        save_still(root / "images", root / "masks")
    whole, cropped = SceneOptions(whole=1, visitors=1), SceneOptions(whole=0)

    def shares(num_frames: int, **scenes: SceneOptions) -> np.ndarray:
        folders = (FolderOptions(layout, str(root)),)
        data = DataOptions(folders=folders, colours=PLAIN, **scenes)
        make = open_data(data, device=torch.device("cpu"), log=SampleLog())
        return make(64, num_frames).make(range(12)).masks[:, 0, 0].mean((1, 2)).numpy()

    seen = pytest.approx(SHARE, rel=0.25)  # bent and moved a little
    assert shares(2, scene=whole) == seen
    assert shares(2, scene=cropped) != seen
    assert shares(1, scene=whole) == seen
    assert shares(1, scene=cropped, still_scene=whole) == seen
    assert shares(1, scene=whole, still_scene=cropped) != seen
