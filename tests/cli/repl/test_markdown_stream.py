"""Markdown that is drawn while it comes, on a terminal that a program plays."""

from __future__ import annotations

import io
from unittest import mock

import pyte
import pytest
from rich.console import Console

from mvlm.cli.repl import markdown_stream
from mvlm.cli.repl.markdown_stream import MarkdownStream

TEXT = """# Shapes

There is a **red** circle, and `code` & <b>HTML</b>.
A second line.

1. one

2. two

| a | b |
|---|---|
| c | d |

```python
print("x")

y = 2
```

The end.
"""


def shown(parts: list[str], columns: int = 60, rows: int = 40) -> list[str]:
    """What the screen and the lines that scrolled away show in the end."""
    out = io.StringIO()
    with (
        mock.patch("sys.stdout", out),
        mock.patch.object(markdown_stream, "_terminal_size", lambda: (columns, rows)),
        mock.patch.object(markdown_stream, "_LEAST_SECONDS", 0),
        mock.patch.object(markdown_stream, "_SHARE", 0),
    ):
        console = Console(file=out, force_terminal=True, color_system="256", width=columns)
        stream = MarkdownStream(console)
        for part in parts:
            stream.feed(part)
        stream.finish()
    screen = pyte.HistoryScreen(columns, rows, history=1000)
    pyte.Stream(screen).feed(out.getvalue().replace("\n", "\r\n"))
    above = ["".join(row[x].data for x in range(columns)) for row in screen.history.top]
    return [line.rstrip() for line in [*above, *screen.display]]


def test_what_is_drawn_does_not_depend_on_the_parts() -> None:
    whole = shown([TEXT])
    assert shown(list(TEXT)) == whole
    text = "\n".join(whole)
    assert "Shapes\n\nThere is a red circle, and code & <b>HTML</b>.\nA second line." in text
    assert 'print("x")\n\ny = 2\n\nThe end.' in text
    assert "1 one" in text and "2 two" in text and "c" in text and "**" not in text


@pytest.mark.parametrize("columns", [8, 20])
def test_a_narrow_terminal_has_all_words(columns: int) -> None:
    text = " ".join(shown(list("One **two** three four.\n\n- five\n- six"), columns))
    assert all(word in text for word in ("One", "two", "three", "four.", "five", "six"))


def test_what_has_scrolled_away_is_not_drawn_again() -> None:
    text = "".join(f"line {number}\n" for number in range(40))
    found = [line for line in shown(list(text), 30, 6) if line]
    assert found == [f"line {number}" for number in range(40)]


def test_entities_do_not_command_the_terminal() -> None:
    (line,) = [each for each in shown(["A&#13;B&#x202e;C\x1b[2JD"]) if each]
    assert line == "AB\ufffdC\ufffd[2JD"
