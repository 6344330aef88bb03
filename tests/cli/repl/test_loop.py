"""`mvlm chat` as a conversation: piped in, and typed by a person on a terminal."""

from __future__ import annotations

import re
import signal
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mvlm.cli.shared.answers import stream_answer
from tests.artifacts import ArtifactCache
from tests.cli.command_line import Terminal, mvlm
from tests.cli.repl.screen import Screen

SHORT = ("--lines", "--max-tokens", "4")


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
        ("no file no.png", "/image, /retry", "/image", "context"),
        strict=True,
    ):
        assert words in error


def test_repl_bad_image_at_start_ends_it(artifact: Path) -> None:
    assert mvlm("chat", artifact, "--lines", "--image", "no.png", stdin="Hello?\n").exit_code == 1


def test_repl_help(artifact: Path) -> None:
    shown = mvlm("chat", artifact, "--lines", stdin="/help\n").stdout
    assert all(command in shown for command in ("/image", "/reset", "/help", "/quit"))


def test_repl_says_when_turns_are_dropped(artifact: Path) -> None:
    asked = (
        "chat",
        artifact,
        "--lines",
        "--context",
        "160",
        "--max-tokens",
        "30",
        "--temperature",
        "2",
    )
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
    once = mvlm("chat", artifact, "--max-tokens", "4", "--prompt", "/etc/hosts: what is in it?")
    assert question.stdout == once.stdout
    refused = mvlm(*asked, stdin="/etc/hosts: what is in it?\n")
    assert "no command /etc/hosts:" in refused.stderr
    assert "Put a space before a question that begins with /." in refused.stderr


@pytest.mark.parametrize("blank", ["\t", "  ", "\u3000"])
def test_repl_any_blank_ends_a_command_name(artifact: Path, image: Path, blank: str) -> None:
    asked = ("chat", artifact, *SHORT)
    shown = mvlm(*asked, stdin=f"/image{blank}{image}\nWhat is this?\n")
    assert shown == mvlm(*asked, "--image", image, stdin="What is this?\n")


def test_repl_on_a_terminal_has_prompt_speeds_and_hint(artifact: Path) -> None:
    terminal = Screen("chat", artifact, "--max-tokens", "4")
    banner = terminal.until(r"\n> *\n")
    assert "ldpnet q0f32" in banner and "/help" in banner
    terminal.until("Alt-Enter breaks the line")
    terminal.type("What is it?\r")
    terminal.until(r"> What is it\?\n.*tok/s.*\n>")
    terminal.type("\x1b[A")  # the arrow up brings the question back
    terminal.until(r"> What is it\?.*> What is it\?")
    terminal.type("\r")
    terminal.until(r"tok/s.*tok/s.*\n>")
    terminal.type("\x04")
    assert terminal.leave() == 0


def test_repl_ctrl_c_ends_an_answer_only(artifact: Path) -> None:
    terminal = Screen("chat", artifact, "--max-tokens", "1900", rows=40)
    terminal.until(r"\n>")
    terminal.type("Tell me all.\r")
    terminal.until(r"Tell me all\.\n\S")
    terminal.type("\x03")
    terminal.until(r"cancelled.*\n>")
    terminal.type("/reset\r")
    terminal.until(r"a new conversation\n>")
    terminal.type("\x03")
    terminal.until("Ctrl-D to leave\n>")
    terminal.type("\x03")
    assert terminal.leave() == 130
    assert "Traceback" not in terminal.seen


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGHUP"])
def test_repl_leaves_the_terminal_as_it_was(artifact: Path, signal_name: str) -> None:
    terminal = Screen("chat", artifact)
    before = termios.tcgetattr(terminal._keyboard)
    terminal.until(r"\n>")
    assert termios.tcgetattr(terminal._keyboard) != before
    terminal._process.send_signal(getattr(signal, signal_name))
    terminal.until(f"terminated by {signal_name}")
    assert termios.tcgetattr(terminal._keyboard) == before
    assert terminal.leave() == 128 + getattr(signal, signal_name)


def test_several_lines_make_one_question(artifact: Path) -> None:
    terminal = Screen("chat", artifact, "--max-tokens", "4")
    terminal.until(r"\n>")
    terminal.type("One\\\rtwo\x1b\rthree\x1b[200~\nfour\n\x1b[201~")
    terminal.until(r"> One\n\. two\n\. three\n\. four")
    assert "tok/s" not in terminal.text
    terminal.type("\r")
    terminal.until(r"tok/s.*\n>")
    terminal.type("\x04")
    assert terminal.leave() == 0


def test_history_is_kept_between_runs(artifact: Path, tmp_path: Path) -> None:
    history = tmp_path / "state/history"
    kept = {"MVLM_HISTORY": str(history)}
    for typed, found in (("/set seed 7\r", "seed  7"), ("\x1b[A\r", "seed  7")):
        terminal = Screen("chat", artifact, environment=kept)
        terminal.until(r"\n>")
        terminal.type(typed)
        terminal.until(rf"{found}\n>")
        terminal.type("\x04")
        assert terminal.leave() == 0
    assert history.stat().st_mode & 0o777 == 0o600
    assert history.read_text() == '"/set seed 7"\n'


def test_edit_and_tab(artifact: Path) -> None:
    terminal = Screen("chat", artifact, "--max-tokens", "4")
    terminal.until(r"\n>")
    terminal.type("What?\r")
    terminal.until(r"tok/s.*\n>")
    terminal.type("/ed\t\r")
    terminal.until(r"> /edit\n> What\?.*replaces the last turn")
    terminal.type("\x7f now?\r")
    terminal.until(r"> What now\?\n.*tok/s.*\n>")
    terminal.type("/stats\r")
    terminal.until(r"turns +1\n")
    terminal.type("\x04")
    assert terminal.leave() == 0


@pytest.mark.parametrize(
    "environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"PYTHONIOENCODING": "latin-1"}]
)
def test_terminals_that_can_do_less(artifact: Path, environment: dict[str, str]) -> None:
    terminal = Screen("chat", artifact, "--max-tokens", "8", columns=20, environment=environment)
    terminal.until(r"\n>")
    terminal.type("One\\\r")
    terminal.until(r"> One.*\n\.")
    terminal.type("two\r")
    terminal.until(r"B\n>")
    terminal.type("/imgae\r")
    terminal.until(r"Did\s*you\s*mean")
    terminal.type("\x04")
    assert terminal.leave() == 0
    escapes = terminal.seen.count("\x1b")
    assert escapes == 0 if environment.get("TERM") == "dumb" else escapes > 0


def test_control_characters_of_an_answer_do_not_reach_the_terminal(artifact: Path) -> None:
    terminal = Terminal(
        "chat", artifact, "--plain", "--temperature", "90", "--seed", "3", "--max-tokens", "300"
    )
    terminal.wait_for(">")
    terminal.type("Say anything.\r")
    said = terminal.wait_for("tok/s").partition("\x1b[?2004l")[2]
    terminal.type("/quit\r")
    assert terminal.leave() == 0
    own = re.sub(r"\x1b\[[0-9?;]*[A-Za-z]|\r\n", "", said)
    assert len(own) > 100
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", own)
