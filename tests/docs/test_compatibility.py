"""Every address on the page of published names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sam2_hq

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(Path(sam2_hq.__file__).parent).with_suffix("").parts)
    for path in Path(sam2_hq.__file__).parent.rglob("*.py")
}
CLASSES = {
    "Image predictor": "sam2_image_predictor.SAM2ImagePredictor",
    "Video predictor": "sam2_video_predictor.SAM2VideoPredictor",
    "Automatic masks": "automatic_mask_generator.SAM2AutomaticMaskGenerator",
}
OF_AN_INSTANCE = ("A3.11", "A3.12")  # tests/contract/test_public_surface.py holds these


class Row(NamedTuple):
    section: str
    number: str
    name: str
    here: str


def rows() -> list[Row]:
    found, section, number = [], "", ""
    for line in (ROOT / "docs/compatibility.md").read_text().splitlines():
        if line.startswith("#"):
            section = line.strip("# ")
        if match := re.match(r"\| ([AB][0-9.]*)? ?\| (.+?) \| (.+?) \|", line):
            number = match[1] or number
            found.append(Row(section, number, match[2], match[3]))
    return found


def words(cell: str) -> list[str]:
    """What stands between backticks, without call brackets."""
    return [re.sub(r"\(.*\)", "", word) for word in re.findall(r"`([^`]+)`", cell)]


def module_of(word: str) -> str | None:
    """The longest part of a dotted word that is a module."""
    while word and word not in MODULES:
        word = word.rpartition(".")[0]
    return word or None


def find(address: str) -> Any:
    module = module_of(address)
    assert module, f"{address} begins with no module"
    found: Any = importlib.import_module(f"sam2_hq.{module}")
    for name in filter(None, address.removeprefix(module).split(".")):
        found = getattr(found, name)
    return found


def addresses(row: Row) -> list[str]:
    """What a row says is there."""
    if row.number in OF_AN_INSTANCE:
        return []
    if row.here == "there":
        owner = CLASSES.get(row.section)
        members = [w for w in words(row.name) if w.startswith(".")]
        return [f"{owner}{member}" for member in members] if owner else []
    if row.here == "same address":
        return under_one_module(words(row.name))
    here = words(row.here)
    if here and set(here) <= MODULES:
        names = [word for word in words(row.name) if re.fullmatch(r"[A-Za-z]\w+", word)]
        return [f"{here[0]}.{name}" for name in names] or here
    return under_one_module(here)


def under_one_module(names: list[str]) -> list[str]:
    """Addresses of `a.module`, `Name`, `Name`: bare names belong to the module before them."""
    found, module = [], None
    for name in names:
        if module_of(name):
            module = module_of(name)
            found.append(name)
        elif module and re.fullmatch(r"[A-Za-z]\w+", name):
            found.append(f"{module}.{name}")
    return found


def test_the_page_has_a_row_for_every_published_feature():
    numbers = {row.number for row in rows()}
    sections = {1: 10, 2: 7, 3: 17, 4: 26, 5: 7, 6: 11, 7: 9, 8: 12, 9: 5, 10: 11}
    wanted = {f"A{s}.{n}" for s, count in sections.items() for n in range(1, count + 1)}
    assert numbers >= wanted | {f"B{n}" for n in range(1, 22)}


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.number} {row.name[:30]}")
def test_what_a_row_names_is_there(row):
    for address in addresses(row):
        assert find(address) is not None


def test_most_rows_are_held_to_an_address():
    assert sum(len(addresses(row)) for row in rows()) > 100


def test_files_that_rows_name_exist():
    names = {word for row in rows() for word in words(row.here)}
    files = [name for name in names if re.fullmatch(r"[\w/.]+(/|\.(sh|py|md|yaml|in))", name)]
    assert len(files) > 5
    for name in files:
        assert (ROOT / name).exists(), name
