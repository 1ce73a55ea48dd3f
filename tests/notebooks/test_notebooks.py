"""The notebooks are small, hold no results, and run from top to bottom."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PUBLISHED = {
    "automatic_mask_generator_example",
    "image_predictor_example",
    "video_predictor_example",
}


def code(book: Path) -> list[str]:
    cells = json.loads(book.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what a notebook may read."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def test_the_published_notebooks_are_there():
    assert {book.stem for book in BOOKS} >= PUBLISHED


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_a_notebook_is_short_and_stores_no_results(book):
    notebook = json.loads(book.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert 6 <= len(notebook["cells"]) <= 10
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_every_cell_runs_in_the_folder_of_the_notebooks(book, checkout, monkeypatch):
    monkeypatch.chdir(checkout / "notebooks")
    before = set(checkout.rglob("*"))
    names: dict[str, object] = {"__name__": book.stem}
    for number, cell in enumerate(code(book)):
        exec(compile(cell, f"{book.name}, code cell {number}", "exec"), names)
    assert set(checkout.rglob("*")) == before


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_a_notebook_finds_the_clip_from_the_root_too(book, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    names: dict[str, object] = {}
    exec(code(book)[0], names)
    assert Image.open(names["CLIP"] / "00000.jpg").size == (480, 270)
