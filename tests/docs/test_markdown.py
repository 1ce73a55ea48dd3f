"""What the documents promise: snippets run, links lead somewhere, the JSON is accepted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_hq.cli.prompt_text import read_prompts
from sam2_hq.cli.prompts import Clicks, PaintedMask

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "examples/clip/README.md",
]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("number", [0, 1])
def test_every_python_snippet_of_the_readme_runs(number, tmp_path, monkeypatch):
    snippets = blocks("README.md", "python")
    assert len(snippets) == 2
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippets[number], "README.md", "exec"), {"__name__": "readme"})
    if number == 0:
        assert Image.open("ball.png").size == (480, 270)


def test_the_readme_has_one_command_to_run_and_one_to_test():
    run, test = blocks("README.md", "sh")
    for command in (run, test):
        assert command.count("\n") == 1
    for path in ("examples/clip/JPEGImages/meadow", "examples/prompts.json"):
        assert path in run
        assert (ROOT / path).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_and_headings_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        path, _, heading = link.partition("#")
        target = page.parent / path
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert heading in [title.lower().replace(" ", "-") for title in titles], link


def test_the_documented_prompts_file_is_accepted(tmp_path):
    (tmp_path / "masks").mkdir()
    ids = np.zeros((270, 480), np.uint8)
    ids[100:120, 50:90] = 3
    Image.fromarray(ids).save(tmp_path / "masks/00004.png")
    file = tmp_path / "prompts.json"
    file.write_text(blocks("docs/prompts.md", "json")[0])
    box, points, mask = read_prompts(file)
    assert isinstance(box, Clicks)
    assert box.box == (77, 140, 111, 174)
    assert isinstance(points, Clicks)
    assert points.labels == (1, 0)
    assert isinstance(mask, PaintedMask)
    assert mask.mask.sum() == 20 * 40


def test_the_prompts_of_the_example_are_accepted():
    prompts = read_prompts(ROOT / "examples/prompts.json")
    names = json.loads((ROOT / "examples/clip/clip.json").read_text())["objects"]
    assert [prompt.object_id for prompt in prompts] == [int(number) for number in names]
