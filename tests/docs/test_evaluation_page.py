"""What docs/evaluation.md says of protocols, numbers and the JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sam2_hq.evaluation.conventions import Conventions
from sam2_hq.evaluation.datasets import dataset_names, find_sequences, load_dataset
from sam2_hq.evaluation.evaluate import evaluate
from sam2_hq.evaluation.quality import measure_quality
from tests.docs.test_markdown import blocks, table
from tests.evaluation.folders import square, write_packed

PAGE = "docs/evaluation.md"


def keys(tree: Any) -> Any:
    return {key: keys(value) for key, value in tree.items()} if isinstance(tree, dict) else None


def test_every_protocol_has_a_row_with_its_conventions():
    rows = {row[0].strip("`"): row for row in table(PAGE, "| protocol |")}
    assert sorted(rows) == dataset_names()
    for name, row in rows.items():
        rules = load_dataset(name).conventions
        meaning_of_255 = "foreground" if rules.is_binary else "background"
        assert row[3] == (meaning_of_255 if rules.is_binary or rules.void else "an object")
        assert row[4].endswith(rules.mean_over)
        assert ("first frame" in row[1]) == (rules.objects == "first_frame" and not rules.is_binary)


def test_the_documented_json_and_numbers_are_those_that_are_written(tmp_path: Path):
    write_packed(tmp_path / "meadow", [square(1, 10, 10)] * 4)
    rules = Conventions()
    sequences = find_sequences(tmp_path, rules)
    evaluation = evaluate(sequences, tmp_path, rules)
    documented = json.loads(blocks(PAGE, "json")[0])
    assert keys(documented) == {"protocol": None, **keys(evaluation.to_json())}
    quality = measure_quality(sequences, tmp_path, evaluation.sequences)
    measured = replace(evaluation, quality=quality).to_json()["global"]
    named = {name.strip("` ") for row in table(PAGE, "| name |") for name in row[0].split(",")}
    assert named == measured.keys()
