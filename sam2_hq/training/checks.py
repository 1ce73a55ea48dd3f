"""Checks of numbers that people write into recipes."""

from __future__ import annotations


def check_shares(options: object, *names: str) -> None:
    """Raise ValueError unless each of these attributes is between 0 and 1."""
    for name in names:
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}")


def check_counts(options: object, *names: str, least: int = 0) -> None:
    """Raise ValueError unless each of these attributes is at least `least`."""
    for name in names:
        value = getattr(options, name)
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}")
