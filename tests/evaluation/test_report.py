"""The report opens by itself, says what the evaluation says, and shows where it went wrong."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from sam2_hq.cli.main import app
from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import VideoSequence, find_sequences
from sam2_hq.evaluation.evaluate import Evaluation, evaluate
from sam2_hq.evaluation.quality import measure_quality
from sam2_hq.evaluation.report import write_report
from sam2_hq.evaluation.report_pictures import PER_SEQUENCE, crop_around, worst_frames
from sam2_hq.evaluation.report_plots import lowest_of_stretches
from sam2_hq.evaluation.scoring import ObjectCurves
from sam2_hq.evaluation.tables import Column
from tests.evaluation.folders import SIZE, square, write_packed

NASTY = "a&b <script>alert(1)<"
HERE, ASIDE = square(1, 10, 10), square(1, 10, 13)
PAIR = square(2, 26, 38, on=HERE)
VOID_TAGS = {"meta", "img", "line", "circle", "polyline"}


class Outline(HTMLParser):
    """What is on a page; complains about tags that are not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.cells: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_TAGS:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "dd", "b"):
            self.cells.append(data)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """`gt`, `pred` and `frames`: a sequence with an awful name, and one with two objects."""
    for name, true, predicted in ((NASTY, HERE, ASIDE), ("two", PAIR, PAIR)):
        write_packed(tmp_path / "gt" / name, [true] * 6)
        write_packed(tmp_path / "pred" / name, [predicted] * 5 + [HERE])
        folder = tmp_path / "frames" / name
        folder.mkdir(parents=True)
        for index in range(6):
            Image.new("RGB", SIZE[::-1], (90, 120, 90)).save(folder / f"{index:05d}.png")
    return tmp_path


def scored(folder: Path, *, frames: bool = True) -> tuple[Evaluation, list[VideoSequence]]:
    rules = Conventions()
    sequences = find_sequences(folder / "gt", rules, frames=folder / "frames" if frames else None)
    evaluation = evaluate(sequences, folder / "pred", rules)
    quality = measure_quality(sequences, folder / "pred", evaluation.sequences)
    return replace(evaluation, quality=quality), sequences


def report(folder: Path, **options: Any) -> str:
    evaluation, sequences = scored(folder)
    write_report(folder / "r.html", evaluation, sequences, folder / "pred", **options)
    return (folder / "r.html").read_text()


def pictures(page: str) -> list[Image.Image]:
    codes = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(code))) for code in codes]


def test_the_page_is_whole_and_needs_nothing_else(sets: Path):
    page = report(sets, title="My <model>")
    outline = Outline(page)
    assert all(link.startswith("data:image/jpeg") for link in outline.links)
    assert "http" not in page
    assert "url(" not in page
    assert "<h1>My &lt;model&gt;</h1>" in page


def test_names_are_text_and_never_markup(sets: Path):
    page = report(sets)
    assert "<script>alert" not in page
    assert NASTY in Outline(page).cells


def test_the_numbers_are_those_of_the_evaluation(sets: Path):
    page = report(sets)
    cells = Outline(page).cells
    evaluation, _ = scored(sets)
    for value in [*evaluation.overall(), *evaluation.overall().to_json().values()]:
        assert f"{100 * value:.1f}".replace("-", "−") in cells
    assert f"{100 * (evaluation.overall_quality()['boundary_iou'] or 0):.1f}" in cells


def test_every_sequence_has_its_curves_and_every_object_its_line(sets: Path):
    page = report(sets)
    assert page.count('aria-label="score over 4 frames"') == 2
    assert page.count("<polyline") == 3


def test_the_worst_frames_are_shown_on_the_picture_beside_the_truth(sets: Path):
    page = report(sets)
    shown = pictures(page)
    assert len(shown) % 3 == 0
    assert 0 < len(shown) // 3 <= PER_SEQUENCE
    picture, predicted, true = (np.asarray(image).astype(int) for image in shown[:3])
    assert np.abs(picture - [90, 120, 90]).max() < 12
    assert np.abs(predicted - true).max() > 60
    assert "<span>frame 00001</span>" in page


def test_without_frames_the_masks_stand_alone(sets: Path):
    evaluation, sequences = scored(sets, frames=False)
    write_report(sets / "r.html", evaluation, sequences, sets / "pred")
    assert len(pictures((sets / "r.html").read_text())) % 2 == 0


def test_the_same_masks_give_the_same_report(sets: Path):
    assert report(sets) == report(sets)


def test_a_perfect_result_has_no_worst_frame(sets: Path):
    evaluation, sequences = scored(sets)
    write_report(
        sets / "r.html",
        replace(evaluation, sequences={"two": evaluation.sequences["two"]}, quality={}),
        sequences,
        sets / "pred",
    )
    page = (sets / "r.html").read_text()
    assert pictures(page) == []
    assert "There is none" in page


