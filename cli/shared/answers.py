"""Showing an answer while it comes, and its speeds afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from mvlm.cli.shared.progress import waiting
from mvlm.cli.shared.terminal import readable_bytes, show, warn

if TYPE_CHECKING:
    from mvlm.runtime.completion import Completion, Stats
    from mvlm.runtime.generation import Generation


class Parts(Protocol):
    """An answer in progress."""

    @property
    def dropped_turns(self) -> int:
        """Turns for which the context had no room."""

    def __iter__(self) -> Iterator[str]:
        """Yield the text as it becomes final."""


def stream_answer(generation: Generation) -> Completion:
    """Print an answer's text as it becomes final, and a line break after it."""
    stream_parts(generation)
    return generation.completion


def stream_parts(answer: Parts) -> None:
    """Print the parts of an answer as they come, and a line break after them."""
    tell_dropped(answer)
    with waiting("reading") as stop_waiting:
        for part in answer:
            stop_waiting()
            show(part, end="")
    show("")


def tell_dropped(answer: Parts) -> None:
    """Warn if the context was truncated for an answer."""
    if answer.dropped_turns:
        warn(_dropped(answer.dropped_turns))


def _dropped(turns: int) -> str:
    """Say that the context was truncated; `turns` is at least 1."""
    if turns == 1:
        return "1 turn did not fit into the context any more: the oldest one was dropped"
    return f"{turns} turns did not fit into the context any more: the oldest were dropped"


def speeds(stats: Stats) -> list[tuple[str, str]]:
    """Name and write the speeds of an answer."""
    return [
        ("vision", f"{stats.vision_ms:.0f} ms"),
        ("prefill", f"{stats.prefill_tok_s:,.0f} tok/s"),
        ("decode", f"{stats.decode_tok_s:,.1f} tok/s"),
        ("first token", f"{stats.first_token_ms:.0f} ms"),
        ("peak RSS", readable_bytes(stats.peak_rss_bytes)),
    ]
