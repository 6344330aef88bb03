"""The chat's loop: reads what the other side says, answers it, and what Ctrl-C means when.

On a terminal there is line editing and a little decoration; with lines piped in, the answers alone
go to standard output. An error ends a question and not the conversation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvlm.cli.repl.commands import COMMANDS, run_command
from mvlm.cli.repl.line_editor import LineEditor, open_line_editor
from mvlm.cli.repl.state import ChatState
from mvlm.cli.shared.interrupts import termination_signal
from mvlm.cli.shared.streams import reading_input
from mvlm.cli.shared.terminal import is_terminal, show, show_dim, warn
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.terminal_text import one_line

if TYPE_CHECKING:
    from mvlm.cli.conversation.conversation import Conversation
    from mvlm.runtime.sampling import SamplingParams
    from mvlm.runtime.structured_output import Constraint


class Repl:
    """A chat with a person, or with a script that plays one.

    Args:
        conversation: What answers.
        params: How answers are decoded.
        images: Images to show with the first question.
        plain: Whether to show Markdown as it is.
        constraint: The form of the answers; None for any.

    Raises:
        ImageError: An image cannot be read.
        PromptError: There are images and the model reads text only.
    """

    def __init__(
        self,
        conversation: Conversation,
        params: SamplingParams,
        images: Sequence[Path],
        *,
        plain: bool = False,
        constraint: Constraint | None = None,
    ) -> None:
        is_person = is_terminal(sys.stdin) and is_terminal(sys.stdout)
        self._state = ChatState(conversation, params, is_person, plain=plain, constraint=constraint)
        self._state.images = [conversation.attach(path) for path in images]
        self._editor: LineEditor | None = None

    def run(self) -> None:
        """Converse until the other side leaves.

        Raises:
            KeyboardInterrupt: By Ctrl-C twice.
        """
        state = self._state
        if state.is_person:
            self._editor = open_line_editor(COMMANDS)
            state.can_edit = self._editor.can_prefill
            show_dim(f"{state.conversation.title}. /help shows the commands.")
        for line in self._lines():
            try:
                self._take(line)
            except MvlmError as error:
                warn(one_line(f"error: {error}"))
            if state.has_left:
                return

    def _lines(self) -> Iterator[str]:
        """Yield what the other side says, without blank lines."""
        interrupted = False
        while True:
            try:
                line = self._read()
            except EOFError:
                if self._state.is_person:
                    show("")
                return
            except KeyboardInterrupt:
                if interrupted or not self._state.is_person or termination_signal():
                    raise
                interrupted = True
                self._state.stop_editing()
                show("\nCtrl-C again or Ctrl-D to leave")
                continue
            interrupted = False
            if line.strip():
                yield line.rstrip()
            else:
                self._state.stop_editing()

    def _read(self) -> str:
        state = self._state
        if self._editor is None:
            with reading_input():
                line = sys.stdin.readline()
            if not line:
                raise EOFError
            return line
        with state.conversation.reading_ahead(state.images):
            return self._editor.read(self._hint, state.edited or "")

    def _hint(self) -> str:
        names = ", ".join(one_line(image.name) for image in self._state.images)
        shown = f"with {names}: " if names else ""
        edited = "replaces the last turn: " if self._state.edited is not None else ""
        return f"{shown}{edited}Enter asks, Alt-Enter breaks the line, Tab completes, /help"

    def _take(self, line: str) -> None:
        """Do what a line says. Only one whose first character is / is a command."""
        state = self._state
        is_edited, state.edited = state.edited is not None, None
        if line.startswith("/"):
            run_command(state, line)
            return
        state.ask(line.strip(), state.images, replace_last=is_edited)
        state.images = []
