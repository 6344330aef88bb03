"""Errors that cross from a child process to its parent, as JSON: none is pickled.

Unpickling an error of TVM's would import tvm, which is what the child is for.
"""

from __future__ import annotations

import os
import traceback
from typing import Any

from mvlm.runtime import errors
from mvlm.runtime.errors import MvlmError


class ChildError(Exception):
    """The cause of an error that a child process raised: the traceback there, as text."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def error_to_json(error: BaseException) -> list[Any]:
    """Describe an error, so that :func:`error_from_json` makes one that reads alike.

    Returns:
        Its class, its message, its other values, and its traceback.
    """
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    values: dict[str, Any]
    if isinstance(error, MvlmError):
        halves = {"expected": error.expected, "found": error.found}
        values = {key: None if value is None else str(value) for key, value in halves.items()}
        return [type(error).__name__, error.problem, values | {"fix": error.fix}, text]
    if isinstance(error, OSError) and error.strerror:
        name = None if error.filename is None else os.fsdecode(error.filename)
        return ["OSError", error.strerror, {"errno": error.errno, "filename": name}, text]
    if isinstance(error, ModuleNotFoundError):
        return ["ModuleNotFoundError", str(error), {"name": error.name}, text]
    if isinstance(error, MemoryError):
        return ["MemoryError", str(error), {}, text]
    message = str(error)
    if not isinstance(error, RuntimeError):
        message = f"{type(error).__name__}: {message}"
    return ["RuntimeError", message, {}, text]


def error_from_json(kind: str, problem: str, values: dict[str, Any], text: str) -> BaseException:
    """Return the error that :func:`error_to_json` described, caused by the child's traceback."""
    error: BaseException
    if kind == "OSError":
        error = OSError(values["errno"], problem, values["filename"])
    elif kind == "ModuleNotFoundError":
        error = ModuleNotFoundError(problem, name=values["name"])
    elif kind == "MemoryError":
        error = MemoryError(problem)
    elif kind == "RuntimeError":
        error = RuntimeError(problem)
    else:
        error = getattr(errors, kind, MvlmError)(problem, **values)
    error.__cause__ = ChildError(text)
    return error
