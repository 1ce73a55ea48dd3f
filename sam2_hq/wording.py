"""Words of error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` with the nearest of `known`, or nothing if none is near."""
    nearest = get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def first_line(error: object) -> str:
    """The first line of another library's message, which may hold a page."""
    return str(error).strip().partition("\n")[0]
