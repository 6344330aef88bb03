"""Records the terminal's chat: `python docs/record_chat.py` writes docs/chat.svg.

A question is typed to the bundled model on a pseudo-terminal, whose last screen is drawn; needs the
extra `test`.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

ROOT = Path(__file__).parent.parent
_MODEL = "models/bundled/mobilevlm-shapes"
_COLUMNS, _ROWS = 92, 40
_WHERE_IS_THE_CURSOR = b"\x1b[6n"
_PROMPT = r"> *$"
_TYPED = (
    "/image models/bundled/images/demo.png",
    "Describe the picture.",
    "What is to the right of the circle?",
    "/set temperature 0.5",
)


def main() -> None:
    """Chat, and draw the screen."""
    leader, follower = pty.openpty()
    os.set_blocking(leader, False)
    environment = os.environ | {
        "COLUMNS": str(_COLUMNS),
        "LINES": str(_ROWS),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "MVLM_HISTORY": "off",
        "MVLM_PREVIEW": "blocks",
    }
    command = [sys.executable, "-m", "mvlm.cli", "chat", _MODEL]
    streams = {"stdin": follower, "stdout": follower, "stderr": subprocess.DEVNULL}
    screen = pyte.Screen(_COLUMNS, _ROWS)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, **streams
    ) as chat:
        stream = pyte.ByteStream(screen)
        for line in _TYPED:
            _read_until_prompt(leader, screen, stream)
            os.write(leader, line.encode() + b"\r")
        _read_until_prompt(leader, screen, stream)
        chat.kill()
    _draw(screen)


def _read_until_prompt(leader: int, screen: pyte.Screen, stream: pyte.ByteStream) -> None:
    """Show what comes, until a prompt waits and nothing more comes."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if select.select([leader], [], [], 1.0)[0]:
            data = os.read(leader, 65536)
            stream.feed(data)
            for _ in range(data.count(_WHERE_IS_THE_CURSOR)):
                at = f"\x1b[{screen.cursor.y + 1};{screen.cursor.x + 1}R"
                os.write(leader, at.encode())
        elif re.search(_PROMPT, screen.display[screen.cursor.y].rstrip() or " "):
            return
    raise TimeoutError("no prompt came")


def _draw(screen: pyte.Screen) -> None:
    text = Text()
    lines = [_line(screen, row) for row in range(screen.lines)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    for line in lines:
        text.append_text(line).append("\n")
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text(f"$ mvlm chat {_MODEL}"))
        console.print(text, end="")
        console.save_svg(str(ROOT / "docs" / "chat.svg"), title="mvlm chat")


def _line(screen: pyte.Screen, row: int) -> Text:
    line = Text()
    for column in range(screen.columns):
        cell = screen.buffer[row][column]
        style = Style(
            color=_colour(cell.fg),
            bgcolor=_colour(cell.bg),
            bold=cell.bold,
            italic=cell.italics,
            reverse=cell.reverse,
        )
        line.append(cell.data, style)
    return line


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    is_hex = re.fullmatch("[0-9a-f]{6}", name) is not None
    return f"#{name}" if is_hex else name.replace("brown", "yellow")


if __name__ == "__main__":
    main()
