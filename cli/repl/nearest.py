"""Suggests the name that was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return a sentence that suggests a name; None where none is near."""
    found = get_close_matches(name, list(names), n=1)
    return f"Did you mean {found[0]}?" if found else None
