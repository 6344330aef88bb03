"""`mvlm chat` as a conversation: piped in, and typed by a person on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mvlm.cli.shared.answers import stream_answer
from tests.artifacts import ArtifactCache
from tests.cli.command_line import Terminal, mvlm

SHORT = ("--max-tokens", "4")


@pytest.fixture(scope="module")
def artifact(artifact_cache: ArtifactCache) -> Path:
    return artifact_cache.artifact("ldpnet")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "an image.png"
    Image.effect_noise((50, 40), 90).convert("RGB").save(path)
    return path


def _answers(stdout: str) -> list[str]:
    return stdout.splitlines()


def test_repl_prints_answers_alone_to_standard_output(artifact: Path) -> None:
    result = mvlm("chat", artifact, *SHORT, stdin="One?\n\n  \nTwo?\n")
    assert result.exit_code == 0
    assert len(_answers(result.stdout)) == 2
    assert ">" not in result.stdout


def test_repl_reset_clears_the_history(artifact: Path) -> None:
    again = mvlm("chat", artifact, *SHORT, stdin="One?\nTwo?\nOne?\n/reset\nOne?\n")
    first, _, third, fourth = _answers(again.stdout)
    assert first == fourth != third


def test_repl_image_goes_with_the_next_question(artifact: Path, image: Path) -> None:
    asked = ("chat", artifact, *SHORT)
    commanded = mvlm(*asked, stdin=f"/image {image}\nWhat is this?\nAnd now?\n")
    optioned = mvlm(*asked, "--image", image, stdin="What is this?\nAnd now?\n")
    quoted = mvlm(*asked, stdin=f"/image '{image}'\nWhat is this?\nAnd now?\n")
    blind = mvlm(*asked, stdin="What is this?\nAnd now?\n")
    assert commanded.stdout == optioned.stdout == quoted.stdout != blind.stdout


def test_repl_error_does_not_end_it(artifact: Path) -> None:
    said = (
        "/image no.png\n/nope\n/image\n" + "word " * 5000 + "\nStill there?\n/quit\nNever asked\n"
    )
    result = mvlm("chat", artifact, *SHORT, stdin=said)
    assert (result.exit_code, len(_answers(result.stdout))) == (0, 1)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    for error, words in zip(
        errors,
        ("no file no.png", "/image, /reset, /save, /load, /help, /quit", "/image", "context"),
        strict=True,
    ):
        assert words in error


def test_repl_bad_image_at_start_ends_it(artifact: Path) -> None:
    assert mvlm("chat", artifact, "--image", "no.png", stdin="Hello?\n").exit_code == 1


def test_repl_help(artifact: Path) -> None:
    shown = mvlm("chat", artifact, stdin="/help\n").stdout
    assert all(command in shown for command in ("/image", "/reset", "/help", "/quit"))


def test_repl_says_when_turns_are_dropped(artifact: Path) -> None:
    asked = ("chat", artifact, "--context", "160", "--max-tokens", "30", "--temperature", "2")
    result = mvlm(*asked, stdin="What is it?\n" * 4)
    assert result.exit_code == 0
    told = result.stderr.splitlines()
    assert told
    for line in told:
        assert re.fullmatch(
            r"(1 turn|[2-9]\d* turns) did not fit into the context any more: "
            r"the oldest (one was|were) dropped|the answer reached its limit",
            line,
        )
    assert any("dropped" in line for line in told)


@pytest.mark.parametrize(
    ("turns", "line"),
    [
        (1, "1 turn did not fit into the context any more: the oldest one was dropped"),
        (3, "3 turns did not fit into the context any more: the oldest were dropped"),
    ],
)
def test_message_about_one_or_several_dropped_turns(
    turns: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Generation:
        dropped_turns = turns
        completion = None

        def __iter__(self) -> Iterator[str]:
            return iter(["Yes."])

    generation: Any = Generation()
    stream_answer(generation)
    assert capsys.readouterr() == ("Yes.\n", f"{line}\n")


def test_repl_command_is_the_first_character(artifact: Path) -> None:
    asked = ("chat", artifact, *SHORT)
    question = mvlm(*asked, stdin=" /etc/hosts: what is in it?\n")
    assert (question.exit_code, len(_answers(question.stdout))) == (0, 1)
    assert "error" not in question.stderr
    once = mvlm(*asked, "--prompt", "/etc/hosts: what is in it?")
    assert question.stdout == once.stdout
    refused = mvlm(*asked, stdin="/etc/hosts: what is in it?\n")
    assert "no command /etc/hosts:" in refused.stderr
    assert "Put a space before a question that begins with /." in refused.stderr


@pytest.mark.parametrize("blank", ["\t", "  ", "\u3000"])
def test_repl_any_blank_ends_a_command_name(artifact: Path, image: Path, blank: str) -> None:
    asked = ("chat", artifact, *SHORT)
    shown = mvlm(*asked, stdin=f"/image{blank}{image}\nWhat is this?\n")
    assert shown == mvlm(*asked, "--image", image, stdin="What is this?\n")


def test_repl_on_a_terminal_has_prompt_speeds_and_history(artifact: Path) -> None:
    terminal = Terminal("chat", artifact, *SHORT)
    banner = terminal.wait_for("> ")
    assert "ldpnet q0f32" in banner and "/help" in banner
    terminal.type("What is it?\n")
    assert "tok/s" in terminal.wait_for("\n> ")
    terminal.type("\x1b[A")  # the arrow up brings the question back
    terminal.wait_for("What is it?")
    terminal.type("\n")
    terminal.wait_for("tok/s")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert terminal.leave() == 0


def test_repl_ctrl_c_ends_an_answer_only(artifact: Path) -> None:
    terminal = Terminal("chat", artifact, "--max-tokens", "1900")
    terminal.wait_for("> ")
    terminal.type("Tell me all.\n")
    terminal.wait_for("Tell me all.\r\n.")
    terminal.type("\x03")
    assert "cancelled" in terminal.wait_for("\n> ")
    terminal.type("/reset\n")
    terminal.wait_for("a new conversation")
    terminal.wait_for("> ")
    terminal.type("\x03")
    terminal.wait_for("Ctrl-D to leave")
    terminal.type("\x03")
    assert terminal.leave() == 130
    assert "Traceback" not in terminal.seen


def test_control_characters_of_an_answer_do_not_reach_the_terminal(artifact: Path) -> None:
    terminal = Terminal(
        "chat", artifact, "--temperature", "90", "--seed", "3", "--max-tokens", "300"
    )
    terminal.wait_for("> ")
    terminal.type("Say anything.\n")
    said = terminal.wait_for("tok/s").partition("Say anything.")[2]
    terminal.type("/quit\n")
    assert terminal.leave() == 0
    own = re.sub(r"\x1b\[(2|0)m|\x1b\[\?2004[hl]|\r\n", "", said)
    assert len(own) > 100
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", own)
