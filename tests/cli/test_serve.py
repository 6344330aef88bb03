"""``mvlm serve`` in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from mvlm.cli.serve import _listening
from tests.artifacts import ArtifactCache
from tests.cli.command_line import mvlm

_STARTED = re.compile(r"http://127\.0\.0\.1:(\d+)")


@contextmanager
def serving(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server, and the address that it says."""
    command = [sys.executable, "-m", "mvlm.cli", "serve", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | (environment or {})
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if (found := _STARTED.search(line)) is not None:
                    break
            else:
                pytest.fail("the server has ended")
            yield process, f"http://127.0.0.1:{found[1]}"
        finally:
            process.kill()


def test_two_models_with_a_key(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first\nsecond\n")
    one, two = artifact_cache.artifact("linear"), artifact_cache.artifact("text")
    with serving(
        f"one={one}", two, "--api-key-file", keys, environment={"MVLM_API_KEY": "third"}
    ) as (_, url):
        for key in ("first", "second", "third"):
            client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
            assert [model.id for model in client.models.list()] == ["one", two.name]
        for name in ("one", two.name):
            found = client.completions.create(model=name, prompt="Hello", max_tokens=3)
            assert found.usage is not None and found.usage.completion_tokens <= 3
        assert httpx.get(f"{url}/v1/models").status_code == 401
        evil = httpx.get(f"{url}/health", headers={"host": "evil.example"})
        assert evil.status_code == 400


def test_models_are_loaded_on_demand(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(artifact_cache.artifact("linear"), broken)
    with (broken / "tokenizer.model").open("ab") as file:
        file.write(b"x")
    with serving(f"one={artifact_cache.artifact('linear')}", broken, "--load-on-demand") as (
        _,
        url,
    ):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.InternalServerError, match="'broken' could not be loaded"):
            client.completions.create(model="broken", prompt="Hello", max_tokens=3)
        assert client.completions.create(model="one", prompt="Hello", max_tokens=3).choices
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        assert [each["loaded"] for each in listed] == [True, False]


def test_the_log_is_json(artifact_cache: ArtifactCache) -> None:
    artifact = artifact_cache.artifact("linear")
    with serving(artifact, "--log-format", "json") as (process, url):
        assert httpx.get(f"{url}/ready").json()["status"] == "ready"
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        (line,) = [line for line in process.stderr if line.startswith("{")]
        assert json.loads(line)["path"] == "/ready"


def test_sigterm_lets_an_answer_end(artifact_cache: ArtifactCache) -> None:
    artifact = artifact_cache.artifact("linear")
    with serving(artifact) as (process, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        stream = client.completions.create(
            model=artifact.name, prompt="Hello", max_tokens=300, stream=True
        )
        next(iter(stream))
        process.send_signal(signal.SIGTERM)
        reasons = [chunk.choices[0].finish_reason for chunk in stream]
        assert reasons[-1] in ("stop", "length")
        assert process.wait(20) == 143


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-folder"], "no-such-folder"),
        (["a={artifact}", "a={artifact}"], "models: expected different names, found a, a"),
        (["{artifact}", "--api-key-file", "no-such-file"], "--api-key-file: expected a readable"),
        (["{artifact}", "--api-key-file", "/dev/null"], "--api-key-file: expected a key in each"),
        (["{artifact}", "--host", "192.0.2.1"], "--host 192.0.2.1 --port 8000: expected a free"),
        (["{artifact}", "--log-format", "xml"], "--log-format: expected text or json or none"),
        (["{artifact}", "--log-level", "loud"], "--log-level: expected debug or info or"),
        (["{artifact}", "--max-loaded", "1"], "--max-loaded: expected --load-on-demand beside it"),
        (["{artifact}", "--allow-image-host", "127.0.0.1"], "an allowed host: expected NAME or"),
        (["{artifact}", "--context", "0"], "context: expected 1 to"),
        (["{artifact}", "--context", "64", "--capacity", "63"], "capacity: expected 64 to"),
    ],
)
def test_bad_usage(artifact_cache: ArtifactCache, arguments: list[str], message: str) -> None:
    artifact = str(artifact_cache.artifact("linear"))
    found = mvlm("serve", *(each.replace("{artifact}", artifact) for each in arguments))
    assert found.exit_code == 2 and message in found.stderr
    assert "Traceback" not in found.stderr


def test_tokens_are_sent_at_once() -> None:
    """Connections do not wait for acknowledgements between two small packets."""
    delays = list[int]()

    async def taken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        delays.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect(listener: socket.socket) -> None:
        async with await asyncio.start_server(taken, sock=listener):
            reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            assert await reader.read() == b""
            writer.close()

    for host in ("127.0.0.1", "localhost"):
        with _listening(host, 0) as listener:
            asyncio.run(connect(listener))
    assert delays == [1, 1]
