"""What a setting that is wrong is answered with."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sam2_hq.checks import check_counts, check_numbers, check_shares


def test_settings_in_range_pass():
    check_numbers({"rate": -2.5, "area": np.float32(3)})
    check_counts({"side": np.int64(3)}, least=3)
    check_shares({"decay": 0, "click": 1.0})


def test_of_many_settings_those_named_are_checked():
    settings = {"share": 0.5, "name": "nano", "count": 3}
    check_shares(settings, "share")
    with pytest.raises(TypeError, match="name must be a number, got 'nano'"):
        check_numbers(settings, "share", "name")


@pytest.mark.parametrize(
    ("check", "value", "told"),
    [
        (check_numbers, True, "x must be a number, got True"),
        (check_counts, 2.0, "x must be a whole number, got 2.0"),
        (check_counts, True, "x must be a whole number, got True"),
        (check_counts, None, "x must be a whole number, got None"),
        (check_shares, "half", "x must be a number, got 'half'"),
    ],
)
def test_a_setting_of_another_kind_is_named(check, value, told: str):
    with pytest.raises(TypeError, match=told):
        check({"x": value})


@pytest.mark.parametrize(
    ("check", "value", "told"),
    [
        (check_numbers, math.nan, "x must be a number, got nan"),
        (check_counts, -1, "x must be 0 or more, got -1"),
        (check_shares, 1.01, "x must be between 0 and 1, got 1.01"),
        (check_shares, math.nan, "x must be a number, got nan"),
    ],
)
def test_a_setting_out_of_range_is_named(check, value, told: str):
    with pytest.raises(ValueError, match=told):
        check({"x": value})


def test_the_least_number_is_told():
    with pytest.raises(ValueError, match=r"rate must be 0\.5 or more, got 0\.25"):
        check_numbers({"rate": 0.25}, least=0.5)
