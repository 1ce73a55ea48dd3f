"""The configs are found wherever the package is installed from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml"))
WEIGHTS = "sam2_hq/weights/sam2.1_hq_hiera_nano.safetensors"
SOURCES = (
    "sam2_hq",
    "configs",
    "checkpoints",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "LICENSE",
)

PROBE = """
import pathlib, site, sys
# The environment that runs the tests may hold an editable install of its own: it must not answer.
def is_editable(finder):
    return getattr(finder, "__module__", "").startswith("__editable__")
sys.meta_path[:] = [finder for finder in sys.meta_path if not is_editable(finder)]
sys.path[:] = [p for p in sys.path if not (pathlib.Path(p) / "sam2_hq").is_dir()]
for name in [n for n in sys.modules if n.startswith("__editable__")]:
    del sys.modules[name]
sys.path.insert(0, sys.argv[1])
site.addsitedir(sys.argv[1])
from sam2_hq.compose import compose_tree, config_dir, config_names
import sam2_hq
assert len(config_names()) == 15, config_names()
assert compose_tree("sam2.1_hq_hiera_l")["model"]["image_size"] == 1024
print(sam2_hq.__file__, config_dir(), sep="\\n")
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            skipped = shutil.ignore_patterns("__pycache__", "*.fatbin")
            shutil.copytree(ROOT / name, folder / name, ignore=skipped)
        else:
            shutil.copy(ROOT / name, folder / name)
    (folder / "README.md").write_text("the readme\n")
    return folder


def build(hook: str, checkout: Path, output: Path) -> Path:
    """Call a hook of the build backend in its own process, as pip does."""
    output.mkdir(exist_ok=True)
    code = f"from setuptools.build_meta import {hook}; {hook}({str(output)!r})"
    environment = {**os.environ, "SAM2_BUILD_CUDA": "0"}
    subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, env=environment, check=True, capture_output=True
    )
    (made,) = (path for path in output.iterdir() if path.suffix in (".whl", ".gz"))
    return made


def probe(site: Path, folder: Path) -> tuple[Path, Path]:
    """Import the package from `site` in a fresh interpreter; its file and its config folder."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(site)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    module, configs = done.stdout.split("\n")[:2]
    return Path(module), Path(configs)


def unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_a_wheel_from_the_source_distribution_carries_all_that_is_needed(checkout, tmp_path):
    sdist = build("build_sdist", checkout, tmp_path / "sdist")
    shutil.unpack_archive(sdist, tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert all((source / config).is_file() for config in CONFIGS)
    assert (source / "sam2_hq" / "csrc" / "connected_components.cu").is_file()

    site = unpack(build("build_wheel", source, tmp_path / "wheel"), tmp_path / "site")
    assert all((site / "sam2_hq" / config).is_file() for config in CONFIGS)
    assert (site / "sam2_hq" / "py.typed").is_file()
    assert (site / "sam2_hq" / "csrc" / "connected_components.cu").is_file()
    assert (site / WEIGHTS).read_bytes() == (ROOT / WEIGHTS).read_bytes()
    module, configs = probe(site, tmp_path)
    assert module == site / "sam2_hq" / "__init__.py"
    assert configs == site / "sam2_hq" / "configs"


def test_a_second_build_in_the_same_folder_forgets_removed_configs(checkout, tmp_path):
    extra = checkout / "configs" / "sam2" / "removed.yaml"
    extra.write_text("model: {}\n")
    build("build_wheel", checkout, tmp_path / "first")
    extra.unlink()
    names = zipfile.ZipFile(build("build_wheel", checkout, tmp_path / "second")).namelist()
    assert "sam2_hq/configs/sam2/sam2_hiera_t.yaml" in names
    assert "sam2_hq/configs/sam2/removed.yaml" not in names


def test_an_editable_install_uses_the_configs_of_the_checkout(checkout, tmp_path):
    site = unpack(build("build_editable", checkout, tmp_path / "wheel"), tmp_path / "site")
    module, configs = probe(site, tmp_path)
    assert module.is_relative_to(checkout)
    assert configs == checkout / "configs"
    assert not (checkout / "sam2_hq" / "configs").exists()


def test_a_plain_checkout_needs_no_install(tmp_path):
    module, configs = probe(ROOT, tmp_path)
    assert module.is_relative_to(ROOT)
    assert configs == ROOT / "configs"


def test_the_wheel_offers_the_command(checkout, tmp_path):
    site = unpack(build("build_wheel", checkout, tmp_path / "wheel"), tmp_path / "site")
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    assert "sam2-hq = sam2_hq.cli.main:main" in entry_points.read_text()