def test_a_missing_picture_is_named_and_nothing_is_written(sets: Path):
    (sets / "frames" / NASTY / "00001.png").rename(sets / "frames" / NASTY / "x.png")
    evaluation, sequences = scored(sets)
    with pytest.raises(ValueError, match="no picture of frame '00001'"):
        write_report(sets / "r.html", evaluation, sequences, sets / "pred")
    assert not list(sets.glob("*.html*"))


def scores(values: list[float]) -> ObjectCurves:
    return ObjectCurves([f"{index:05d}" for index in range(len(values))], values, values)


def test_pictures_are_spread_over_sequences_and_time():
    falling = [1 - index / 99 for index in range(100)]
    chosen = worst_frames({"a": {1: scores(falling)}, "b": {1: scores([0.9, 0.95, 1.0])}}, 24)
    assert [(sight.sequence, sight.frame) for sight in chosen] == [
        ("a", "00099"),
        ("a", "00089"),
        ("a", "00079"),
        ("b", "00000"),
        ("b", "00001"),
    ]
    assert worst_frames({"a": {1: scores([1.0] * 5)}}, 24) == []


def test_a_report_of_a_thousand_sequences_stays_small(sets: Path):
    evaluation, sequences = scored(sets)
    long = scores(np.random.default_rng(0).random(300).tolist())
    many = {f"video{index}": {1: long, 2: long} for index in range(1000)}
    evaluation = replace(evaluation, sequences=many, quality={})
    write_report(sets / "r.html", evaluation, sequences, sets / "pred", max_pictures=0)
    assert (sets / "r.html").stat().st_size < 8e6  # pictures add at most 24 times 100 kB


@given(st.lists(st.floats(0, 1), min_size=1, max_size=400), st.integers(1, 50))
def test_a_short_curve_is_itself_and_a_long_one_keeps_its_lows(values: list[float], most: int):
    points = list(enumerate(values))
    kept = lowest_of_stretches(points, most)
    assert len(kept) <= most
    assert [x for x, _ in kept] == sorted({x for x, _ in kept})
    assert min(y for _, y in kept) == min(values)
    assert len(values) > most or kept == points


@given(st.integers(0, 2**32))
def test_a_cut_shows_the_object_in_the_proportions_of_the_picture(seed: int):
    rng = np.random.default_rng(seed)
    mask = np.zeros((60, 80), dtype=bool)
    y, x = rng.integers(0, 60), rng.integers(0, 80)
    mask[y : y + rng.integers(1, 40), x : x + rng.integers(1, 40)] = True
    x0, y0, x1, y1 = crop_around(mask)
    assert 0 <= x0 < x1 <= 80
    assert 0 <= y0 < y1 <= 60
    assert mask[y0:y1, x0:x1].sum() == mask.sum()
    assert (x1 - x0) / 80 == pytest.approx((y1 - y0) / 60, abs=0.02)


def test_numbers_are_shown_with_true_signs_and_a_dash_for_nothing():
    assert Column("d", "points").show(-0.0123) == "−1.2"
    assert Column("d", "points").show(0.5) == "+50.0"
    assert Column("d", "percent").show(None) == "–"
    assert Column("d", "count").show(12345) == "12,345"


@pytest.fixture
def run() -> Callable[..., Any]:
    runner = CliRunner()
    return lambda *words: runner.invoke(app, ["evaluate", *map(str, words)])


def test_the_command_writes_the_report_and_measures_quality(run, sets: Path):
    words = [sets / "pred", "--gt", sets / "gt", "--protocol", "mose", "--workers", 1]
    html, csv = sets / "r.html", sets / "scores.csv"
    result = run(*words, "--html", html, "--frames", sets / "frames", "--csv", csv)
    assert result.exit_code == 0, result.stderr
    assert "pred, scored as mose" in html.read_text()
    assert "identity switches: 0" in result.stdout
    assert csv.read_text().splitlines()[0].endswith(",boundary_iou,flicker")


def test_a_report_that_cannot_be_made_leaves_no_other_file(run, sets: Path):
    (sets / "frames" / NASTY / "00001.png").write_bytes(b"damaged")
    words = [sets / "pred", "--gt", sets / "gt", "--protocol", "mose", "--workers", 1]
    files = {f"--{name}": sets / f"r.{name}" for name in ("json", "csv", "html")}
    pairs = [word for pair in files.items() for word in pair]
    result = run(*words, "--frames", sets / "frames", *pairs)
    assert result.exit_code == 2
    assert "00001.png" in result.stderr
    assert not any(path.exists() for path in files.values())


def test_the_commands_mistakes_are_told_before_work_is_done(run, sets: Path):
    words = [sets / "pred", "--gt", sets / "gt", "--protocol", "mose", "--html", sets / "r.html"]
    assert "--frames: there is no folder" in run(*words, "--frames", sets / "no").stderr
    (sets / "r.html").write_text("precious")
    assert "exists; --overwrite replaces it" in run(*words).stderr
    assert (sets / "r.html").read_text() == "precious"
