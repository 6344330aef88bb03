"""Entries of a data set that are passed over, counted and named."""

from __future__ import annotations

from dataclasses import dataclass, field

_EXAMPLES = 3
_EXAMPLE_LENGTH = 120


class UnusableEntryError(Exception):
    """An entry is passed over.

    Args:
        reason: Why, behind "entries"; they are counted by it.
        example: What of the entry shows it, for the user to look up.
    """

    def __init__(self, reason: str, example: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.example = example


@dataclass
class Skipped:
    """Entries that were passed over.

    Attributes:
        counts: How many, by reason.
        examples: The first few of each reason.
        unknown_keys: Keys that are not understood, of entries that were used.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unknown_keys: set[str] = field(default_factory=set)

    def add(self, error: UnusableEntryError) -> None:
        """Count an entry."""
        self.counts[error.reason] = self.counts.get(error.reason, 0) + 1
        examples = self.examples.setdefault(error.reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(error.example[:_EXAMPLE_LENGTH])

    def describe(self) -> str:
        """Return the counts with their examples, for a sentence; empty if there are none."""
        parts = []
        for reason, count in self.counts.items():
            shown = [*self.examples[reason], *["..."] * (count > len(self.examples[reason]))]
            parts.append(f"{count:,} {reason} ({', '.join(shown)})")
        return "; ".join(parts)
