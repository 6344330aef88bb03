"""The interactive chat: commands, history, and what Ctrl-C means when.

On a terminal there is line editing and a little decoration; with questions piped in, the answers
alone go to standard output. An error ends a question and not the conversation.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from mvlm.cli.shared.answers import speeds, stream_answer
from mvlm.cli.shared.images import load_pixels
from mvlm.cli.shared.interrupts import first_interrupt, termination_signal
from mvlm.cli.shared.streams import reading_input
from mvlm.cli.shared.terminal import is_terminal, show, show_dim, warn
from mvlm.cli.shared.user_path import user_path
from mvlm.runtime.engine.background import BackgroundSteps
from mvlm.runtime.errors import MvlmError, PromptError

if TYPE_CHECKING:
    from mvlm.runtime.chat import Chat
    from mvlm.runtime.completion import Completion
    from mvlm.runtime.model import FloatArray
    from mvlm.runtime.sampling import SamplingParams

_PROMPT = "> "
_HELP = """\
/image PATH   show an image with the next question
/reset        begin a new conversation
/save FILE    write the conversation to a file
/load FILE    go on with a conversation from a file
/help         this
/quit         leave, as does Ctrl-D
A question that begins with / takes a space before it.
Ctrl-C ends an answer; twice, the conversation."""


class Repl:
    """A chat with a person, or with a script that plays one.

    Args:
        chat: The conversation's model and history.
        params: How answers are decoded.
        images: Images to show with the first question.

    Raises:
        ImageError: An image cannot be read.
        PromptError: There are images and the model reads text only.
    """

    def __init__(self, chat: Chat, params: SamplingParams, images: Sequence[Path]) -> None:
        self._chat = chat
        self._params = params
        self._person = is_terminal(sys.stdin) and is_terminal(sys.stdout)
        self._pixels: list[FloatArray] = [self._load(path) for path in images]
        self._commands: dict[str, Callable[[str], bool]] = {
            "/image": self._image,
            "/reset": self._reset,
            "/save": self._save,
            "/load": self._load_conversation,
            "/help": self._help,
            "/quit": lambda _: False,
        }

    def run(self) -> None:
        """Converse until the other side leaves.

        Raises:
            KeyboardInterrupt: By Ctrl-C twice.
        """
        if self._person:
            # Importing it is what gives input() line editing and a history.
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401

            manifest = self._chat.model.manifest
            name, scheme = manifest.model.get("name"), manifest.quantization["language"]
            threads = self._chat.model.threads
            show_dim(f"{name} {scheme}, {threads} threads. /help shows the commands.")
        for line in self._lines():
            try:
                if not self._take(line):
                    return
            except MvlmError as error:
                warn(f"error: {error}")

    def _lines(self) -> Iterator[str]:
        """Yield what the other side says, without blank lines."""
        interrupted = False
        while True:
            try:
                with reading_input(), self._reading_ahead():
                    line = input(_PROMPT) if self._person else sys.stdin.readline()
            except EOFError:
                show("")
                return
            except KeyboardInterrupt:
                if interrupted or not self._person or termination_signal():
                    raise
                interrupted = True
                show("\nCtrl-C again or Ctrl-D to leave")
                continue
            interrupted = False
            if not line and not self._person:
                return
            if line.strip():
                yield line.rstrip()

    def _reading_ahead(self) -> AbstractContextManager[object]:
        """Compute what the next prompt begins with while a person types it."""
        if not self._person:
            return contextlib.nullcontext()
        self._chat.read_ahead(self._pixels)
        return BackgroundSteps(self._chat.engine)

    def _take(self, line: str) -> bool:
        """Do what a line says; False to leave. Only one whose first character is / is a command."""
        if not line.startswith("/"):
            self._ask(line.strip())
            return True
        name, *rest = line.split(maxsplit=1)
        if name not in self._commands:
            raise PromptError(
                f"no command {name}",
                expected=", ".join(self._commands),
                fix="Put a space before a question that begins with /.",
            )
        return self._commands[name](rest[0] if rest else "")

    def _ask(self, question: str) -> None:
        generation = self._chat.generate(question, self._pixels, self._params)
        with first_interrupt(generation.cancel):
            completion = stream_answer(generation)
        self._pixels = []
        remark = _remark(completion)
        if self._person:
            numbers = ", ".join(f"{name} {value}" for name, value in speeds(completion.stats))
            show_dim(f"{remark}; {numbers}" if remark else numbers)
        elif remark:
            warn(remark)

    def _image(self, path: str) -> bool:
        if not path:
            raise PromptError("/image", expected="the path of an image", found="nothing")
        self._pixels.append(self._load(user_path(_unquoted(path), "/image")))
        if self._person:
            show_dim("it is shown with the next question")
        return True

    def _reset(self, _: str) -> bool:
        self._chat.reset()
        self._pixels = []
        if self._person:
            show_dim("a new conversation")
        return True

    def _save(self, path: str) -> bool:
        self._chat.save(_named_file(path, "/save"))
        return True

    def _load_conversation(self, path: str) -> bool:
        self._chat.load(_named_file(path, "/load"))
        self._pixels = []
        if self._person:
            show_dim(f"a conversation of {len(self._chat.turns)} turns")
        return True

    def _help(self, _: str) -> bool:
        show(_HELP)
        return True

    def _load(self, path: Path) -> FloatArray:
        return load_pixels(path, self._chat.model)


def _remark(completion: Completion) -> str | None:
    if completion.finish_reason == "stop":
        return None
    return {"length": "the answer reached its limit", "cancelled": "cancelled"}[
        completion.finish_reason
    ]


def _named_file(path: str, command: str) -> Path:
    if not path:
        raise PromptError(command, expected="the path of a file", found="nothing")
    return user_path(_unquoted(path), command)


def _unquoted(path: str) -> str:
    """Take off the quotes that a terminal adds to a file dropped on it."""
    if os.path.lexists(path):
        return path
    with contextlib.suppress(ValueError):
        words = shlex.split(path)
        if len(words) == 1:
            return words[0]
    return path
