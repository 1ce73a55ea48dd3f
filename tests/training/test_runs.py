"""Every stage runs from a config, one after the other, on the command line."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from sam2_hq.build_sam import build_sam2
from sam2_hq.checkpoint import (
    HQ_TENSORS,
    LICENSE_KEY,
    convert,
    load_checkpoint,
    read_checkpoint,
    read_metadata,
    save_checkpoint,
)
from sam2_hq.cli.main import app
from sam2_hq.compose import compose_tree
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.structures import FrameFeatures
from sam2_hq.training import journal
from sam2_hq.training.colour import ColourOptions
from sam2_hq.training.config import DataOptions, FolderOptions, PackOptions, read_recipe
from sam2_hq.training.data_sets import open_data
from sam2_hq.training.draws import Draws
from sam2_hq.training.pack_source import PackSource
from sam2_hq.training.runs import make_trainer
from sam2_hq.training.sample_log import SampleLog
from sam2_hq.training.trainer import Trainer
from tests.toy import toy_tree
from tests.training import toy_packs
from tests.training.learned import changed
from tests.training.packs import write_packs
from tests.training.scenes import toy_model

TRAINER = {
    "num_steps": 3,
    "log_steps": 1,
    "sheet_steps": 2,
    "phases": [{"until": 1.0, "image_size": 64, "batch_size": 2}],
}


def run(tmp_path: Path, stage: str, checkpoint: str | None, **train) -> Path:
    tree = {
        "model": {
            **toy_tree(),
            "_target_": "sam2_hq.sam2_hq_video_predictor.SAM2HQVideoPredictor",
        },
        "train": {
            "stage": stage,
            "checkpoint": checkpoint,
            "data": {"packs": {"folder": str(write_packs(tmp_path / "packs"))}},
            "trainer": TRAINER,
            **train,
        },
    }
    config = tmp_path / f"{stage}.yaml"
    config.write_text(yaml.safe_dump(tree))
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["train", str(config), "--out", str(out), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    return out


def test_the_stages_follow_each_other_on_the_command_line(tmp_path) -> None:
    out = run(tmp_path, "warmup", None)
    out = run(tmp_path, "image", str(out / "warmup.pt"))
    data = {"packs": {"folder": str(tmp_path / "packs")}, "num_frames": 3}
    run(tmp_path, "video", str(out / "image.pt"), data=data)
    run(tmp_path, "scores", str(out / "video.pt"), data=data)
    head = "sam_mask_decoder.iou_prediction_head."
    learned = changed(out / "video.pt", out / "scores.pt")
    assert learned
    assert all(name.startswith(head) for name in learned)
    run(tmp_path, "hq", str(out / "scores.pt"), hq={"num_points": 64})
    assert changed(out / "scores.pt", out / "hq.pt") == set(HQ_TENSORS)
    run(tmp_path, "memory", str(out / "hq.pt"), data=data | {"still_share": 0.0})
    learned = changed(out / "hq.pt", out / "memory.pt")
    assert {name.split(".")[0] for name in learned} >= {"memory_attention", "memory_encoder"}
    answers = ("image_encoder.", "sam_prompt_encoder.", "no_mem_embed", "mask_downsample.")
    assert not any(name.startswith(answers) for name in learned)
    decoder = {name for name in learned if name.startswith("sam_mask_decoder.")}
    assert all(name.startswith("sam_mask_decoder.pred_obj_score_head.") for name in decoder)
    load_checkpoint(toy_model(), read_checkpoint(out / "weights.safetensors"))
    assert (out / "image_000002.png").is_file()
    assert (out / "image_curves.png").is_file()
    for stage in ("warmup", "image", "video", "scores", "hq", "memory"):
        lines = (out / f"{stage}.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_weights_say_for_ever_what_their_data_allow(tmp_path) -> None:
    folder = write_packs(tmp_path / "unfree", photo_class="noncommercial")
    packs = {"folder": str(folder), "allow": ["permissive", "noncommercial"]}
    expected = {LICENSE_KEY: "noncommercial,permissive"}
    out = run(tmp_path, "warmup", None, data={"packs": packs})
    assert read_metadata(out / "warmup.pt") == expected
    run(tmp_path, "warmup", None)  # goes on, on permissive data alone
    run(tmp_path, "image", str(out / "warmup.pt"))
    assert read_metadata(out / "weights.safetensors") == expected


def test_weights_of_unknown_data_stay_so(tmp_path) -> None:
    start = save_checkpoint(toy_model().state_dict(), tmp_path / "a.safetensors")
    out = run(tmp_path, "image", str(start))
    assert read_metadata(out / "image.pt") == {LICENSE_KEY: "permissive,unknown"}


def test_clips_grow_from_phase_to_phase(tmp_path) -> None:
    write_packs(tmp_path / "packs")
    phases = "[{until: 0.5, image_size: 64, batch_size: 2, num_frames: 2},"
    phases += "{until: 1.0, image_size: 64, batch_size: 2}]"
    recipe = read_recipe(
        "train/video.yaml",
        [
            f"train.data.packs.folder={tmp_path / 'packs'}",
            "train.data.num_frames=3",
            "train.data.still_share=0",
            "train.checkpoint=null",
            f"train.trainer.phases={phases}",
        ],
    )
    trainer = make_trainer(recipe, tmp_path / "out", device="cpu")
    first, last = (trainer.stage.source(phase) for phase in recipe.train.trainer.phases)
    draws = Draws(torch.Generator().manual_seed(0))
    assert first.sample(2, draws).frames.shape[1] == 2
    assert last.sample(2, draws).frames.shape[1] == 3


@pytest.mark.parametrize("stage", ["scores", "hq"])
def test_the_optimizer_holds_only_what_learns(tmp_path, stage) -> None:
    write_packs(tmp_path / "packs")
    overrides = [f"train.data.packs.folder={tmp_path / 'packs'}", "train.checkpoint=null"]
    trainer = make_trainer(read_recipe(f"train/{stage}.yaml", overrides), tmp_path, device="cpu")
    held = {id(one) for group in trainer.optimizer.param_groups for one in group["params"]}
    names = {name for name, one in trainer.model.named_parameters() if id(one) in held}
    if stage == "hq":
        assert names == set(HQ_TENSORS)
    else:
        assert names
        assert all("iou_prediction_head" in name for name in names)


@pytest.mark.parametrize("stage", ["scores", "hq"])
def test_what_is_frozen_stays_frozen_in_stages_that_teach_a_part(tmp_path, stage) -> None:
    write_packs(tmp_path / "packs")
    overrides = [f"train.data.packs.folder={tmp_path / 'packs'}", "train.checkpoint=null"]

    def trainer(frozen: str) -> Trainer:
        more = [*overrides, f"train.trainer.optimizer.frozen=['{frozen}']"]
        return make_trainer(read_recipe(f"train/{stage}.yaml", more), tmp_path, device="cpu")

    part = {"scores": "*iou_prediction_head.layers.0*", "hq": "*hf_mlp*"}[stage]
    names = {name for name, one in trainer(part).model.named_parameters() if one.requires_grad}
    assert names
    assert not any(fnmatchcase(name, part) for name in names)
    with pytest.raises(ValueError, match="frozen must leave something that this stage teaches"):
        trainer({"scores": "*iou_prediction_head*", "hq": "*mask_decoder*"}[stage])


def test_stills_among_clips_can_show_other_things(tmp_path) -> None:
    write_packs(tmp_path / "packs")
    recipe = read_recipe(
        "train/video.yaml",
        [
            f"train.data.packs.folder={tmp_path / 'packs'}",
            "train.data.scene={photos: 0, composites: 1, max_actors: 1, ground_objects: 0}",
            "train.data.still_scene={photos: 1, composites: 0, visitors: 0, unions: 0}",
        ],
    )
    make = open_data(recipe.train.data, device=torch.device("cpu"), log=SampleLog())
    stills, clips = make(32, 1), make(32, 3)
    assert isinstance(stills, PackSource)
    assert isinstance(clips, PackSource)
    write = [source.writer.write for source in (stills, clips)]
    for seed in range(6):
        still, clip = (one(1, np.random.default_rng(seed)) for one in write)
        assert (still.ground, len(still.actors)) == ("photos", 0)
        assert len(clip.actors) == 1


@pytest.mark.parametrize("kind", ["packs", "images_masks", "davis"])
def test_a_recipe_says_how_colours_change(tmp_path, kind) -> None:
    write_packs(tmp_path / "packs")
    mask = toy_packs.disc(40, 40, 20, 20, 12)
    for folder, pixels in (("images", toy_packs.painted(mask)), ("masks", mask * np.uint8(255))):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    for folder, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
        (tmp_path / folder / "a").mkdir(parents=True)
        pixels = toy_packs.painted(mask) if ending == "jpg" else mask * np.uint8(1)
        for number in range(3):
            Image.fromarray(pixels).save(tmp_path / folder / "a" / f"{number:05d}.{ending}")
    data = DataOptions(
        packs=PackOptions(str(tmp_path / "packs")) if kind == "packs" else None,
        folders=() if kind == "packs" else (FolderOptions(kind, str(tmp_path)),),
        colours=ColourOptions(tint=0, drift=0, gray_chance=1, noise_chance=0),
    )
    make = open_data(data, device=torch.device("cpu"), log=SampleLog())
    frames = make(32, 2 if kind == "davis" else 1).make(range(3)).frames
    red, green, blue = frames.unbind(2)
    assert red.std() > 0.01
    torch.testing.assert_close(red, green)
    torch.testing.assert_close(red, blue)


def folder_of_many_sizes(root: Path) -> Path:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(4):
        mask = toy_packs.disc(60 + 20 * number, 100, 30, 40, 20)
        Image.fromarray(toy_packs.painted(mask)).save(root / "images" / f"{number}.png")
        Image.fromarray(mask * np.uint8(255)).save(root / "masks" / f"{number}.png")
    return root


@pytest.mark.parametrize("place", ["memory", "disk", "folder of many sizes"])
def test_the_hq_stage_encodes_each_of_its_stills_once(tmp_path, monkeypatch, place) -> None:
    encoded: list[int] = []
    encode = SAM2Base.encode_image

    def count(self: SAM2Base, frames: torch.Tensor) -> FrameFeatures:
        encoded.append(len(frames))
        return encode(self, frames)

    monkeypatch.setattr(SAM2Base, "encode_image", count)
    data = {"packs": {"folder": str(tmp_path / "packs")}, "cache": 4}
    if place == "disk":
        data["cache_folder"] = str(tmp_path / "features")
    if place == "folder of many sizes":
        root = folder_of_many_sizes(tmp_path / "mine")
        data |= {"packs": None, "folders": [{"layout": "images_masks", "root": str(root)}]}
    phases = [{"until": 1.0, "image_size": 256, "batch_size": 3}]
    trainer = TRAINER | {"num_steps": 12, "phases": phases}
    run(tmp_path, "hq", None, hq={"num_points": 64}, data=data, trainer=trainer)
    assert sum(encoded) <= 4  # of 36 pictures


def test_a_folder_of_features_needs_their_number() -> None:
    with pytest.raises(ValueError, match=r"cache_folder needs train\.data\.cache"):
        DataOptions(packs=PackOptions("packs"), cache_folder="features")


def test_a_published_model_gets_its_hq_token_and_keeps_all_else(tmp_path) -> None:
    plain = build_sam2("sam2.1_hiera_t", None, device="cpu").state_dict()
    base = save_checkpoint(plain, tmp_path / "tiny.pt")
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app,
        [
            *("train", "train/hq_published.yaml", "--out", str(out), "--device", "cpu"),
            *("--model", "sam2.1_hq_hiera_t", f"train.checkpoint={base}"),
            f"train.data.packs.folder={write_packs(tmp_path / 'packs')}",
            *("train.trainer.num_steps=1", "train.data.still_share=1", "train.hq.num_points=64"),
            "train.trainer.phases=[{until: 1.0, image_size: 128, batch_size: 1}]",
        ],
    )
    assert done.exit_code == 0, done.output
    full, addon = (
        read_checkpoint(out / f"{name}.safetensors") for name in ("weights", "hq_tensors")
    )
    assert set(addon) == HQ_TENSORS
    assert set(full) == {*plain, *addon}
    assert all(torch.equal(full[name], plain[name]) for name in plain)
    assert all(torch.equal(full[name], addon[name]) for name in addon)
    joined = convert(base, tmp_path / "joined.pt", hq=out / "hq_tensors.safetensors")
    assert read_metadata(joined) == read_metadata(out / "weights.safetensors")
    assert all(torch.equal(one, full[name]) for name, one in read_checkpoint(joined).items())
    with pytest.raises(ValueError, match="hq must hold the 13 HQ tensors alone, got"):
        convert(base, tmp_path / "other.pt", hq=base)


def test_the_model_of_a_recipe_can_be_another_one() -> None:
    recipe = read_recipe("train/hq.yaml", ["model.image_size=512"], model="sam2.1_hq_hiera_l")
    assert recipe.model["model"]["image_encoder"]["trunk"]["embed_dim"] == 144
    assert recipe.model["model"]["image_size"] == 512
    assert recipe.train == read_recipe("train/hq.yaml").train


@pytest.mark.parametrize(
    "mose", ["sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml", "sam2.1_hiera_b+_MOSE_finetune"]
)
@pytest.mark.parametrize(
    ("override", "rate"), [("image_size=512", 0.1), ("image_encoder.trunk.drop_path_rate=0.3", 0.3)]
)
def test_another_model_keeps_what_the_recipe_says_of_models(mose, override, rate) -> None:
    recipe = read_recipe(mose, [f"model.{override}"], model="sam2.1_hiera_l")
    trunk = recipe.model["model"]["image_encoder"]["trunk"]
    assert (trunk["embed_dim"], trunk["drop_path_rate"]) == (144, rate)


def test_what_a_recipe_says_of_models_may_refer_to_other_keys(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "# @package _global_\ndefaults:\n  - /train/hq\n  - _self_\n"
        "side: 512\nmodel:\n  image_size: ${side}\n  sigmoid_bias_for_mem_enc: -1e1\n"
    )
    for model in (None, "sam2.1_hq_hiera_l"):
        tree = compose_tree(str(file), model=model)["model"]
        assert (tree["image_size"], tree["sigmoid_bias_for_mem_enc"]) == (512, -10.0)
    file.write_text("# @package _global_\ndefaults:\n  - /train/hq\n  - _self_\nmodel:\n")
    assert compose_tree(str(file), model="sam2.1_hq_hiera_l")["model"]["image_size"] == 1024


@pytest.mark.parametrize("stage", ["warmup", "image", "video", "scores", "hq", "memory"])
def test_a_stage_learns_in_bfloat16(tmp_path, stage) -> None:
    data = {"packs": {"folder": str(tmp_path / "packs")}, "num_frames": 3}
    if stage == "memory":
        data["still_share"] = 0.0
    trainer = TRAINER | {"num_steps": 2, "bfloat16": True}
    out = run(tmp_path, stage, None, data=data, hq={"num_points": 64}, trainer=trainer)
    lines = (out / f"{stage}.jsonl").read_text().splitlines()
    # A loss that is not finite is written as null.
    assert all(json.loads(line)["loss"] is not None for line in lines)
    weights = read_checkpoint(out / f"{stage}.pt").values()
    assert all(torch.isfinite(value).all() for value in weights)


def test_data_that_a_later_phase_lacks_are_missed_at_once(tmp_path) -> None:
    phases = [
        {"until": 0.5, "image_size": 64, "batch_size": 2, "num_frames": 1},
        {"until": 1.0, "image_size": 64, "batch_size": 2},
    ]
    data = {"packs": {"folder": str(tmp_path / "packs")}, "num_frames": 3}
    data |= {"scene": {"clips": 1.0}, "still_scene": {"clips": 0.0}}
    with pytest.raises(AssertionError, match="options ask for clips, but no pack of clips"):
        run(tmp_path, "video", None, data=data, trainer=TRAINER | {"phases": phases})
    assert not (tmp_path / "out/video.pt").exists()


def test_a_stage_without_predictions_shows_none_to_tensorboard(tmp_path, monkeypatch) -> None:
    shown = []

    class Writer:
        def add_scalar(self, name, value, step) -> None:
            shown.append(name)

        def add_image(self, name, pixels, step, dataformats) -> None:
            shown.append(name)

    monkeypatch.setattr(journal, "_tensorboard", lambda folder, num_done: Writer())
    run(tmp_path, "warmup", None)
    assert "loss" in shown
    assert "predictions" not in shown
    run(tmp_path, "image", None)
    assert "predictions" in shown


@pytest.mark.parametrize(
    ("recipe", "more", "wanted"),
    [
        ("image", [], "train.data.scene.clips"),
        ("image", ["scene.clips=0.5", "still_scene={clips: 0.0}"], "train.data.still_scene.clips"),
        ("memory", ["still_scene={clips: 0.5}"], "train.data.scene.clips"),
        ("hq", ["scene.clips=0.0"], "train.data.scene.clips"),
    ],
)
def test_a_pack_of_clips_that_nothing_would_show_is_refused(recipe, more, wanted) -> None:
    given = ["packs.clips=clips.zip", *more]
    with pytest.raises(ValueError, match=f"a share of clips: {wanted} must be above 0"):
        read_recipe(f"train/{recipe}.yaml", [f"train.data.{one}" for one in given])
    read_recipe(f"train/{recipe}.yaml", [f"train.data.{one}" for one in given[1:]])
    shown = [*given, "still_scene={clips: 0.1}", "scene.clips=0.1"]
    read_recipe(f"train/{recipe}.yaml", [f"train.data.{one}" for one in shown])


def test_the_video_stage_needs_clips() -> None:
    with pytest.raises(ValueError, match=r"train\.data\.still_share below 1, got 8 and 1"):
        read_recipe("train/video.yaml", ["train.data.still_share=1"])


def test_curves_wait_for_the_first_numbers(tmp_path) -> None:
    out = run(tmp_path, "image", None, trainer=TRAINER | {"log_steps": 0, "sheet_steps": 1})
    assert (out / "image_000003.png").is_file()


def test_a_run_validates_as_often_as_asked(tmp_path) -> None:
    out = run(tmp_path, "image", None, trainer=TRAINER | {"validate_steps": 2})
    lines = [json.loads(line) for line in (out / "image.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "iou_box" in line] == [2]


@pytest.mark.parametrize(
    "name",
    [
        "train/warmup.yaml",
        "train/image.yaml",
        "train/video.yaml",
        "train/scores.yaml",
        "train/hq.yaml",
        "train/memory.yaml",
        "train/hq_published.yaml",
        "sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml",
    ],
)
def test_packaged_recipes_are_readable(name) -> None:
    recipe = read_recipe(name)
    assert recipe.train.stage in ("warmup", "image", "video", "scores", "hq", "memory")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.trainer.minutez=3", "did you mean 'minutes'"),
        ("train.stage=other", "train.stage must be one of"),
        ("train.trainer.seed=a", "train.trainer.seed must be int"),
        ("train.data.packs=null", "packs or folders"),
        ("train.loss_stride=0", "loss_stride must be 1 or more"),
        ("train.loss_stride=24", "loss_stride must divide the image_size 128 of every phase"),
        (
            "train.trainer.phases=[{until: 1, image_size: 400, batch_size: 2}]",
            "multiple of 32, got 400",
        ),
        ("train.trainer.validate_steps=-1", "validate_steps must be 0 or more, got -1"),
        ("train.trainer.save_minutes=-1", "save_minutes must be 0 or more, got -1"),
        ("train.trainer.weights.dice=-4", "dice must be 0 or more, got -4"),
        ("train.stage=video", "train.data.num_frames of 2 or more .* below 1, got 1 and 0.2"),
        ("train.stage=memory", "the memory stage learns from clips alone: .* got 0.2 and 1"),
        ("train.trainer.optimizer.betas=[0.9]", r"betas must be 2 values, got \[0\.9\]"),
        ("train.trainer.optimizer.betas=[0.9,1.0]", "betas must be at least 0 and below 1"),
        ("train.trainer.optimizer.max_gradient_norm=-1", "max_gradient_norm must be above 0"),
        ("train.trainer.optimizer.ema=1.5", "ema must be between 0 and 1, got 1.5"),
        ("train.trainer.optimizer.weight_decay=-1", "weight_decay must be 0 or more, got -1"),
        ("train.trainer.optimizer.encoder_lr=-1", "encoder_lr must be 0 or more, got -1"),
        ("train.data.workers=0", "workers must be 1 or more"),
        ("train.data.validation=[{layout: davis, root: a}]", "needs train.trainer.validate_steps"),
        ("train.data.num_frames=true", "train.data.num_frames must be int"),
        ("train.image.max_corrections=-1", "max_corrections must be 0 or more"),
        ("train.image.click=0.9", "click and box must be shares of one whole"),
        ("train.video.second=2", "second must be between 0 and 1"),
        ("train.data.scene.min_zoom=2", "min_zoom must be above 0 and at most max_zoom"),
        ("trainer.minutes=3", "unknown key 'trainer', wanted 'model' or 'train'"),
    ],
)
def test_a_wrong_key_or_value_is_named(override, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        read_recipe("train/image.yaml", [override])


def test_a_recipe_answers_to_its_short_name_and_a_wrong_one_names_its_nearest() -> None:
    assert read_recipe("train/image") == read_recipe("configs/train/image.yaml")
    with pytest.raises(ValueError, match=r"did you mean 'train/image\.yaml'"):
        read_recipe("train/imgae.yaml")


def test_a_file_of_ones_own_is_not_taken_for_the_packaged_recipe(tmp_path, monkeypatch) -> None:
    own = tmp_path / "mine" / "train" / "image.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("defaults: [/train/image, _self_]\ntrain: {trainer: {seed: 23}}\n")
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in (".", "../mine", "~/mine", tmp_path / "mine"):
        assert read_recipe(f"{place}/train/image.yaml").train.trainer.seed == 23
    assert read_recipe("train/image.yaml").train.trainer.seed != 23


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('train.trainer.optimizer.frozen=["image_encodr.*"]', "image_encodr"),
        ("train.checkpoint=toy.safetensors", "not a known SAM 2 size"),
    ],
)
def test_a_run_that_is_refused_leaves_no_folder(
    tmp_path, monkeypatch, change: str, message: str
) -> None:
    packs = write_packs(tmp_path / "packs")
    save_checkpoint(toy_model().state_dict(), tmp_path / "toy.safetensors")
    monkeypatch.chdir(tmp_path)
    arguments = ["train/warmup.yaml", f"train.data.packs.folder={packs}", change]
    done = CliRunner().invoke(app, ["train", *arguments, "--out", "runs/one", "--device", "cpu"])
    assert done.exit_code == 2
    assert message in done.output
    assert not Path("runs").exists()


def test_a_run_that_loses_its_losses_ends_in_one_line(tmp_path, monkeypatch) -> None:
    def lose(self: Trainer) -> None:
        raise FloatingPointError("no finite loss for 20 steps; lower the rate")

    monkeypatch.setattr(Trainer, "run", lose)
    packs = write_packs(tmp_path / "packs")
    arguments = ["train/warmup.yaml", "--out", str(tmp_path), f"train.data.packs.folder={packs}"]
    done = CliRunner().invoke(app, ["train", *arguments, "--device", "cpu"])
    assert done.exit_code == 2
    assert done.output.strip().endswith("no finite loss for 20 steps; lower the rate")


def test_missing_packs_are_one_line(tmp_path) -> None:
    done = CliRunner().invoke(
        app,
        [
            *("train", "train/warmup.yaml", f"train.data.packs.folder={tmp_path}"),
            *("--out", str(tmp_path / "out"), "--device", "cpu"),
        ],
    )
    assert done.exit_code == 2
    assert "photos_train.zip" in done.output
    assert len(done.output.strip().splitlines()) == 1
