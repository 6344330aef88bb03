"""Writes docs/commands.md, the verbs' help as it is printed: ``python -m mvlm.cli.reference``."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from typer.core import TyperGroup

from mvlm.cli.app import VERBS, build_app

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
    assert isinstance(command, TyperGroup)
    for title, arguments in [("mvlm", []), *((f"mvlm {verb}", [verb]) for verb in VERBS)]:
        yield f"## {title}\n\n```\n{_help(command, arguments)}\n```\n"


def _help(command: TyperGroup, arguments: list[str]) -> str:
    """Return what ``--help`` prints after `arguments`."""
    with command.make_context("mvlm", arguments, resilient_parsing=True) as context:
        if not arguments:
            return context.get_help()
        verb = command.get_command(context, arguments[0])
        assert verb is not None
        with verb.make_context(arguments[0], [], context, resilient_parsing=True) as inner:
            return inner.get_help()


if __name__ == "__main__":
    print(reference(), end="")
