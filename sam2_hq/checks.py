"""Checks of settings: names and values in; the one that is wrong is named, with what was wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any  # Any: whatever a user gave


def check_numbers(values: Mapping[str, Any], *names: str, least: float = -math.inf) -> None:
    """Check real numbers, not below `least`: those of these names, or all.

    Raises:
        TypeError: names the first that is no number.
        ValueError: names the first that is out of range.
    """
    for name, value in _chosen(values, names).items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, got {value!r}")
        if not float(value) >= least:  # written so that NaN fails
            wanted = "a number" if least == -math.inf else f"{least:g} or more"
            raise ValueError(f"{name} must be {wanted}, got {value}")


def check_counts(values: Mapping[str, Any], *names: str, least: int = 0) -> None:
    """Check whole numbers, not below `least`; names and errors as in `check_numbers`."""
    for name, value in _chosen(values, names).items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
        check_numbers({name: value}, least=least)


def check_shares(values: Mapping[str, Any], *names: str) -> None:
    """Check real numbers between 0 and 1; names and errors as in `check_numbers`."""
    for name, value in _chosen(values, names).items():
        check_numbers({name: value})
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}")


def _chosen(values: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    return {name: values[name] for name in names} if names else values
