from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from omegaconf import OmegaConf

from sam2_hq import compose as compose_module
from sam2_hq.compose import compose_tree, config_names, override

TINY = "configs/sam2.1/sam2.1_hiera_t.yaml"


@pytest.mark.parametrize("name", config_names())
def test_a_packaged_config_answers_to_all_its_names(name):
    tree = compose_tree(name)
    for spelling in (
        name[:-5],
        name[8:],
        name[8:-5],
        name.split("/")[-1],
        name.split("/")[-1][:-5],
    ):
        assert compose_tree(spelling) == tree


def test_overrides_are_applied_in_order_with_any_number_of_pluses():
    overrides = ["model.image_size=512", "+model.fill_hole_area=3", "++model.image_size=256"]
    model = compose_tree(TINY, overrides)["model"]
    assert (model["image_size"], model["fill_hole_area"]) == (256, 3)


def test_an_override_may_make_a_nested_mapping():
    key = "dynamic_multimask_via_stability"
    tree = compose_tree(TINY, [f"++model.sam_mask_decoder_extra_args.{key}=true"])
    assert tree["model"]["sam_mask_decoder_extra_args"] == {key: True}


def test_an_override_may_delete_a_key():
    assert "num_maskmem" not in compose_tree(TINY, ["~model.num_maskmem"])["model"]


def test_an_override_may_refer_to_another_key():
    tree = compose_tree(TINY, ["model.image_size=384", "model.x=${model.image_size}"])
    assert tree["model"]["x"] == 384


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.image_size", "override 'model.image_size' is malformed: missing EQUAL"),
        ("modle.image_size=3", "unknown key 'modle', wanted 'model'"),
        ("model.image_size=1,2", "gives several values"),
        ("~model.nope", "there is no model.nope to delete"),
        ("=3", "must be of the form model.key=value"),
        ("model@here=3", "must be of the form model.key=value"),
        ("model.image_size=${nope}", "Interpolation key 'nope' not found"),
    ],
)
def test_a_wrong_override_is_named(override, message):
    with pytest.raises(ValueError, match=message):
        compose_tree(TINY, [override])


def test_an_override_with_strange_signs_asks_for_quotes():
    with pytest.raises(ValueError, match=r"is malformed: .*needs quotes: key='...'"):
        compose_tree(TINY, ["model.note=a b (2)=c"])


@pytest.mark.parametrize("text", ["runs/lr=3", "/data/Packs (2024)", "a,b [1]#c", "jörg's", "2024"])
def test_a_path_of_any_name_is_given_as_an_override(text):
    assert compose_tree(TINY, [override("model.note", Path(text))])["model"]["note"] == text


def test_overrides_must_be_a_list():
    with pytest.raises(TypeError, match=r"must be a list of strings, got 'model\.x=1'"):
        compose_tree(TINY, "model.x=1")


def test_an_unknown_name_names_its_nearest():
    with pytest.raises(ValueError, match=r"did you mean 'sam2\.1_hq_hiera_l'"):
        compose_tree("sam2.1_hq_heira_l")


@pytest.mark.parametrize("config", [3, None, ["model"]])
def test_a_config_of_another_type_is_refused(config):
    with pytest.raises(TypeError, match="config must be a name, a path or a mapping"):
        compose_tree(config)


