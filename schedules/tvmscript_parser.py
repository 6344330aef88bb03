"""Lets TVMScript find its callers without reading source files.

TVMScript walks the frames of the call stack twice: `T.prim_func` records them for the names of
enclosing functions, and an inline function (`@T.inline`) looks in them for the parser of the kernel
that calls it. For each frame Python's `inspect` also reads the surrounding source, which takes a
quarter of the time to compile a small model.
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType, SimpleNamespace
from typing import Any

from tvm.script.parser.core.parser import ScriptMacro
from tvm.tirx.script.parser import entry


def speed_up_parsing() -> None:
    """Replace both walks over the stack; calling it again has no effect."""
    ScriptMacro._find_parser_def = _find_parser
    entry.inspect = SimpleNamespace(**vars(inspect) | {"stack": _stack_without_source})


def _find_parser(self: Any) -> Any:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        parser = frame.f_globals.get(ScriptMacro.parser_object_name)
        if parser is not None:
            return parser
        frame = frame.f_back
    raise RuntimeError(f"{self.func.__name__} was called outside a kernel")


def _stack_without_source() -> list[inspect.FrameInfo]:
    # The source is for functions defined in a class of TVMScript, and ours are not.
    return inspect.stack(context=0)[1:]
