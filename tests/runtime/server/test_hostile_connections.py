"""Connections that mean harm: each ends in a status or is closed, and others are answered."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from mvlm.runtime.server.api.routes import ENDPOINTS
from mvlm.runtime.server.http.connections import ConnectionLimits
from tests.artifacts import ArtifactCache
from tests.cli.test_serve import serving
from tests.runtime.server.conftest import NAME, Running, Serve, listening

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
BODY = json.dumps({"model": NAME, "prompt": "Hello", "max_tokens": 2}).encode()
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n"


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def exchange(url: str, sent: bytes) -> bytes:
    """What a server says to some bytes, until it closes the connection."""
    with connect(url) as connection:
        found = b""
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(sent)
            while part := connection.recv(65536):
                found += part
        return found


@pytest.fixture(scope="module")
def quick(serve: Serve) -> Iterator[Running]:
    """A server that soon closes connections without a head."""
    with serve(limits=ConnectionLimits(head_seconds=0.1), body_seconds=0.5) as running:
        yield running


def statuses(found: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", found)]


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


def test_other_methods(server: Running) -> None:
    with httpx.Client(base_url=server.url) as client:
        for endpoint in ENDPOINTS:
            allowed = {"GET", "HEAD"} if endpoint.method == "GET" else {"POST"}
            for method in METHODS:
                found = client.request(method, endpoint.path.replace("{name}", NAME))
                if method in allowed:
                    assert found.status_code == (200 if endpoint.method == "GET" else 415)
                else:
                    assert found.status_code == 405
                    told = {each.strip() for each in found.headers["allow"].split(",")}
                    assert told == allowed
                assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET /health HTTP/1.1\r\n\r\n", [400]),
        (HEALTH + b"host: y\r\n\r\n", [400]),
        (HEALTH + b"a\x00b: c\r\n\r\n", [400]),
        (HEALTH + b"a: b\x00c\r\n\r\n", [400]),
        (HEALTH + b"a : b\r\n\r\n", [400]),
        (HEALTH + b"content-length: -1\r\n\r\n", [400]),
        (HEALTH + b"content-length: 1\r\ncontent-length: 2\r\n\r\n", [400]),
        (HEALTH + b"content-length: 99999999999999999999999999\r\n\r\n", [400]),
        (HEALTH + b"transfer-encoding: gzip, chunked\r\n\r\n", [501, 400]),
        (HEALTH + b"a: " + b"x" * 100_000 + b"\r\n\r\n", [400, 200]),
        (HEALTH + b"".join(b"a%d: b\r\n" % each for each in range(20_000)) + b"\r\n", [400]),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", [400, 404]),
        (b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n", [400]),
        (b"GET \xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n", [400]),
        (b"GET /health\r\n\r\n", [400]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [404]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500, [400]),
        (b"\r\n" * 1000, [400]),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nhost: x\r\n\r\n", [404, 405, 400]),
        (b"GET http://evil.example/health HTTP/1.1\r\nhost: x\r\n\r\n", [404]),
        (b"GET /v1/models/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nhost: x\r\n\r\n", [404]),
        (b"GET //health HTTP/1.1\r\nhost: x\r\n\r\n", [404]),
        (b"GET /health/../metrics HTTP/1.1\r\nhost: x\r\n\r\n", [404]),
        (b"GET /health%00 HTTP/1.1\r\nhost: x\r\n\r\n", [404]),
        (HEALTH + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n", [200]),
        (HEALTH + b"expect: 100-continue\r\n\r\n", [200]),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", [400]),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", [408]),
        (HEAD + b"content-length: 100000000000\r\n\r\n", [413]),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_heads_that_are_wrong(quick: Running, sent: bytes, expected: list[int]) -> None:
    found = statuses(exchange(quick.url, sent))[:1]
    # A long head is refused if it comes in parts, perhaps by a reset that takes the status along.
    assert found in [[each] for each in expected] or (len(sent) > 50_000 and found == [])
    assert httpx.get(f"{quick.url}/health").status_code == 200


def test_one_request_is_not_two(quick: Running) -> None:
    """Where a body ends is said once: no proxy may see other requests than the server does."""
    inner = HEALTH + b"\r\n"
    both = b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n" % (5 + len(inner))
    found = statuses(exchange(quick.url, HEAD + both + b"0\r\n\r\n" + inner))
    assert found == [400, 200], "chunks count, as RFC 9112 has it"
    body = b"content-length: %d\r\n\r\n" % len(inner)
    assert statuses(exchange(quick.url, HEAD + body + inner)) == [400]


def test_pipelined_requests_are_answered_in_turn(quick: Running) -> None:
    one = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    found = exchange(quick.url, one + HEALTH + b"\r\n" + one)
    assert statuses(found) == [200, 200, 200]
    quick.wait_until_idle()


def test_a_head_that_does_not_come(serve: Serve) -> None:
    with serve(limits=ConnectionLimits(head_seconds=0.3)) as server:
        silent, slow, second = (connect(server.url) for _ in range(3))
        slow.sendall(HEAD)
        second.sendall(HEALTH + b"\r\n")
        assert b"200" in second.recv(4096)
        second.sendall(HEALTH)
        for connection in (silent, slow, second):
            with connection:
                assert ended(connection)
        # A body has a time of its own.
        with connect(server.url) as connection:
            connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(BODY))
            time.sleep(0.6)
            connection.sendall(BODY)
            assert b"200 OK" in connection.recv(4096)


def ended(connection: socket.socket) -> bool:
    """Wait for a connection's end."""
    with suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    return True


