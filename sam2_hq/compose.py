"""From a config's name, file or mapping, and override strings, to one plain tree.

The only importer of hydra, which is entered and left here. `config.py` knows what keys mean.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any  # a config tree holds whatever YAML can say

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # of OmegaConf, which parses the files

from sam2_hq.wording import did_you_mean, first_line

ConfigSource = str | os.PathLike[str] | Mapping[str, Any] | DictConfig
"""A packaged name, the path of a YAML file, or the tree itself."""

_hydra_lock = threading.Lock()  # Hydra's state is one for the whole process


def config_dir() -> Path:
    """Return the folder of the packaged configs: in an installed package, beside it in a checkout.

    Raises:
        RuntimeError: if the installation has no configs.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "base" / "model.yaml").is_file():
            return folder
    raise RuntimeError(f"no configs in {package} or beside it: reinstall sam2-hq")


def config_names() -> list[str]:
    """Return the names of the packaged configs, such as `configs/sam2.1/sam2.1_hq_hiera_l.yaml`."""
    root = config_dir()
    files = (file.relative_to(root) for file in root.glob("sam2*/*.yaml"))
    return sorted(f"configs/{file.as_posix()}" for file in files)


def compose_tree(
    config: ConfigSource, overrides: Sequence[str] = (), *, model: ConfigSource | None = None
) -> dict[str, Any]:
    """Compose a config, apply overrides in order (later wins), and resolve interpolations.

    Args:
        config: a packaged name with or without folder and `.yaml`, which goes before a file of the
            same relative path; the path of a YAML file, whose defaults list may name packaged
            configs; or a mapping.
        overrides: Hydra override strings, `model.x=y` with or without leading pluses. A key that is
            not there is added; whether it may be is checked by whoever reads the tree.
        model: another config, whose model takes the place of the one in the defaults list of
            `config`. What the file of `config` itself says of the model stays, laid over it.

    Returns:
        Plain dicts, lists and scalars, with a top-level key `model`.

    Raises:
        TypeError, ValueError: if the config or an override is of the wrong kind, unknown or
            malformed.
    """
    tree = _open(config)
    if model is not None:
        tree.model = OmegaConf.merge(_open(model).model, _own_model_keys(config))
    for override in _parse_overrides(overrides):
        _apply(tree, override)
    if "model" not in tree:
        raise ValueError(f"config must have a top-level key 'model', got {sorted(map(str, tree))}")
    try:
        plain = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"config cannot be resolved: {first_line(error)}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def override(key: str, value: object) -> str:
    """An override that gives `key` the text of `value`, such as a path, whatever signs it has."""
    return f"{key}={QuotedString(str(value), Quote.single).with_quotes()}"


def _open(config: ConfigSource) -> DictConfig:
    if isinstance(config, (Mapping, DictConfig)):
        return _own_copy(config)
    if not isinstance(config, (str, os.PathLike)):
        raise TypeError(f"config must be a name, a path or a mapping, got {type(config).__name__}")
    return _compose_file(*_located(config))


def _located(config: str | os.PathLike[str]) -> tuple[Path, str]:
    """The folder of a config, and its name in it without `.yaml`."""
    name = _packaged_name(config) if isinstance(config, str) else None
    if name is not None:
        return config_dir(), name
    path = Path(config).expanduser()
    if not path.is_file():
        raise ValueError(f"unknown config {str(config)!r}{did_you_mean(str(config), _spellings())}")
    if path.suffix != ".yaml":
        raise ValueError(f"config must be a .yaml file, got {path}")
    # A link has the name and the neighbours of its file, if that is a config by name: one to a
    # file of a hub's cache is not.
    target = path.resolve()
    found = target if target.suffix == ".yaml" else Path(os.path.abspath(path))
    return found.parent, found.stem


