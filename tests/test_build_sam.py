from __future__ import annotations

import copy
import functools
import logging

import pytest
import torch
import yaml

from sam2_hq import build_sam
from sam2_hq.build_sam import (
    HF_MODEL_ID_TO_FILENAMES,
    RANDOM_WEIGHTS_NOTICE,
    build_sam2,
    build_sam2_hf,
    build_sam2_hq_video_predictor,
    build_sam2_hq_video_predictor_hf,
    build_sam2_video_predictor,
    build_sam2_video_predictor_hf,
    bundled_weights,
    load,
    locate,
)
from sam2_hq.checkpoint import save_checkpoint
from sam2_hq.compose import compose_tree
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.modeling.sam2_hq_base import SAM2HQBase
from sam2_hq.sam2_hq_video_predictor import SAM2HQVideoPredictor
from sam2_hq.sam2_video_predictor import SAM2VideoPredictor

HQ = "configs/sam2.1/sam2.1_hq_hiera_n.yaml"
PLAIN = "configs/sam2.1/sam2.1_hiera_n.yaml"
BUILDERS = [build_sam2, build_sam2_video_predictor, build_sam2_hq_video_predictor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def hq_checkpoint(folder):
    return save_checkpoint(build_sam2(HQ, device="cpu").state_dict(), folder / "hq.pt")


@pytest.fixture(scope="module")
def plain_checkpoint(folder):
    model = build_sam2(PLAIN, device="cpu")
    return save_checkpoint(model.state_dict(), folder / "plain.safetensors")


def same_weights(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


# ---- the published builders


@pytest.mark.parametrize(("config", "is_hq"), [(HQ, True), (PLAIN, False)])
@pytest.mark.parametrize("builder", [build_sam2, build_sam2_video_predictor])
def test_a_builder_builds_what_the_config_says(builder, config, is_hq):
    model = builder(config, device="cpu")
    assert model.config.hq is is_hq
    assert not model.training
    assert isinstance(model, SAM2VideoPredictor) is (builder is build_sam2_video_predictor)


def test_the_hq_builder_makes_any_config_hq():
    assert build_sam2_hq_video_predictor(PLAIN, device="cpu").config.hq


def test_published_class_names_are_the_same_classes():
    assert SAM2HQBase is SAM2Base
    assert issubclass(SAM2HQVideoPredictor, SAM2VideoPredictor)


def test_a_config_may_name_the_video_predictor():
    target = "++model._target_=sam2.sam2_hq_video_predictor.SAM2HQVideoPredictor"
    model = build_sam2(PLAIN, device="cpu", hydra_overrides_extra=[target])
    assert isinstance(model, SAM2VideoPredictor)
    assert model.config.hq


def test_mode_train_is_training():
    assert build_sam2(HQ, None, "cpu", "train").training


@pytest.mark.parametrize("builder", BUILDERS)
def test_postprocessing_is_on_unless_told_otherwise(builder):
    core = builder(HQ, device="cpu").config
    assert core.dynamic_multimask_via_stability
    assert core.dynamic_multimask_stability_delta == 0.05
    assert core.dynamic_multimask_stability_thresh == 0.98
    core = builder(HQ, device="cpu", apply_postprocessing=False).config
    assert not core.dynamic_multimask_via_stability


def test_video_postprocessing_fills_holes_and_binarises():
    options = build_sam2_video_predictor(HQ, device="cpu").options
    assert options.fill_hole_area == 8
    assert options.binarize_mask_from_pts_for_mem_enc
    options = build_sam2_video_predictor(HQ, device="cpu", apply_postprocessing=False).options
    assert options.fill_hole_area == 0
    assert not options.binarize_mask_from_pts_for_mem_enc


def test_overrides_of_the_caller_win():
    overrides = ["++model.fill_hole_area=3", "model.image_size=256"]
    predictor = build_sam2_hq_video_predictor(PLAIN, None, "cpu", "eval", overrides)
    assert predictor.options.fill_hole_area == 3
    assert predictor.image_size == 256
    plain = ["++model._target_=sam2.modeling.sam2_base.SAM2Base"]
    assert not build_sam2_hq_video_predictor(HQ, None, "cpu", "eval", plain).config.hq


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_builder_begins_in_the_hq_mode_of_the_config(builder):
    only = builder(HQ, device="cpu", hydra_overrides_extra=["++model.hq_mode=only"])
    assert only.hq_mode == "only"


@pytest.mark.parametrize("builder", [build_sam2, build_sam2_video_predictor])
def test_no_plain_model_is_built_with_an_hq_mode(builder):
    with pytest.raises(ValueError, match="hq_mode='only' needs an HQ model"):
        builder(PLAIN, device="cpu", hydra_overrides_extra=["++model.hq_mode=only"])


def test_a_published_file_is_built_as_it_is(tmp_path):
    text = yaml.safe_dump(compose_tree(HQ)).replace("sam2_hq.modeling", "sam2.modeling")
    file = tmp_path / "theirs.yaml"
    file.write_text("# @package _global_\n" + text)
    assert "sam2.modeling.sam2_hq_base" in text
    ours = build_sam2(HQ, device="cpu").state_dict()
    theirs = build_sam2(str(file), device="cpu").state_dict()
    assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}


def test_a_mapping_is_built():
    assert build_sam2(compose_tree(PLAIN), device="cpu").image_size == 384


# ---- wrong arguments


@pytest.mark.parametrize("builder", BUILDERS)
def test_an_unknown_argument_names_its_nearest(builder):
    with pytest.raises(TypeError, match="unknown argument 'devise'; did you mean 'device'"):
        builder(HQ, devise="cpu")


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_wrong_mode_is_refused(builder):
    with pytest.raises(ValueError, match="mode must be 'eval' or 'train', got 'evaluate'"):
        builder(HQ, device="cpu", mode="evaluate")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5, "xla"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match="device must be"):
        build_sam2(HQ, device=device)
    with pytest.raises(ValueError, match="device must be"):
        load(device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_absent_cuda_is_said():
    with pytest.raises(ValueError, match="got cuda on a machine with 0 CUDA GPUs"):
        build_sam2(HQ, device="cuda")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("++model.fill_hole_are=3", "model.fill_hole_are; did you mean 'fill_hole_area'"),
        ("++model.image_encoder.trunk.embed_dimm=3", r"trunk.embed_dimm; did you mean 'embed_dim'"),
        (
            "model.image_encoder.trunk._target_=sam2.modeling.backbones.hieradet.Hier",
            "model.image_encoder.trunk._target_ .*; did you mean .*Hiera'",
        ),
        ("model.image_encoder.trunk._target_=os.system", "must start with sam2_hq"),
        (
            "model.image_encoder.trunk._target_=sam2.modeling.memory_encoder.Fuser",
            "model.image_encoder.trunk must be a Hiera, got Fuser",
        ),
        ("model.image_encoder.trunk.embed_dim=-8", "config key model.image_encoder.trunk: "),
    ],
)
def test_a_wrong_override_names_the_full_key(override, message):
    with pytest.raises(ValueError, match=message):
        build_sam2(HQ, device="cpu", hydra_overrides_extra=[override])


