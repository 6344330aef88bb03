"""Draws an answer's Markdown while it comes, block by block.

A block is final once the next one has begun: a paragraph, a list, a table. The one in progress is
drawn again as it grows, from the first line that has changed, and never above the screen's top:
what has scrolled away stays as it was. Each drawing is one write.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown
from rich.segment import Segment
from rich.syntax import Syntax

from mvlm.runtime.terminal_text import printable

if TYPE_CHECKING:
    from markdown_it.token import Token

_LEAST_SECONDS = 0.03
_SHARE = 10  # drawing takes at most a tenth of the time
_LEAST_COLUMNS = 4
_CLEAR_LINE = "\x1b[K"
_CLEAR_BELOW = "\x1b[J"


class MarkdownStream:
    """Draws one answer on standard output, which is a terminal.

    Args:
        console: What decides on colours; of standard output if None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._parser = _parser()
        self._open = ""  # the text of the block in progress
        self._drawn: list[str] = []  # its lines on the screen
        self._columns = 0
        self._is_first, self._has_begun = True, False
        self._next_drawing = 0.0

    def feed(self, text: str) -> None:
        """Take a part of the answer; it is drawn now, or with one that follows soon."""
        self._open += printable(text)
        begin = time.monotonic()
        if begin < self._next_drawing:
            return
        self._draw()
        end = time.monotonic()
        self._next_drawing = end + max(_LEAST_SECONDS, _SHARE * (end - begin))

    def finish(self) -> None:
        """Draw what is left; the cursor is then below it."""
        self._draw(is_whole=True)
        self._settle()

    def _draw(self, *, is_whole: bool = False) -> None:
        *settled, last = self._split()
        if settled and "\n" not in last and not is_whole:
            last = settled.pop() + last  # half a line may yet turn out to go on with the block
        for block in settled:
            self._update(block)
            self._settle()
        self._open = last
        self._update(last)

    def _split(self) -> list[str]:
        """Cut the text before each block but the first."""
        starts = [
            token.map[0]
            for token in self._parser.parse(self._open)
            if token.level == 0 and token.map is not None and token.nesting >= 0
        ]
        lines = self._open.splitlines(keepends=True)
        cuts = [0, *starts[1:], len(lines)]
        return ["".join(lines[a:b]) for a, b in pairwise(cuts)] or [""]

    def _update(self, block: str) -> None:
        """Bring the screen from the lines drawn to those of a block."""
        if not block.strip():
            return
        if not self._has_begun:
            self._has_begun = True
            columns, _ = _terminal_size()
            self._columns = max(_LEAST_COLUMNS, columns - 1)
            if not self._is_first:
                self._write("\n")
        lines = self._render(block)
        _, rows = _terminal_size()
        same = _common(self._drawn, lines)
        reachable = max(0, len(self._drawn) - (rows - 1))  # those above have scrolled away
        begin = max(same, reachable)
        up = len(self._drawn) - begin
        if not up and len(lines) <= begin:
            return
        moved = f"\x1b[{up}A" if up else ""
        text = "".join(f"{line}{_CLEAR_LINE}\n" for line in lines[begin:])
        self._write(f"\r{moved}{text}{_CLEAR_BELOW if len(lines) < len(self._drawn) else ''}")
        self._drawn = [*self._drawn[:begin], *lines[begin:]]

    def _settle(self) -> None:
        self._is_first = self._is_first and not self._has_begun
        self._has_begun, self._drawn, self._open = False, [], ""

    def _render(self, block: str) -> list[str]:
        options = self._console.options.update(width=self._columns)
        document = _Document(block, self._parser)
        lines = self._console.render_lines(document, options, pad=False)
        drawn = [self._line(line) for line in lines]
        while drawn and not drawn[-1].strip():
            drawn.pop()
        while drawn and not drawn[0].strip():
            drawn.pop(0)
        return drawn

    def _line(self, segments: list[Segment]) -> str:
        """Write a line; entities in the text may have become what commands a terminal."""
        system: Any = self._console._color_system
        while segments and not segments[-1].text.strip():
            segments = segments[:-1]
        return "".join(
            segment.style.render(printable(segment.text), color_system=system)
            if segment.style
            else printable(segment.text)
            for segment in segments
            if not segment.control
        )

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class _Heading(Heading):
    """A heading where the text begins, without a frame."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        self.text.stylize("bold underline" if self.tag == "h1" else "bold")
        yield self.text


class _CodeBlock(CodeBlock):
    """Code as it can be copied: nothing before its lines, nor behind them."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(
            code,
            self.lexer_name,
            theme="ansi_dark",
            background_color="default",
            word_wrap=True,
        )


class _Document(Markdown):
    """Markdown as people mean it: line breaks stay, HTML is text, links show where they lead."""

    elements: ClassVar = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
    }

    def __init__(self, text: str, parser: MarkdownIt) -> None:
        super().__init__("", hyperlinks=False)
        self.markup = text
        self.parsed = parser.parse(text)
        for token in self.parsed:
            _keep_breaks(token)


def _keep_breaks(token: Token) -> None:
    for child in token.children or ():
        if child.type == "softbreak":
            child.type = "hardbreak"


def _parser() -> MarkdownIt:
    parser = MarkdownIt().enable("strikethrough").enable("table")
    return parser.disable(["html_block", "html_inline", "image", "reference"])


def _common(first: list[str], second: list[str]) -> int:
    """Count the lines that two lists begin with."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _terminal_size() -> tuple[int, int]:
    """Return columns and rows of standard output."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
        return size.columns or 80, size.lines or 24
    except (OSError, ValueError):
        return 80, 24
