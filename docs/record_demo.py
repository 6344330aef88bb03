"""Records `mvlm demo` as a terminal shows it: `python docs/record_demo.py` writes docs/demo.svg."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

_COLUMNS = 84


def main() -> None:
    """Run the demo on a pseudo-terminal and draw what it printed."""
    root = Path(__file__).parent.parent
    printed = _on_terminal([sys.executable, "-m", "mvlm.cli", "demo"]).replace(f"{root}/", "")
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi("$ make demo\n" + printed.replace("\r\n", "\n")))
        console.save_svg(str(root / "docs" / "demo.svg"), title="make demo")


def _on_terminal(command: list[str]) -> str:
    leader, follower = pty.openpty()
    environment = os.environ | {
        "COLUMNS": str(_COLUMNS),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
    }
    # The parent keeps no copy of the follower, so that reading ends when the child does.
    process = subprocess.Popen(command, stdout=follower, env=environment)
    os.close(follower)
    parts = []
    while True:
        try:
            parts.append(os.read(leader, 65536))
        except OSError:
            break
    process.wait()
    return b"".join(parts).decode()


if __name__ == "__main__":
    main()
