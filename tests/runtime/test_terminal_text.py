"""What may go to a terminal: every language's text, and nothing that commands it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvlm.runtime.terminal_text import one_line, printable
from tests.sentences import SENTENCES

REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize("name", SENTENCES)
def test_text_of_every_language_is_left_alone(name: str) -> None:
    assert printable(SENTENCES[name]) == SENTENCES[name]
    assert one_line(SENTENCES[name]) == SENTENCES[name]


def test_what_is_replaced_is_what_commands_a_terminal_and_no_more() -> None:
    """Over all of Unicode, by its own categories: controls and surrogates, and nine by name."""
    everything = [chr(code) for code in range(0x110000)]
    replaced = {c for c in everything if printable(c) != c}
    commanding = {c for c in everything if unicodedata.category(c) in ("Cc", "Cs")} - {"\n", "\t"}
    assert replaced == commanding | set(REORDERING)
    assert {printable(c) for c in replaced} == {"\ufffd"}


@pytest.mark.parametrize(
    "command",
    [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x9b2J",
        "\x1bP$q\x1b\\",
        "safe\rerror",
        "\x08\x08\x08",
        "\x0eshifted\x0f",
        "\x7f",
        "photo\u202egpj.exe",
        "\u2067reordered",
    ],
)
def test_commands_do_not_pass(command: str) -> None:
    shown = printable(command)
    assert len(shown) == len(command) and "\ufffd" in shown
    assert not set(shown) & set("\x1b\x07\x08\x0e\x0f\r\x7f\x9b\u202e\u2067")


@given(st.text(), st.text())
def test_pieces_of_a_text_are_what_the_whole_is(first: str, second: str) -> None:
    """However an answer is cut while it streams."""
    assert printable(first) + printable(second) == printable(first + second)


def test_one_line_keeps_all_but_line_breaks() -> None:
    assert one_line("a  b\u00a0c\u3000d\te") == "a  b\u00a0c\u3000d\te"
    assert one_line("a \n\n  b\r\nc\vd\n") == "a b c d"
    assert one_line("  indented\n") == "  indented"
    assert one_line("\n") == ""
