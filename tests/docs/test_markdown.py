"""What the documents promise: snippets run, links lead somewhere, the JSON is accepted."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.main import get_command

from sam2_hq.cli.main import app
from sam2_hq.cli.prompt_text import read_prompts
from sam2_hq.cli.prompts import Clicks, PaintedMask
from sam2_hq.compose import compose_tree
from sam2_hq.config import CoreConfig, MemoryPolicy, PredictorOptions, parse_model
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from tests.contract.test_imports import FLOORS

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "examples/clip/README.md",
    ROOT / "checkpoints/README.md",
]


def blocks(page: str | Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


SNIPPETS = [
    pytest.param(snippet, id=f"{page.name} {number}")
    for page in PAGES
    for number, snippet in enumerate(blocks(page, "python"))
]


@pytest.fixture
def short_clip(tmp_path, monkeypatch):
    """A working folder in which the example clip has four frames."""
    for part, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        folder = Path("examples/clip", part, "meadow")
        (tmp_path / folder).mkdir(parents=True)
        for number in range(4):
            shutil.copy(ROOT / folder / f"{number:05d}.{suffix}", tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_python_snippet_runs_by_itself(snippet, short_clip):
    exec(compile(snippet, "snippet", "exec"), {"__name__": "snippet"})
    if "ball.png" in snippet:
        assert Image.open("ball.png").size == (480, 270)


TABLED = [*PAGES, ROOT / "tools/README.md"]


@pytest.mark.parametrize("page", TABLED, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_row_of_a_table_is_cut_off_from_its_head(page):
    tables = re.findall(r"^\|.*(?:\n\|.*)*", page.read_text(), re.MULTILINE)
    for table in tables:
        assert re.match(r".*\n\|[ :|-]+\|(\n|$)", table), table


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


def commands() -> dict[str, set[str]]:
    """Command -> its options, `--debug` of the group included."""
    group = get_command(app)
    common = {option for parameter in group.params for option in parameter.opts}
    return {
        name: common.union(
            *((*parameter.opts, *parameter.secondary_opts) for parameter in command.params),
            {"-h", "--help"},
        )
        for name, command in group.commands.items()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_on_a_page_exist(page):
    known = commands()
    text = page.read_text()
    for command, rest in re.findall(r"sam2-hq ([a-z][\w-]*)([^`\n]*)", text):
        assert command in known, command
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", rest):
            assert option in known[command], f"{command} {option}"
    anywhere = set().union(*known.values())
    for option in re.findall(r"`(--[a-z][\w-]*)", text):
        assert option in anywhere, option


def test_every_command_has_a_row():
    page = (ROOT / "docs/command_line.md").read_text()
    rows = re.findall(r"^\| `sam2-hq ([\w-]+)", page, re.MULTILINE)
    assert sorted(rows) == sorted(commands())


def table(page: str, heading: str) -> list[list[str]]:
    """Rows of the first table below a heading or header cell."""
    text = (ROOT / page).read_text()
    body = text[text.index(heading) :]
    found = re.search(r"^\| ---.*\n((?:\|.*\n)+)", body, re.MULTILINE)
    assert found
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]


def test_the_documented_config_keys_and_defaults_are_those_of_the_published_model():
    config = parse_model(compose_tree("sam2.1_hq_hiera_l")["model"])
    parts = {CoreConfig: config.core, MemoryPolicy: config.policy, PredictorOptions: config.options}
    values = {f.name: getattr(part, f.name) for kind, part in parts.items() for f in fields(kind)}
    for key, default, _ in table("docs/configs.md", "| key |"):
        if "video builders" in default:  # the builders add it
            continue
        assert yaml.safe_load(default.split()[0]) == values[key.strip("`")], key


def test_the_documented_arguments_of_predict_are_all_there_are():
    rows = table("docs/image.md", "| argument |")
    documented = {name for row in rows for name in re.findall(r"\w+", row[0])}
    parameters = set(inspect.signature(SAM2ImagePredictor.predict).parameters)
    assert documented == parameters - {"self", "hq_token_only"}


def test_the_drawn_floors_are_those_that_imports_are_held_to():
    page = (ROOT / "docs/architecture.md").read_text()
    drawn = re.findall(r"^ floor (\d)   (.+?)(?:   .*)?$", page, re.MULTILINE)
    rooms = {int(number): re.findall(r"\w+", names) for number, names in drawn}
    for number, floor in enumerate(FLOORS):
        # `tools/` is outside the package, the HQ predictor is a name for the plain one.
        assert sorted({*rooms[number]} - {"tools"}) == sorted(
            {*floor} - {"sam2_hq_video_predictor"}
        )