def test_what_is_written_goes_out_at_once(serve: Serve) -> None:
    limits = ConnectionLimits()
    with serve(limits=limits) as server, connect(server.url):
        wait_until(lambda: len(limits.waiting) == 1)
        (connection,) = limits.waiting
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_too_many_connections_without_a_head(serve: Serve) -> None:
    limits = ConnectionLimits(most_waiting=20)
    with serve(limits=limits) as server, ExitStack() as stack:
        idle = []
        for _ in range(100):
            idle.append(stack.enter_context(connect(server.url)))
            idle[-1].sendall(HEAD)
        assert all(ended(connection) for connection in idle[:80])
        found = server.post("/v1/completions", content=BODY, headers=JSON)
        assert found.status_code == 200
        # One of a request that is answered makes no room: it is none of those that wait.
        assert len(limits.waiting) <= 20


JSON = {"content-type": "application/json"}


def test_a_client_that_does_not_read() -> None:
    is_over = threading.Event()

    async def endless(_: object) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)
            finally:
                is_over.set()

        return StreamingResponse(parts())

    app = Starlette(routes=[Route("/", endless)])
    app.state.service = SimpleNamespace(drain=lambda: None)
    with listening(app, ConnectionLimits(read_seconds=0.3)) as url, connect(url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert is_over.wait(20)


def test_bodies_that_fill_the_memory(serve: Serve) -> None:
    with serve(body_room=10_000) as server:
        part = b"content-length: 20000\r\n\r\n" + b" " * 9_000
        with connect(server.url) as first:
            first.sendall(HEAD + part)
            room = server.app.state.service.bodies
            wait_until(lambda: room.taken == 9_000)
            found = server.post("/v1/completions", content=BODY + b" " * 2_000, headers=JSON)
            assert found.status_code == 429 and found.headers["retry-after"]
        wait_until(lambda: room.taken == 0)
        found = server.post("/v1/completions", content=BODY + b" " * 2_000, headers=JSON)
        assert found.status_code == 200
        # A body counts until its answer has ended.
        asked = {"model": NAME, "prompt": "Hello", "max_tokens": 1900, "stream": True}
        body = json.dumps(asked | {"ignore_eos": True})
        url = f"{server.url}/v1/completions"
        with httpx.stream("POST", url, content=body, headers=JSON) as response:
            lines = response.iter_lines()  # which closes the stream where it is not held
            assert next(lines)
            assert room.taken == len(body)
        wait_until(lambda: room.taken == 0)


def wait_until(holds: object) -> None:
    end = time.monotonic() + 20
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


CLIENT = """
import sys, httpx
body = {"model": sys.argv[2], "prompt": "Hello", "max_tokens": 1900, "stream": True,
        "ignore_eos": True, "temperature": 0}
with httpx.stream("POST", sys.argv[1] + "/v1/completions", json=body, timeout=60) as response:
    for line in response.iter_lines():
        print(line, flush=True)
"""


def test_a_client_that_is_killed_frees_its_pages(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one step: the first one that begins after the answer was cancelled."""
    engine, late = server.served.engine._engine, list[int]()
    step = engine.step

    def watched() -> bool:
        is_cancelled = any(answer.is_cancelled for answer in engine._scheduler.unfinished())
        more = step()
        if is_cancelled:
            late.append(engine.load.running)
        return more

    monkeypatch.setattr(engine, "step", watched)
    command = [sys.executable, "-c", CLIENT, server.url, NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline().startswith(b"data: ")
        client.send_signal(signal.SIGKILL)
    server.wait_until_idle()
    assert late == [0]


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Let this process open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (-1, resource.RLIM_INFINITY) and hard < count:
        pytest.skip(f"this machine lets a process open {hard} files; expected {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.chat
def test_ten_thousand_half_open_connections(artifact_cache: ArtifactCache) -> None:
    artifact = artifact_cache.artifact("linear")
    options = ("--log-format", "none")
    with many_files(12_000), serving(f"{NAME}={artifact}", *options) as (process, url):
        ask = {"url": f"{url}/v1/completions", "content": BODY, "headers": JSON, "timeout": 60}
        assert httpx.post(**ask).status_code == 200  # type: ignore[arg-type]
        before, answered = resident_bytes(process.pid), 0
        with ExitStack() as stack:
            idle = []
            for number in range(10_000):
                idle.append(stack.enter_context(connect(url)))
                idle[-1].sendall(HEAD + b"a: " + b"x" * 1000)
                if number % 1000 == 999:
                    assert httpx.post(**ask).status_code == 200  # type: ignore[arg-type]
                    answered += 1
            assert answered == 10
            assert resident_bytes(process.pid) - before < 100e6
            assert all(ended(connection) for connection in idle)
        assert httpx.post(**ask).status_code == 200  # type: ignore[arg-type]
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 200
