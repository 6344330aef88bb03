"""The commands of the chat: what begins with ``/``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mvlm.cli.repl.export import export
from mvlm.cli.repl.image_arguments import image_sources, one_path
from mvlm.cli.repl.nearest import nearest
from mvlm.cli.repl.settings import changed, listed
from mvlm.cli.repl.state import ChatState
from mvlm.cli.shared.preview import show_preview
from mvlm.cli.shared.terminal import show, show_table
from mvlm.runtime.errors import PromptError

_KEYS = """\
A question that begins with / takes a space before it. A line that ends with a backslash goes on.
Ctrl-C ends an answer; twice, the conversation."""
_NO_EDITOR = "/edit needs a terminal on which lines can be edited"


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        run: What it does, with the text behind its name.
        usage: Its name and arguments, for the help.
        help: What it does, in a few words.
    """

    run: Callable[[ChatState, str], None]
    usage: str
    help: str


def run_command(state: ChatState, line: str) -> None:
    """Do what a command's line says.

    Raises:
        MvlmError: There is no such command, or it failed.
    """
    name, *rest = line.split(maxsplit=1)
    if name not in COMMANDS:
        raise PromptError(
            f"no command {name}",
            expected=", ".join(COMMANDS),
            fix=nearest(name, COMMANDS) or "Put a space before a question that begins with /.",
        )
    COMMANDS[name].run(state, rest[0].strip() if rest else "")


def _image(state: ChatState, typed: str) -> None:
    found = [(source, state.conversation.attach(source)) for source in image_sources(typed)]
    for source, image in found:
        state.images.append(image)
        if state.is_person:
            show_preview(source)
            state.note(f"{image.name} is shown with the next question")


def _retry(state: ChatState, _: str) -> None:
    last = state.last()
    state.ask(last.question, last.images, replace_last=True)


def _undo(state: ChatState, _: str) -> None:
    undone = state.conversation.undo()
    state.note(f"taken back: {undone.question}")


def _edit(state: ChatState, _: str) -> None:
    if not state.can_edit:
        raise PromptError(_NO_EDITOR, fix="Take the turn back by /undo, and ask again.")
    last = state.last()
    state.edited, state.images = last.question, list(last.images)


def _system(state: ChatState, text: str) -> None:
    if text:
        state.conversation.set_system(None if text == "default" else text)
    system = state.conversation.system
    state.note("the model's own system message" if system is None else f"system: {system}")


def _set(state: ChatState, typed: str) -> None:
    name, *value = typed.split(maxsplit=1)[:2] or [""]
    if value:
        state.params = changed(state.params, name, value[0])
    elif name:
        changed(state.params, name, "default")  # says what is wrong with the name
    if state.is_person or not value:
        show_table([row for row in listed(state.params) if name in ("", row[0])])


def _stats(state: ChatState, _: str) -> None:
    if not state.stats:
        raise PromptError("there are no speeds yet", expected="a question that was answered")
    show_table([*state.stats, ("turns", str(len(state.conversation.exchanges)))])


def _reset(state: ChatState, _: str) -> None:
    state.conversation.reset()
    state.images = []
    state.note("a new conversation")


def _save(state: ChatState, typed: str) -> None:
    path = one_path(typed, "/save")
    state.conversation.save(path)
    state.note(f"saved in {path}")


def _load(state: ChatState, typed: str) -> None:
    state.conversation.load(one_path(typed, "/load"))
    state.images = []
    state.note(f"a conversation of {len(state.conversation.exchanges)} turns")


def _export(state: ChatState, typed: str) -> None:
    path = one_path(typed, "/export")
    export(state.conversation, path)
    state.note(f"exported to {path}")


def _help(state: ChatState, _: str) -> None:
    show_table([(each.usage, each.help) for each in COMMANDS.values()])
    show(_KEYS)


def _quit(state: ChatState, _: str) -> None:
    state.has_left = True


COMMANDS = {
    each.usage.split()[0]: each
    for each in (
        Command(_image, "/image [FILE...]", "show images with the next question; the clipboard's"),
        Command(_retry, "/retry", "answer the last question again"),
        Command(_edit, "/edit", "change the last question"),
        Command(_undo, "/undo", "take back the last turn"),
        Command(_system, "/system [TEXT]", "set the system message; `default` is the model's own"),
        Command(_set, "/set [NAME VALUE]", "change or list how answers are decoded"),
        Command(_stats, "/stats", "the speeds of the last answer"),
        Command(_reset, "/reset", "begin a new conversation"),
        Command(_save, "/save FILE", "write the conversation to a file"),
        Command(_load, "/load FILE", "go on with a conversation from a file"),
        Command(_export, "/export FILE", "write it as Markdown (.md) or JSON (.json)"),
        Command(_help, "/help", "this"),
        Command(_quit, "/quit", "leave, as does Ctrl-D"),
    )
}
