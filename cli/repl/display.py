"""How an answer is shown: as Markdown where the terminal can, or else as the text that it is."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mvlm.cli.shared.answers import Parts, stream_parts, tell_dropped
from mvlm.cli.shared.progress import waiting
from mvlm.cli.shared.terminal import can_show, is_dumb, is_terminal

_DRAWN_WITH = "•─▌"


def can_draw() -> bool:
    """Whether standard output is a terminal with colours, cursor movements and UTF-8."""
    return (
        is_terminal(sys.stdout)
        and not is_dumb()
        and "NO_COLOR" not in os.environ
        and can_show(_DRAWN_WITH)
    )


def show_reply(reply: Parts, *, plain: bool) -> None:
    """Show an answer while it comes."""
    if plain or not can_draw():
        stream_parts(reply)
        return
    _draw(reply)


def _draw(reply: Parts) -> None:
    tell_dropped(reply)
    with waiting("reading") as stop_waiting:
        from mvlm.cli.repl.markdown_stream import MarkdownStream

        stream = MarkdownStream()
        try:
            for part in reply:
                stop_waiting()
                stream.feed(part)
        finally:
            stop_waiting()
            stream.finish()


@contextmanager
def quiet_keyboard() -> Iterator[None]:
    """Within the block, do not echo what is typed: it would stand in the middle of an answer."""
    descriptor = sys.stdin.fileno()
    try:
        before = termios.tcgetattr(descriptor)
    except (termios.error, ValueError, OSError):
        yield
        return
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