def test_a_yaml_file_is_found_by_absolute_and_relative_path(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "mine.yaml"
    file.write_text(
        "# @package _global_\nmodel:\n  _target_: sam2.x\n  size: ${model.other}\n  other: 7\n"
    )
    wanted = {"model": {"_target_": "sam2.x", "size": 7, "other": 7}}
    assert compose_tree(file) == compose_tree(str(file)) == wanted
    monkeypatch.chdir(tmp_path)
    assert compose_tree("deep/mine.yaml") == compose_tree("./deep/mine.yaml") == wanted


def test_a_file_may_build_on_a_packaged_config(tmp_path):
    folder = tmp_path / "a folder, with=signs"
    folder.mkdir()
    file = folder / "mine.yaml"
    file.write_text(
        "# @package _global_\ndefaults:\n  - /sam2.1/sam2.1_hiera_t\n  - _self_\n"
        "model:\n  image_size: 512\n"
    )
    assert compose_tree(file) == compose_tree(TINY, ["model.image_size=512"])


def test_a_link_to_a_file_is_that_file(tmp_path):
    """As in the cache of a hub: the file itself has another name, elsewhere."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots").mkdir()
    for name, size in (("5f3a", 512), ("config.yaml", 256)):
        (tmp_path / "blobs" / name).write_text(f"# @package _global_\nmodel: {{size: {size}}}\n")
    link = tmp_path / "snapshots" / "config.yaml"
    link.symlink_to(tmp_path / "blobs" / "5f3a")
    assert compose_tree(link) == {"model": {"size": 512}}


def test_a_link_to_a_config_has_the_neighbours_of_that(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "base.yaml").write_text("# @package _global_\nmodel: {size: 512}\n")
    (folder / "mine.yaml").write_text("# @package _global_\ndefaults: [base, _self_]\n")
    link = tmp_path / "current.yaml"
    link.symlink_to(folder / "mine.yaml")
    assert compose_tree(link) == {"model": {"size": 512}}


@pytest.mark.parametrize("name", ["o'brien's", "back\\'slash\\", "a $HOME, 50% [x]=y"])
def test_the_package_may_lie_in_a_folder_of_any_name(tmp_path, monkeypatch, name):
    wanted = compose_tree(TINY)
    folder = tmp_path / name / "configs"
    shutil.copytree(compose_module.config_dir(), folder)
    monkeypatch.setattr(compose_module, "config_dir", lambda: folder)
    assert compose_tree(TINY) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "is not YAML"),
        ("just words", "must have a top-level key 'model'"),
        ("defaults: [nowhere/nothing, _self_]\nmodel: {}\n", "mine.yaml"),
        ("network: {}\n", r"must have a top-level key 'model', got \['network'\]"),
        ("model:\n  image_size: ???\n", "cannot be resolved"),
    ],
)
def test_a_broken_file_is_a_value_error(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        compose_tree(file)


def test_only_yaml_files_are_read(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("model: {}")
    with pytest.raises(ValueError, match=r"must be a \.yaml file"):
        compose_tree(file)


def test_a_mapping_is_composed_and_left_as_it_was():
    plain = {"model": {"image_size": 64, "nested": {"a": 1}}}
    config = OmegaConf.create(plain)
    OmegaConf.set_readonly(config, True)
    wanted = {"model": {"image_size": 32, "nested": {"a": 2}}}
    overrides = ["model.image_size=32", "++model.nested.a=2"]
    assert compose_tree(plain, overrides) == compose_tree(config, overrides) == wanted
    assert plain == config == {"model": {"image_size": 64, "nested": {"a": 1}}}


@pytest.mark.parametrize("config", [TINY, "nowhere"])
def test_the_hydra_of_an_application_stays_as_it_was(tmp_path, config):
    (tmp_path / "app.yaml").write_text("name: theirs\n")
    with initialize_config_dir(str(tmp_path), job_name="theirs", version_base="1.3"):
        before = GlobalHydra.instance().hydra, VersionBase.instance().getbase()
        if config == TINY:
            compose_tree(config)
        else:
            with pytest.raises(ValueError, match="unknown config"):
                compose_tree(config)
        assert (GlobalHydra.instance().hydra, VersionBase.instance().getbase()) == before
        assert compose("app").name == "theirs"


def test_a_failing_composition_gives_the_application_its_hydra_back(tmp_path):
    (tmp_path / "app.yaml").write_text("name: theirs\n")
    (tmp_path / "bad.yaml").write_text("model: [")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        with pytest.raises(ValueError, match="is not YAML"):
            compose_tree(tmp_path / "bad.yaml")
        assert GlobalHydra.instance().hydra is before
        assert compose("app").name == "theirs"


def test_importing_and_composing_leave_hydra_uninitialised(tmp_path):
    code = (
        "from sam2_hq.compose import compose_tree, GlobalHydra, VersionBase\n"
        "before = VersionBase.instance().getbase()\n"
        f"compose_tree({TINY!r})\n"
        "assert not GlobalHydra.instance().is_initialized()\n"
        "assert VersionBase.instance().getbase() is before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
