"""Writes docs/commands.md, the verbs' help as it is printed: ``python -m mvlm.cli.reference``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from mvlm.cli.app import build_app

_INTRODUCTION = """\
# Commands

This page is the commands' own help, written by `make docs`.

Exit codes: 0 done, 1 the work failed, 2 the command line was wrong, 130 Ctrl-C. Errors are one line
on standard error. With `--json`, standard output holds exactly one JSON document; where the work
failed, that is `{"error": {...}}`. A command line that cannot be parsed prints none.
"""


def reference() -> str:
    """Return the page, in Markdown."""
    return "\n".join([_INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    command = typer.main.get_command(build_app())
    with command.make_context("mvlm", [], resilient_parsing=True) as context:
        yield from _help(command, context)


def _help(command: Any, context: Any) -> Iterator[str]:
    """Yield what ``--help`` prints of a command, and of all below it.

    Typer names no public types for commands and contexts.
    """
    yield f"## {context.command_path}\n\n```\n{context.get_help()}\n```\n"
    for name in command.list_commands(context) if isinstance(command, TyperGroup) else ():
        verb = command.get_command(context, name)
        assert verb is not None
        with verb.make_context(name, [], context, resilient_parsing=True) as inner:
            yield from _help(verb, inner)


if __name__ == "__main__":
    print(reference(), end="")
