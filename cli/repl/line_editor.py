"""The line in which a person types: editing, several lines, history, completion, a hint below."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from mvlm.cli.shared.streams import reading_input
from mvlm.cli.shared.terminal import is_dumb

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyBindings

PROMPT = "> "
_MORE = ". "


class LineEditor(Protocol):
    """Reads questions of one or several lines."""

    @property
    def can_prefill(self) -> bool:
        """Whether a text can be given to be edited."""

    def read(self, hint: Callable[[], str], text: str = "") -> str:
        """Return what was typed.

        Args:
            hint: Returns the line below.
            text: Stands in the line already.

        Raises:
            EOFError: The person leaves.
            KeyboardInterrupt: By Ctrl-C.
        """


def open_line_editor(commands: Iterable[str]) -> LineEditor:
    """Return the editor for the terminal that there is."""
    return PlainLines() if is_dumb() else EditedLines(commands)


class PlainLines:
    """For terminals that can do nothing: a line that ends with a backslash goes on."""

    can_prefill = False

    def read(self, hint: Callable[[], str], text: str = "") -> str:
        """Return what was typed; see `LineEditor`."""
        lines = list[str]()
        while True:
            with reading_input():
                line = input(_MORE if lines else PROMPT)
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])


class EditedLines:
    """By prompt_toolkit.

    Args:
        commands: The names of the commands, for completion.
    """

    can_prefill = True

    def __init__(self, commands: Iterable[str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.output import ColorDepth
        from prompt_toolkit.shortcuts import CompleteStyle
        from prompt_toolkit.styles import Style

        from mvlm.cli.repl.completion import CommandCompleter
        from mvlm.cli.repl.history import FileHistory, history_path

        plain = "NO_COLOR" in os.environ
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=_MORE,
            key_bindings=_bindings(),
            history=FileHistory(history_path()),
            completer=CommandCompleter(commands),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            enable_open_in_editor=True,
            reserve_space_for_menu=0,
            color_depth=ColorDepth.DEPTH_1_BIT if plain else None,
            style=Style.from_dict({"bottom-toolbar": "noreverse" if plain else "noreverse dim"}),
        )

    def read(self, hint: Callable[[], str], text: str = "") -> str:
        """Return what was typed; see `LineEditor`."""
        with reading_input():
            typed: str = self._session.prompt(
                default=text, bottom_toolbar=lambda: _cut(hint()), handle_sigint=False
            )
        return typed


def _cut(hint: str) -> str:
    """Cut the hint to the terminal's width."""
    from rich.cells import set_cell_size

    columns = os.get_terminal_size(sys.stdout.fileno()).columns - 1
    return set_cell_size(hint, columns).rstrip()


def _bindings() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    bindings = KeyBindings()

    @bindings.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        """Send; but a backslash at the end goes on with another line."""
        buffer = event.current_buffer
        if buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _alt_enter(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return bindings