def test_a_missing_key_names_its_node():
    with pytest.raises(TypeError, match=r"config key model\.memory_attention: .*'d_model'"):
        build_sam2(HQ, device="cpu", hydra_overrides_extra=["~model.memory_attention.d_model"])


@pytest.mark.parametrize("builder", BUILDERS)
def test_overrides_must_be_a_list(builder):
    with pytest.raises(TypeError, match="hydra_overrides_extra must be a list of strings"):
        builder(HQ, device="cpu", hydra_overrides_extra="++model.image_size=512")


# ---- checkpoints


def test_a_builder_loads_a_checkpoint(hq_checkpoint):
    one = build_sam2(HQ, hq_checkpoint, device="cpu")
    assert same_weights(one, build_sam2_hq_video_predictor(PLAIN, str(hq_checkpoint), "cpu"))
    assert not same_weights(one, build_sam2(HQ, device="cpu"))


def test_the_other_kind_of_checkpoint_is_explained(hq_checkpoint, plain_checkpoint):
    with pytest.raises(ValueError, match=r"take config configs/sam2\.1/sam2\.1_hiera_n\.yaml"):
        build_sam2_hq_video_predictor(PLAIN, plain_checkpoint, device="cpu")
    with pytest.raises(ValueError, match=r"take config configs/sam2\.1/sam2\.1_hq_hiera_n\.yaml"):
        build_sam2_video_predictor(PLAIN, hq_checkpoint, device="cpu")