def _own_model_keys(config: ConfigSource) -> DictConfig:
    """What a file changes in the model of its defaults list; nothing for a model of its own."""
    if isinstance(config, (str, os.PathLike)):
        folder, name = _located(config)
        file = OmegaConf.load(folder / f"{name}.yaml")
        assert isinstance(file, DictConfig)  # it was composed before
        if "defaults" in file and file.get("model") is not None:
            return file.model
    return OmegaConf.create({})


def _own_copy(config: Mapping[str, Any] | DictConfig) -> DictConfig:
    tree = config.copy() if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    OmegaConf.set_struct(tree, False)
    OmegaConf.set_readonly(tree, False)
    return tree


def _packaged_name(text: str) -> str | None:
    wanted = text.removesuffix(".yaml").removeprefix("configs/")
    for name in config_names():
        inside = name.removesuffix(".yaml").removeprefix("configs/")
        if wanted in (inside, inside.rpartition("/")[2]):
            return inside
    return None


def _spellings() -> list[str]:
    names = config_names()
    recipes = [f"train/{file.name}" for file in (config_dir() / "train").glob("*.yaml")]
    return names + [Path(name).stem for name in names] + recipes


def _compose_file(folder: Path, name: str) -> DictConfig:
    # The packaged configs stay reachable from the defaults list of a user's file.
    where = QuotedString(f"file://{config_dir()}", Quote.single).with_quotes()
    search_path = f"hydra.searchpath=[{where}]"
    try:
        with _own_hydra(), initialize_config_dir(str(folder), version_base="1.2"):
            tree = compose(name, overrides=[search_path])
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"config {folder / name}.yaml: {first_line(error)}") from error
    except YAMLError as error:
        raise ValueError(f"config {folder / name}.yaml is not YAML: {error}") from error
    OmegaConf.set_struct(tree, False)
    return tree


@contextmanager
def _own_hydra() -> Iterator[None]:
    """A Hydra of our own, and afterwards whatever the application had."""
    with _hydra_lock:
        theirs = GlobalHydra.instance().hydra
        version = VersionBase.instance().getbase()
        job = JobRuntime.instance().conf.copy()
        GlobalHydra.instance().clear()
        try:
            yield
        finally:
            GlobalHydra.instance().hydra = theirs
            VersionBase.instance().version_base = version
            JobRuntime.instance().conf = job


def _parse_overrides(overrides: Sequence[str]) -> list[Override]:
    if isinstance(overrides, str) or not all(isinstance(text, str) for text in overrides):
        raise TypeError(f"overrides must be a list of strings, got {overrides!r}")
    return [_parse_override(text) for text in overrides]


def _parse_override(text: str) -> Override:
    try:
        override = OverridesParser.create().parse_overrides([text])[0]
    except HydraException as error:
        reason = str(error).splitlines()[1:2]  # the first line repeats the override
        raise ValueError(
            f"override {text!r} is malformed: {''.join(reason).strip(' ^')}"
            "; text with other signs than letters and digits needs quotes: key='...'"
        ) from error
    if override.is_sweep_override():
        raise ValueError(f"override {text!r} gives several values, wanted one; a list needs [ ]")
    if override.package is not None or not override.key_or_group:
        raise ValueError(f"override {text!r} must be of the form model.key=value")
    return override


def _apply(tree: DictConfig, override: Override) -> None:
    key = override.key_or_group
    root = key.partition(".")[0]
    if root not in tree:
        known = " or ".join(repr(str(name)) for name in sorted(tree))
        raise ValueError(f"override {override.input_line!r}: unknown key {root!r}, wanted {known}")
    try:
        if override.is_delete():
            _delete(tree, key)
        else:
            OmegaConf.update(tree, key, override.value(), merge=True, force_add=True)
    except (OmegaConfBaseException, TypeError) as error:
        message = f"override {override.input_line!r} does not fit: {first_line(error)}"
        raise ValueError(message) from error


def _delete(tree: DictConfig, key: str) -> None:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(tree, parent) if parent else tree
    if not isinstance(node, DictConfig) or name not in node:
        raise TypeError(f"there is no {key} to delete")
    del node[name]
