"""Our numbers are the published ones, for every kind of prompt and every way to track."""

from pathlib import Path

import pytest

from tests.parity.cases import CASES
from tests.parity.harness import differences, recorded, run_image, run_video


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_case_is_reproduced(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    want = recorded(name, case)
    assert want, "nothing was recorded under this name"
    run = run_image if case["kind"] == "image" else run_video
    assert differences(run(case, tmp_path), want, case["tolerance"]) == []


def test_a_wrong_number_is_noticed() -> None:
    name = "sam2_t_image"
    want = recorded(name, CASES[name])
    spoiled = dict(want)
    key = next(k for k in spoiled if k.endswith("full/logits"))
    spoiled[key] = spoiled[key] * 1.001
    assert differences(want, want, CASES[name]["tolerance"]) == []
    assert len(differences(spoiled, want, CASES[name]["tolerance"])) == 2
