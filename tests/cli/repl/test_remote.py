"""`mvlm chat URL`: a server of the test model, and servers that misbehave."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.artifacts import ArtifactCache
from tests.cli.command_line import mvlm
from tests.cli.repl.screen import Screen
from tests.cli.test_serve import serving

SHORT = ("--max-tokens", "6")
Handle = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(scope="module")
def server(artifact_cache: ArtifactCache) -> Iterator[tuple[subprocess.Popen[str], str]]:
    artifact = artifact_cache.artifact("linear")
    environment = {"MVLM_API_KEY": "secret"}
    with serving(f"small={artifact}", environment=environment) as running:
        yield running


@pytest.fixture
def url(server: tuple[subprocess.Popen[str], str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MVLM_API_KEY", "secret")
    return server[1]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.effect_noise((50, 40), 90).convert("RGB").save(path)
    return path


@contextmanager
def answering(handle: Handle) -> Iterator[str]:
    """A server that answers each POST by `handle`, and has one model."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _send(self, b'{"data": [{"id": "small"}]}', "application/json")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            handle(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.daemon_threads = True
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_port}"
        finally:
            found.shutdown()
            thread.join()


def _send(
    handler: BaseHTTPRequestHandler, body: bytes, kind: str = "text/event-stream", status: int = 200
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Retry-After", "7")
    handler.end_headers()
    handler.wfile.write(body)


def test_answers_are_those_of_the_local_model(
    url: str, artifact_cache: ArtifactCache, image: Path
) -> None:
    asked = (*SHORT, "--image", image, "--prompt", "What is this?")
    local = mvlm("chat", artifact_cache.artifact("linear"), *asked)
    remote = mvlm("chat", url, *asked)
    assert (remote.exit_code, remote.stdout, remote.stderr) == (0, local.stdout, "")
    found = mvlm("chat", f"{url}/v1/", *asked, "--json", "--model", "small").json
    assert found["text"] + "\n" == local.stdout
    assert found["finish_reason"] == "length" and found["usage"]["completion_tokens"] == 6


def test_a_conversation_goes_on_and_is_steered(
    url: str, artifact_cache: ArtifactCache, image: Path, tmp_path: Path
) -> None:
    said = (
        f"/image {image}\nOne?\nTwo?\n/undo\nThree?\n/retry\n/system Be brief.\nFour?\n"
        f"/save {tmp_path / '%s'}\n/reset\n/load {tmp_path / '%s'}\nFive?\n"
        f"/export {tmp_path}/c.md\n"
    )
    chats = [
        mvlm("chat", place, "--lines", *SHORT, stdin=said.replace("%s", name))
        for name, place in (("l", artifact_cache.artifact("linear")), ("r", url))
    ]
    assert chats[0].stdout == chats[1].stdout
    assert len(chats[0].stdout.splitlines()) == 6
    assert all("error" not in chat.stderr for chat in chats)
    assert "[image.png]\n\nOne?" in (tmp_path / "c.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", "none"], 2, "no such model or path"),
        (["--api-key-file", "{wrong}"], 2, "the server refuses the key"),
        (["--threads", "2"], 2, "--threads is for a model on this machine"),
        (["--temperature", "50"], 1, "the server refuses the request"),
    ],
)
def test_refusals(url: str, tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    (tmp_path / "key").write_text("wrong\n")
    filled = [each.replace("{wrong}", str(tmp_path / "key")) for each in arguments]
    found = mvlm("chat", url, "--prompt", "Hello?", *filled)
    assert (found.exit_code, found.stdout) == (code, "")
    assert words in found.stderr and found.stderr.count("\n") == 1


def test_no_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = mvlm("chat", f"http://127.0.0.1:{taken.getsockname()[1]}", "--prompt", "Hello?")
    assert found.exit_code == 1
    assert re.match(r"error: there is no server at http.* Is it running\?", found.stderr)


def _broken(handler: BaseHTTPRequestHandler) -> None:
    _send(handler, b'data: {"choices": [{"delta": {"content": "Half"}}]}\n\n')


@pytest.mark.parametrize(
    ("handle", "words"),
    [
        (_broken, "broke off"),
        (lambda each: _send(each, b"data: no JSON\n\n"), "not understood"),
        (lambda each: _send(each, b'data: {"choices": 3}\n\n'), "not understood"),
        (lambda each: _send(each, b'data: {"error": {"message": "Oh"}}\n\n'), "found Oh"),
        (lambda each: _send(each, b"x" * (1 << 23)), "too long"),
        (lambda each: _send(each, b"{}", "text/html"), "does not stream"),
        (lambda each: _send(each, b"[[", "text/html", 429), "busy: found status 429. Try again in"),
        (lambda each: _send(each, b"{}", "text/html", 500), "the server has failed"),
        (lambda each: each.connection.shutdown(socket.SHUT_RDWR), "broke off"),
    ],
)
def test_servers_that_misbehave(handle: Handle, words: str) -> None:
    with answering(handle) as url:
        found = mvlm("chat", url, "--prompt", "Hello?")
    assert found.exit_code == 1
    assert words in found.stderr and found.stderr.count("\n") == 1


HOSTILE = (
    r'data: {"choices": [{"delta": {"content": "A\u001b]0;title\u0007 &#27;[2J &#x202e; &#13;B'
    r'\u009b"}, "finish_reason": "stop"}]}'
)


@pytest.mark.parametrize("plain", [[], ["--plain"]])
def test_hostile_text_does_not_reach_the_terminal(plain: list[str]) -> None:
    with answering(lambda each: _send(each, f"{HOSTILE}\n\ndata: [DONE]\n\n".encode())) as url:
        terminal = Screen("chat", url, "--prompt", "Hello?", *plain)
        assert terminal.leave() == 0
    assert re.search(r"A\ufffd\]0;title\ufffd", terminal.seen)
    own = re.sub(r"\x1b\[[0-9;?]*[mKJAlh]|\r", "", terminal.seen)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", own)
    assert "B" in terminal.text


def test_ctrl_c_ends_an_answer_that_does_not_come() -> None:
    cancelled = threading.Event()

    def wait(handler: BaseHTTPRequestHandler) -> None:
        if not cancelled.is_set():
            cancelled.set()
            assert handler.connection.recv(1) == b""  # the client has closed it
            return
        text = b'data: {"choices": [{"delta": {"content": "Now."}, "finish_reason": "stop"}]}\n\n'
        _send(handler, text + b"data: [DONE]\n\n")

    with answering(wait) as url:
        terminal = Screen("chat", url)
        terminal.until(r"\n>")
        terminal.type("Hello?\r")
        assert cancelled.wait(20)
        terminal.type("\x03")
        terminal.until(r"cancelled\n>")
        terminal.type("And now?\r")
        terminal.until(r"Now\.\n.*>")
        terminal.type("\x04")
        assert terminal.leave() == 0


def test_a_key_without_encryption_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVLM_API_KEY", "secret")
    found = mvlm("chat", "http://192.0.2.1.invalid:1", "--prompt", "Hello?")
    assert "warning: the key and all texts go to http://192.0.2.1.invalid:1" in found.stderr
    assert "secret" not in found.stderr and found.exit_code == 1
