"""History, completion, settings, images' paths and the clipboard, without a terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from mvlm.cli.repl.completion import CommandCompleter
from mvlm.cli.repl.history import FileHistory, history_path
from mvlm.cli.repl.image_arguments import image_sources
from mvlm.cli.repl.settings import changed, listed
from mvlm.runtime.errors import PromptError, UsageError
from mvlm.runtime.sampling import SamplingParams


def test_history_is_bounded_and_skips_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text('half"\n"one"\n{}\n' + '"two\\nlines"\n')
    assert list(FileHistory(path).load_history_strings()) == ["two\nlines", "one"]
    path.write_text("".join(f'"{number:>1000}"\n' for number in range(2000)))
    assert len(list(FileHistory(path).load_history_strings())) == 1000
    assert path.stat().st_size < 600_000
    assert path.stat().st_mode & 0o777 == 0o600
    FileHistory(path).store_string("x" * 20_000)
    assert path.stat().st_size < 600_000


def test_history_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    history = FileHistory(tmp_path)
    history.store_string("a")
    assert list(history.load_history_strings()) == []


def test_history_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVLM_HISTORY", "off")
    assert history_path() is None
    monkeypatch.setenv("MVLM_HISTORY", "/x/y")
    assert history_path() == Path("/x/y")
    monkeypatch.delenv("MVLM_HISTORY")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert history_path() == Path("/state/mvlm/history")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_path() == tmp_path / ".local/state/mvlm/history"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("/im", ["/image"]),
        ("/image an", ["/image an\\ image.png"]),
        ("/image an\\ im", ["/image an\\ image.png"]),
        ("/image x ./an\\ im", ["/image x ./an\\ image.png"]),
        ("/load ~/an", ["/load ~/an\\ image.png"]),
        ("/save fol", ["/save folder/"]),
        ("/set top", ["/set top_p", "/set top_k"]),
        ("What is an", []),
        ("/reset an", []),
    ],
)
def test_completion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, completed: list[str]
) -> None:
    (tmp_path / "an image.png").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    completer = CommandCompleter(["/image", "/load"])
    found = completer.get_completions(Document(typed), CompleteEvent())
    assert [typed[: len(typed) + each.start_position] + each.text for each in found] == completed


def test_settings() -> None:
    params = changed(SamplingParams(), "temperature", "0.7")
    params = changed(changed(params, "stop", "'a b' c"), "seed", "3")
    assert (params.temperature, params.stop, params.seed) == (0.7, ("a b", "c"), 3)
    assert ("seed", "3") in listed(params)
    assert changed(params, "seed", "default").seed is None
    for name, value, words in (
        ("temprature", "1", "Did you mean temperature?"),
        ("top_k", "many", "a whole number"),
        ("top_p", "2", "0 to 1"),
    ):
        with pytest.raises(UsageError, match=words.replace("?", r"\?")):
            changed(params, name, value)


def test_image_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "an image.png", "x[1].png"):
        (tmp_path / name).touch()
    a, b, blank = Path("a.png"), Path("b.png"), Path("an image.png")
    assert image_sources("a.png b.png") == [a, b]
    assert image_sources("?.png") == [a, b]
    for spelled in ("an image.png", "'an image.png'", "an\\ image.png"):
        assert image_sources(spelled) == [blank]
    assert image_sources("x[1].png") == [Path("x[1].png")]
    assert image_sources((tmp_path / blank).as_uri()) == [tmp_path / blank]
    with pytest.raises(PromptError, match="files that match"):
        image_sources("*.jpg")


def test_clipboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WAYLAND_DISPLAY", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PromptError, match="a desktop with wl-paste or xclip"):
        image_sources("")
    tool = tmp_path / "wl-paste"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    for kind, content, expected in (
        ("image/png", "PNG", [b"PNG"]),
        ("text/plain", "/tmp/x.png", [Path("/tmp/x.png")]),
        ("text/uri-list", "file:///tmp/a%20b", [Path("/tmp/a b")]),
    ):
        lists = f'[ "$1" = --list-types ] && echo {kind}'
        tool.write_text(f"#!/bin/sh\n{lists} || printf %s '{content.replace('%', '%')}'\n")
        tool.chmod(0o755)
        assert image_sources("") == expected
    tool.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(PromptError, match="found neither"):
        image_sources("")
