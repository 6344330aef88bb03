"""Images in the terminal's own pixels: kitty's graphics protocol, and iTerm2's inline images.

Sources: https://sw.kovidgoyal.net/kitty/graphics-protocol/,
https://iterm2.com/documentation-images.html.

The terminal is known by its environment. It is not asked: its reply could come late, and would then
be read as typed text; this is also why sixels, which only a reply tells of, are not drawn.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping

VARIABLE = "MVLM_PREVIEW"
_CHUNK = 4096  # the most that kitty's protocol takes at once
_KITTY_TERMS = ("xterm-kitty", "xterm-ghostty")
_KITTY_PROGRAMS = ("ghostty",)
_ITERM2_PROGRAMS = ("iTerm.app", "WezTerm", "mintty")
_MULTIPLEXERS = ("screen", "tmux")

Encode = Callable[[bytes, int, int], str]


def kitty(png: bytes, columns: int, rows: int) -> str:
    """Return what shows a PNG file in a box of cells; the terminal does not reply to it."""
    data = base64.b64encode(png).decode()
    chunks = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
    written = []
    for number, chunk in enumerate(chunks):
        first = f"a=T,f=100,q=2,c={columns},r={rows}," if number == 0 else ""
        more = int(number < len(chunks) - 1)
        written.append(f"\x1b_G{first}m={more};{chunk}\x1b\\")
    return "".join(written)


def iterm2(png: bytes, columns: int, rows: int) -> str:
    """Return what shows a PNG file in a box of cells."""
    data = base64.b64encode(png).decode()
    size = f"inline=1;size={len(png)};width={columns};height={rows}"
    return f"\x1b]1337;File={size};preserveAspectRatio=1:{data}\x07"


def inline_encoder(environment: Mapping[str, str] = os.environ) -> Encode | None:
    """Return the encoder for the terminal that an environment describes; None if it has none.

    ``$MVLM_PREVIEW`` overrides what is known: kitty, iterm2, blocks or off.
    """
    if (named := environment.get(VARIABLE)) is not None:
        return {"kitty": kitty, "iterm2": iterm2}.get(named)
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(_MULTIPLEXERS):
        return None  # it passes no such sequences on
    if "KITTY_WINDOW_ID" in environment or term in _KITTY_TERMS or program in _KITTY_PROGRAMS:
        return kitty
    is_iterm2 = program in _ITERM2_PROGRAMS or environment.get("LC_TERMINAL") == "iTerm2"
    return iterm2 if is_iterm2 else None
