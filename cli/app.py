"""Gathers the verbs, and turns what they raise into one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

import typer

from mvlm.cli.shared.failure import report_failure, require_threads
from mvlm.cli.shared.interrupts import termination_signals
from mvlm.cli.shared.invocation import Invocation
from mvlm.cli.shared.terminal import prepare_streams, show, version_callback
from mvlm.cli.shared.user_path import with_user_paths

# Each has the module of its name, or the package if it is a group of verbs; in the order of a
# newcomer's way through them.
VERBS = (
    "demo",
    "compile",
    "calibrate",
    "plan",
    "chat",
    "serve",
    "targets",
    "tune",
    "logs",
    "device",
    "inspect",
    "verify",
    "bench",
    "jobs",
    "package",
    "device-check",
    "convert",
    "synth",
)

# Help does not depend on the terminal, so that docs/commands.md can hold it.
HELP_WIDTH = 80
_HELP = ("-h", "--help")
_STYLE: dict[str, Any] = {
    "rich_markup_mode": None,
    "add_completion": False,
    "context_settings": {"help_option_names": [*_HELP], "terminal_width": HELP_WIDTH},
}


def build_app() -> typer.Typer:
    """Return the typer application with all verbs."""
    app = typer.Typer(**_STYLE)
    app.callback(invoke_without_command=True)(_mvlm)
    for name in VERBS:
        _add(app, name, import_module(f"mvlm.cli.{name.replace('-', '_')}"))
    return app


def _add(app: typer.Typer, name: str, verb: ModuleType) -> None:
    """Add a verb, or a group of verbs: a package whose ``VERBS`` are modules in it."""
    if not hasattr(verb, "VERBS"):
        examples = "\n  ".join(verb.EXAMPLES)
        app.command(name, epilog=f"\b\nExamples:\n  {examples}")(with_user_paths(verb.command))
        return
    group = typer.Typer(name=name, help=verb.__doc__, **_STYLE)
    for inner in verb.VERBS:
        _add(group, inner, import_module(f"{verb.__name__}.{inner.replace('-', '_')}"))
    app.add_typer(group)


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: Without the program's name.

    Returns:
        The exit code: 0, 1 if the work failed, 2 for bad usage, 130 after Ctrl-C, 143 after
        SIGTERM, 129 after SIGHUP, 141 where the reader of our output went away.
    """
    prepare_streams()
    invocation = Invocation()
    try:
        command = typer.main.get_command(build_app())
        # Not command.main(), which has its own way to report errors.
        with (
            termination_signals(),
            command.make_context("mvlm", list(arguments), obj=invocation) as context,
        ):
            if not any(each in arguments for each in _HELP):
                require_threads()
            command.invoke(context)
        sys.stdout.flush()
    except BaseException as error:
        return report_failure(error, invocation)
    return 0


def _mvlm(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=version_callback, help="Show the version.")
    ] = False,
) -> None:
    """Compile MobileVLM for a device and run it there.

    Start with `mvlm demo`. Every verb has --help with examples.
    """
    if context.invoked_subcommand is None:
        show(context.get_help())
