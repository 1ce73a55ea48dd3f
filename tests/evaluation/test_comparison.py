"""Two results side by side: means as `evaluate` gives them, intervals that keep their word."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_hq.data.masks import write_id_map
from sam2_hq.evaluation.comparison import Comparison, Difference, Side, Speed, compare, table
from sam2_hq.evaluation.comparison_report import write_comparison_report
from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import find_sequences
from sam2_hq.evaluation.evaluate import Evaluation, evaluate
from sam2_hq.evaluation.intervals import bootstrap_interval
from sam2_hq.evaluation.quality import Quality, measure_quality
from sam2_hq.evaluation.scoring import ObjectCurves
from tests.evaluation.folders import square, write_packed
from tests.evaluation.test_report import NASTY, Outline

Table = dict[str, dict[int, float]]
OBJECTS = Conventions()


def side(
    name: str, scores: Table, *, rules: Conventions = OBJECTS, speed: float | None = None
) -> Side:
    """Every object has one score on all of its frames, and flickers by a tenth of it."""
    sequences = {
        n: {i: ObjectCurves(["a", "b"], [v, v], [v, v]) for i, v in objects.items()}
        for n, objects in scores.items()
    }
    quality = {
        n: Quality(objects, {i: v / 10 for i, v in objects.items()}, len(objects))
        for n, objects in scores.items()
    }
    speeds = {n: Speed(speed, 2**20) for n in scores} if speed is not None else {}
    return Side(name, Path(name), Evaluation(rules, sequences, quality=quality), speeds)


def by_key(comparison: Comparison) -> dict[str, Difference]:
    return {d.metric.key: d for d in comparison.differences}


ONE = {"x": {1: 0.5, 2: 0.7}, "y": {1: 0.9}, "z": {1: 0.1}}
TWO = {"x": {1: 0.6, 2: 0.8}, "y": {1: 0.95}, "z": {1: 0.3}}


def doubled(scores: Table) -> Table:
    """Every sequence and a twin."""
    return {name + twin: objects for name, objects in scores.items() for twin in "ab"}


@pytest.mark.parametrize("mean_over", ["objects", "sequences"])
def test_the_two_means_are_those_of_each_evaluation(mean_over: str):
    rules = Conventions(mean_over=mean_over)  # type: ignore[arg-type]
    a, b = side("a", ONE, rules=rules), side("b", TWO, rules=rules)
    found = by_key(compare(a, b))
    for key in ("J&F", "J", "F"):
        assert found[key].a == pytest.approx(a.evaluation.overall().to_json()[key])
        assert found[key].b == pytest.approx(b.evaluation.overall().to_json()[key])
        assert found[key].interval.mean == pytest.approx(found[key].b - found[key].a)
    assert found["boundary_iou"].b == pytest.approx(b.evaluation.overall_quality()["boundary_iou"])
    assert found["flicker"].a == pytest.approx(a.evaluation.overall_quality()["flicker"])


def test_higher_scores_win_and_so_do_calmer_masks():
    found = by_key(compare(side("a", doubled(ONE)), side("b", doubled(TWO))))
    assert found["J&F"].winner == "b"
    assert found["flicker"].winner == "a"
    assert found["identity_switches"].winner is None


def test_speed_and_memory_are_compared_where_both_are_known():
    slow, fast = side("slow", doubled(ONE), speed=2.0), side("fast", doubled(TWO), speed=8.0)
    found = by_key(compare(slow, fast))
    assert found["frames_per_second"].interval == pytest.approx((6, 6, 6))
    assert found["frames_per_second"].winner == "b"
    assert found["peak_memory_mib"].a == 1
    assert "frames_per_second" not in by_key(compare(side("a", doubled(ONE)), fast))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_few_sequences_decide_nothing(count: int):
    """Five coins fall on one side more often than once in twenty."""
    low, high = ({str(n): {1: value} for n in range(count)} for value in (0.1, 0.9))
    found = by_key(compare(side("a", low), side("b", high)))
    assert found["J&F"].interval.low == pytest.approx(0.8)
    assert found["J&F"].winner is None


def test_what_only_one_side_has_is_left_out():
    more = {**TWO, "w": {1: 1.0}, "z": {1: 0.3, 2: 1.0}}
    assert by_key(compare(side("a", ONE), side("b", more)))["J"].b == pytest.approx(
        np.mean([0.6, 0.8, 0.95, 0.3])
    )
    with pytest.raises(ValueError, match="no object in common"):
        compare(side("a", {"x": {1: 0.5}}), side("b", {"x": {2: 0.5}}))
    with pytest.raises(ValueError, match="different names"):
        compare(side("a", ONE), side("a", TWO))


values = st.lists(
    st.dictionaries(st.integers(1, 3), st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25)
@given(values)
def test_changing_sides_turns_the_difference_around(drawn: list[dict[int, tuple[float, float]]]):
    tables: list[Table] = [
        {str(n): {i: pair[k] for i, pair in objects.items()} for n, objects in enumerate(drawn)}
        for k in (0, 1)
    ]
    a, b = side("a", tables[0]), side("b", tables[1])
    there, back = by_key(compare(a, b)), by_key(compare(b, a))
    for key, difference in there.items():
        low, high = -back[key].interval.high, -back[key].interval.low
        # A quantile between two draws is interpolated from the other end.
        assert difference.interval.low == pytest.approx(low, abs=1e-9)
        assert difference.interval.high == pytest.approx(high, abs=1e-9)


def test_weights_count_as_if_items_were_objects():
    rng = np.random.default_rng(0)
    means, weights = rng.normal(0, 1, 40), rng.integers(1, 5, 40)
    interval = bootstrap_interval(means, weights=weights)
    assert interval.mean == pytest.approx(np.repeat(means, weights).mean())
    assert bootstrap_interval(means, weights=np.full(40, 3)) == pytest.approx(
        bootstrap_interval(means)
    )
    with pytest.raises(ValueError, match=r"weights must be \[40\] and positive"):
        bootstrap_interval(means, weights=np.zeros(40))


def test_an_interval_of_many_items_is_drawn_in_parts_and_stays_the_same():
    values = np.random.default_rng(0).normal(0, 1, 3000)
    draws = np.random.default_rng(0).integers(0, 3000, (2000, 3000))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    tracemalloc.start()
    interval = bootstrap_interval(values, num_resamples=2000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)
    assert peak < draws.nbytes


def test_intervals_hold_the_true_difference_about_as_often_as_they_say():
    """Videos of 1 to 4 objects that share the luck of their video; 95 % of 200 is 190."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        weights = rng.integers(1, 5, 60)
        lucks = rng.normal(0.3, 1, 60)
        interval = bootstrap_interval(lucks, weights=weights, num_resamples=400)
        hits += interval.low <= 0.3 <= interval.high
    assert 180 <= hits <= 198


