"""How work that takes long tells how far it is."""

from collections.abc import Callable
from typing import TypeAlias

# Called with what is being done, how much of it is done, and of how much.
Progress: TypeAlias = Callable[[str, int, int], None]


def no_progress(step: str, done: int, total: int) -> None:
    """Tell nobody."""
