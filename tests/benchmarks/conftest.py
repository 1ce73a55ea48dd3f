"""The scripts of `benchmarks/`, imported as they import each other."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script by name."""
    pytest.importorskip("cv2")
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def run(script, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script with arguments, in this process."""

    def run_main(name: str, *words: object) -> None:
        monkeypatch.setattr("sys.argv", [name, *map(str, words)])
        script(name).main()

    return run_main