def test_the_table_has_a_line_a_metric_and_says_what_is_sure():
    lines = table(compare(side("plain", doubled(ONE)), side("hq", doubled(TWO)))).splitlines()
    assert lines[0].split() == ["plain", "hq", "difference", "95%", "interval", "better"]
    assert lines[1].split()[:4] == ["J&F", "55.0", "66.2", "+11.2"]
    assert lines[1].endswith("hq")
    assert lines[-2].endswith("not told apart")
    assert lines[-1] == "Few sequences (6): the intervals are too short."
    few = table(compare(side("plain", ONE), side("hq", TWO))).splitlines()
    assert few[1].endswith("not told apart")
    assert few[-1] == "Few sequences (3): it takes 6 to tell two sides apart."


def test_enough_sequences_need_no_caution():
    many: Table = {str(n): {1: n / 20} for n in range(20)}
    assert table(compare(side("a", many), side("b", many))).splitlines()[-1].endswith("apart")


def test_the_report_shows_both_beside_the_truth(tmp_path: Path):
    here = square(1, 10, 10)
    for folder, x in (("gt", 10), ("good", 11), ("bad<i>", 18)):
        for name in (NASTY, "other"):
            write_packed(tmp_path / folder / name, [here] + [square(1, 10, x)] * 4)
    rules = Conventions()
    sequences = find_sequences(tmp_path / "gt", rules)
    sides = []
    for name in ("good", "bad<i>"):
        found = evaluate(sequences, tmp_path / name, rules)
        quality = measure_quality(sequences, tmp_path / name, found.sequences)
        sides.append(Side(name, tmp_path / name, replace(found, quality=quality)))
    write_comparison_report(tmp_path / "c.html", compare(*sides), sequences)
    page = (tmp_path / "c.html").read_text()
    outline = Outline(page)
    assert "bad<i>" not in page
    assert "bad&lt;i&gt; less good" in page
    assert len(outline.links) == 2 * 3 * 3  # sequences, frames, panels: no pictures are at hand
    assert all(link.startswith("data:image/jpeg") for link in outline.links)
    assert page.count('aria-label="difference and its interval"') == len(
        compare(*sides).differences
    )


def test_curves_run_forward_where_frames_have_no_leading_zeros(tmp_path: Path):
    maps = [square(1, 10, 10 + shift) for shift in (0, 1, 2)]
    for folder, ids in zip(("gt", "a", "b"), maps, strict=True):
        for frame in range(8, 14):
            (tmp_path / folder / "x").mkdir(parents=True, exist_ok=True)
            write_id_map(tmp_path / folder / "x" / f"{frame}.png", ids)
    sequences = find_sequences(tmp_path / "gt", OBJECTS)
    sides = [
        Side(name, tmp_path / name, evaluate(sequences, tmp_path / name, OBJECTS)) for name in "ab"
    ]
    write_comparison_report(tmp_path / "c.html", compare(*sides), sequences, max_pictures=0)
    lines = re.findall(r'<polyline.*?points="(.*?)"', (tmp_path / "c.html").read_text())
    assert len(lines) == 2
    for line in lines:
        places = [float(point.split(",")[0]) for point in line.split()]
        assert len(places) == 4
        assert places == sorted(places)
