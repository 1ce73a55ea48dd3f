"""One toy model and one tiny data set for all; nobody writes into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2_hq.model_spec import ModelSpec
from tests.batch.sets import write_model, write_sequence


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """The toy model on disk."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sequences of two objects each."""
    root = tmp_path_factory.mktemp("set")
    for name in ("ant", "bee", "cat"):
        write_sequence(root, name)
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to write; not there yet."""
    return tmp_path / "out"
