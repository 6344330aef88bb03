"""Text handed to rich: never read as its markup, and safe to show on a terminal.

A bare string that rich draws may hold markup, so that ``[red]`` in a file's name would vanish.
Import this module only where something is drawn: it imports rich.
"""

from __future__ import annotations

from rich.text import Text

from mvlm.runtime.terminal_text import one_line, printable


def literal(text: str, style: str = "", *, ellipsis: bool = False) -> Text:
    """Return a text of one line as it is; cut with an `ellipsis`, if asked for, or else wrapped."""
    line = printable(one_line(text))
    if ellipsis:
        return Text(line, style, overflow="ellipsis", no_wrap=True)
    return Text(line, style)