@pytest.mark.parametrize("builder", BUILDERS)
def test_hq_may_start_from_a_plain_checkpoint(builder, plain_checkpoint):
    assert builder(HQ, plain_checkpoint, device="cpu", allow_missing_hq=True).config.hq


def test_hq_does_not_start_from_the_first_generation(tmp_path):
    old = build_sam2("configs/sam2/sam2_hiera_t.yaml", device="cpu")
    file = save_checkpoint(old.state_dict(), tmp_path / "old.safetensors")
    with pytest.raises(
        ValueError, match=r"allow_missing_hq needs .* SAM 2\.1, .* got one of SAM 2"
    ):
        load(file, device="cpu", allow_missing_hq=True)


def test_load_tells_what_a_checkpoint_needs(hq_checkpoint, plain_checkpoint):
    assert load(hq_checkpoint, device="cpu").config.hq
    plain = load(str(plain_checkpoint), device="cpu")
    assert isinstance(plain, SAM2VideoPredictor)
    assert not plain.config.hq
    assert plain.options.fill_hole_area == 8
    assert load(plain_checkpoint, device="cpu", allow_missing_hq=True).config.hq


def test_load_takes_a_folder_a_config_and_overrides(hq_checkpoint, tmp_path):
    (tmp_path / "sam2.1_hq_hiera_nano.pt").symlink_to(hq_checkpoint)
    overrides = ["++model.fill_hole_area=2"]
    predictor = load(tmp_path, config=HQ, device="cpu", hydra_overrides_extra=overrides)
    assert predictor.options.fill_hole_area == 2


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nowhere.pt", FileNotFoundError, r"there is no checkpoint nowhere\.pt"),
        ("sam2.1_heira_tiny", ValueError, r"did you mean 'sam2\.1_hiera_tiny'"),
        ("lkeab/hq-sam2", ValueError, "did you mean 'lkeab/hq-sam'"),
    ],
)
def test_load_names_what_it_cannot_find(name, error, message):
    with pytest.raises(error, match=message):
        load(name, device="cpu")


