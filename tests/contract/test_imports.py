"""Rules about the house that a test can hold: imports point down, and importing changes nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import sam2_hq

PACKAGE = Path(sam2_hq.__file__).parent

FLOORS = [
    [
        "structures",
        "config",
        "device",
        "peak_memory",
        "prompts",
        "wording",
        "checks",
        "ops",
        "data",
        "visualization",
        "transforms",
    ],
    ["modeling", "checkpoint", "hub", "compose", "zoom_in"],
    ["tracking"],
    ["sam2_image_predictor", "sam2_video_predictor", "sam2_hq_video_predictor"],
    ["assembly", "build_sam", "model_spec", "automatic_mask_generator"],
    ["evaluation", "benchmark"],
    ["training", "batch"],
    ["cli"],
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

UPWARD = {
    # Class methods of the published interface; they import when they are called.
    ("sam2_image_predictor", "build_sam"),
    ("sam2_video_predictor", "build_sam"),
    # A stream belongs to a predictor; the name is for type checkers alone.
    ("tracking", "sam2_video_predictor"),
}


def rooms() -> dict[Path, str]:
    return {
        path: path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py" or path.parent != PACKAGE
    }


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_every_room_has_a_floor() -> None:
    assert set(rooms().values()) - {"configs", "weights"} == set(FLOOR)


def test_imports_point_down() -> None:
    wrong = []
    for path, room in rooms().items():
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != "sam2_hq" or len(parts) < 2 or parts[1] not in FLOOR:
                continue
            if FLOOR[parts[1]] > FLOOR[room] and (room, parts[1]) not in UPWARD:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


def test_only_the_composer_imports_hydra() -> None:
    users = {
        path.name for path in rooms() if any(n.split(".")[0] == "hydra" for n in imported(path))
    }
    assert users == {"compose.py"}


def test_importing_everything_changes_nothing_global() -> None:
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in rooms()
        if path.name != "__main__.py"
    ]
    script = f"""
import random, warnings, logging, os
import numpy as np, torch, torchvision, scipy.ndimage, PIL.Image, tqdm, typer
import hydra, omegaconf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.config_store import ConfigStore
def world():
    return (
        GlobalHydra.instance().hydra is None, list(ConfigStore.instance().repo),
        str(warnings.filters), random.getstate(), str(np.random.get_state()),
        torch.get_rng_state().tolist(),
        torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled(),
        logging.getLogger().handlers[:], sorted(os.environ.items()), os.getcwd(),
    )
before = world()
import importlib
for name in {modules!r}:
    importlib.import_module(name)
after = world()
assert before == after, [(a, b) for a, b in zip(before, after) if a != b]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