def test_load_without_a_checkpoint_has_the_same_random_weights(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(build_sam, "DEFAULT_WEIGHTS", tmp_path / "absent.safetensors")
    torch.manual_seed(1)
    with caplog.at_level(logging.WARNING, "sam2_hq"):
        first = load(device="cpu")
    drawn = torch.rand(3)
    assert [record.message for record in caplog.records] == [RANDOM_WEIGHTS_NOTICE]
    assert first.config.hq
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    assert same_weights(load(device="cpu"), first)


def test_load_takes_the_checkpoint_of_the_package(monkeypatch, hq_checkpoint, caplog):
    monkeypatch.setattr(build_sam, "DEFAULT_WEIGHTS", hq_checkpoint)
    predictor = load(device="cpu")
    assert not caplog.records
    assert same_weights(predictor, load(hq_checkpoint, device="cpu"))


def test_checkpoints_of_the_package_have_names():
    predictor = load("sam2.1_hq_hiera_nano", device="cpu")
    assert same_weights(predictor, load(device="cpu"))


def test_a_folder_of_results_does_not_hide_the_model_it_is_named_after(
    monkeypatch, tmp_path, hq_checkpoint
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sam2.1_hq_hiera_nano"
    folder.mkdir()
    assert locate(folder.name) == bundled_weights()[folder.name]
    (folder / "model.pt").symlink_to(hq_checkpoint)
    assert locate(folder.name) == folder.name


# ---- the hub


@pytest.fixture
def hub(monkeypatch, hq_checkpoint):
    """A hub whose every repository holds the HQ nano checkpoint."""
    monkeypatch.setattr(build_sam, "fetch_from_hub", lambda model_id: (PLAIN, hq_checkpoint))


def test_the_hub_builders_build_what_was_fetched(hub):
    assert build_sam2_hq_video_predictor_hf("lkeab/hq-sam", device="cpu").config.hq
    with pytest.raises(ValueError, match="does not fit a model of SAM"):
        build_sam2_video_predictor_hf("lkeab/hq-sam", device="cpu")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"devise": "cpu"}, TypeError, "did you mean 'device'"),
        ({"mode": "evil"}, ValueError, "mode must be 'eval' or 'train', got 'evil'"),
        ({"device": "toaster"}, ValueError, "device"),
        ({"ckpt_path": "mine.pt"}, TypeError, "ckpt_path is what the hub id stands for"),
        ({"hydra_overrides_extra": "++model.x=1"}, TypeError, "must be a list of strings"),
        ({"hydra_overrides_extra": None}, TypeError, "must be a list of strings, got None"),
        ({"hydra_overrides_extra": ["++model.image_sze=512"]}, ValueError, "'image_size'"),
        ({"unknown": 1}, TypeError, "unknown argument 'unknown'$"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_fetched(
    monkeypatch, arguments, error, message
):
    monkeypatch.setattr(build_sam, "fetch_from_hub", lambda _: pytest.fail("fetched"))
    for builder in (build_sam2_hf, build_sam2_video_predictor_hf, build_sam2_hq_video_predictor_hf):
        with pytest.raises(error, match=message):
            builder("lkeab/hq-sam", **arguments)


def test_what_the_builder_takes_is_not_refused_before(monkeypatch):
    monkeypatch.setattr(build_sam, "fetch_from_hub", lambda _: (PLAIN, None))
    removed = ["~model.fill_hole_area"]
    predictor = build_sam2_video_predictor_hf(
        "facebook/sam2.1-hiera-tiny", device="cpu", hydra_overrides_extra=removed
    )
    assert predictor.options.fill_hole_area == 0


def test_a_hub_id_is_a_string():
    with pytest.raises(TypeError, match=r"model_id must be a string .* got None"):
        build_sam2_hf(None)


@pytest.mark.parametrize(
    "wrong", [{"config": "nope.yaml"}, {"hydra_overrides_extra": ["++model.image_sze=512"]}]
)
def test_a_wrong_config_is_told_before_a_checkpoint_is_fetched(monkeypatch, wrong):
    monkeypatch.setattr(build_sam, "locate", lambda _: pytest.fail("fetched"))
    with pytest.raises((ValueError, FileNotFoundError), match=r"nope|image_size"):
        load("sam2.1_hiera_large", **({"config": "sam2.1_hiera_l"} | wrong))


def test_load_takes_a_hub_id(hub):
    assert load("lkeab/hq-sam", device="cpu").config.hq


def test_the_configs_of_the_hub_table_are_packaged():
    for config, _ in HF_MODEL_ID_TO_FILENAMES.values():
        assert compose_tree(config)


# ---- compiling


def test_vos_optimized_compiles_the_verbs(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda verb, **_: compiled.append(verb.__name__) or verb)
    build_sam2_video_predictor(HQ, device="cpu", vos_optimized=True)
    assert compiled == ["encode_image", "condition", "decode", "encode_memory"]
    compiled.clear()
    build_sam2(HQ, device="cpu", hydra_overrides_extra=["model.compile_image_encoder=true"])
    assert compiled == ["forward"]


def test_a_copy_of_a_compiled_model_computes_with_its_own_weights(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda verb, **_: functools.wraps(verb)(verb))
    overrides = ["model.compile_image_encoder=true"]
    model = build_sam2_video_predictor(
        HQ, device="cpu", vos_optimized=True, hydra_overrides_extra=overrides
    )
    twin = copy.deepcopy(model)
    picture = torch.rand(1, 3, model.image_size, model.image_size)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin.encode_image(picture).embedding.any()
        assert model.encode_image(picture).embedding.any()
