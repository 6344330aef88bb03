"""Images by their URLs: from allowed hosts at public addresses, and nothing else."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mvlm.runtime.errors import UsageError
from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.remote_images import (
    FetchLimits,
    ImageUrl,
    RemoteImages,
    is_public,
    parse_allowed,
)
from tests.runtime.server.conftest import NAME, Serve
from tests.runtime.server.test_chat_api import QUESTION, ask, picture, shown

HOST = "images.example"
LIMITS = FetchLimits(most_bytes=100_000, seconds=10)


@dataclass
class Host:
    """A web server at a loopback address, and what was asked of it."""

    port: int
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def hosting(tls: ssl.SSLContext | None = None) -> Iterator[Host]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.asked.append((self.path, dict(self.headers)))
            file, kind, status = picture(3), "image/png", 200
            if self.path.startswith("/redirect"):
                status = 302
            elif self.path == "/page":
                kind = "text/html"
            elif self.path == "/long":
                file = b"x" * (LIMITS.most_bytes + 1)
            self.send_response(status)
            self.send_header("content-type", kind)
            if self.path == "/redirect":
                self.send_header("location", f"http://{HOST}:{host.port}/image")
            if self.path == "/compressed":
                self.send_header("content-encoding", "gzip")
            if self.path not in ("/endless", "/long"):
                self.send_header("content-length", str(len(file)))
            self.end_headers()
            if self.path == "/slow":
                released.wait(20)
            self.wfile.write(file)

        def log_message(self, *_: Any) -> None:
            pass

    released = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        host = Host(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield host
        finally:
            released.set()
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with hosting() as found:
        yield found


async def loopback(_: str, __: int) -> Sequence[str]:
    return ["127.0.0.1"]


def fetching(*allowed: str, **options: Any) -> RemoteImages:
    """Images of hosts that are all this machine, as tests alone may have it."""
    options = {"limits": LIMITS, "resolver": loopback, "may_reach": bool} | options
    return RemoteImages(allowed, **options)


def fetch(images: RemoteImages, *urls: str) -> list[bytes]:
    shown = [ImageUrl(url, f"at.{number}") for number, url in enumerate(urls)]
    return asyncio.run(images.files(shown))


@pytest.mark.parametrize("spelled", [HOST, HOST.upper(), f"{HOST}."])
def test_an_allowed_host(host: Host, spelled: str) -> None:
    allowed = [f"{HOST}:{host.port}"]
    url = f"HTTP://{spelled}:{host.port}/image?a=b#c"
    assert fetch(fetching(*allowed), url) == [picture(3)]
    path, headers = host.asked[-1]
    assert path == "/image?a=b"
    assert headers["Host"] == f"{HOST}:{host.port}"
    assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding"}


def test_no_proxy_of_the_environment(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    images = fetching(f"{HOST}:{host.port}")
    assert fetch(images, f"http://{HOST}:{host.port}/image") == [picture(3)]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://other.example:{port}/image", "fetches nothing from other.example"),
        ("http://x.images.example:{port}/image", "fetches nothing from x.images.example"),
        ("http://images.example.evil.example:{port}/", "fetches nothing from images.example.evil"),
        ("http://images.example/image", "fetches nothing from images.example:80"),
        ("https://images.example/image", "fetches nothing from images.example:443"),
        ("http://images.example:1/image", "fetches nothing from images.example:1"),
        ("http://images.example:{port}@other.example/image", "expected a data URL, or one of"),
        ("http://user:password@images.example:{port}/image", "expected a data URL, or one of"),
        ("http://other.example\\@images.example:{port}/", "expected a data URL, or one of"),
        ("http://images.example:{port}\\@other.example/", "expected a data URL, or one of"),
        ("http://images.example:{port} /image", "expected a data URL, or one of"),
        ("http://images.example:{port}/a\r\nx: y", "expected a data URL, or one of"),
        ("http://images.example:{port}/\x00", "expected a data URL, or one of"),
        ("http://im\u0430ges.example:{port}/", "expected a data URL, or one of"),
        ("http://images.example:99999/image", "expected a data URL, or one of"),
        ("http://images.example:x/image", "expected a data URL, or one of"),
        ("http:///image", "expected a data URL, or one of"),
        ("http:images.example:{port}/image", "expected a data URL, or one of"),
        ("//images.example:{port}/image", "expected a data URL, or one of"),
        ("file:///etc/passwd", "expected a data URL, or one of"),
        ("ftp://images.example/image", "expected a data URL, or one of"),
        ("gopher://images.example:{port}/_x", "expected a data URL, or one of"),
        ("unix:///run/docker.sock", "expected a data URL, or one of"),
        ("http://127.0.0.1:{port}/image", "expected a data URL, or one of"),
        ("http://2130706433:{port}/image", "expected a data URL, or one of"),
        ("http://0177.0.0.1:{port}/image", "expected a data URL, or one of"),
        ("http://0x7f.0x0.0x0.0x1:{port}/image", "expected a data URL, or one of"),
        ("http://127.1:{port}/image", "expected a data URL, or one of"),
        ("http://[::1]:{port}/image", "expected a data URL, or one of"),
        ("http://[::ffff:127.0.0.1]:{port}/image", "expected a data URL, or one of"),
        ("http://[fe80::1%25lo]:{port}/image", "expected a data URL, or one of"),
        ("http://localhost:{port}/image", "fetches nothing from localhost"),
        ("http://images.example:{port}/" + "x" * 2048, "expected a data URL, or one of"),
        ("http://images.example:{port}/redirect", "answered 302, expected 200; no redirect"),
        ("http://images.example:{port}/redirect-nowhere", "answered 302"),
        ("http://images.example:{port}/page", "sent no image"),
        ("http://images.example:{port}/compressed", "sent it compressed"),
        ("http://images.example:{port}/long", "the images are too long"),
    ],
    ids=str,
)
def test_urls_that_are_refused(host: Host, url: str, message: str) -> None:
    asked = len(host.asked)
    with pytest.raises(ApiError, match=r"^at\.0: ") as caught:
        fetch(fetching(f"{HOST}:{host.port}"), url.replace("{port}", str(host.port)))
    assert caught.value.status == 400 and message in caught.value.message
    was_asked = any(word in message for word in ("answered", "sent", "long"))
    assert len(host.asked) == asked + was_asked


NO_HOSTS = """
127.0.0.1 ::1 [::1] 2130706433 0x7f000001 127.1 0177.0.0.1 a.0x1 host:0 host:x host:99999
http://host host/path user@host -host *.host a..b
"""


@pytest.mark.parametrize("text", [*NO_HOSTS.split(), "", "a b", "x" * 64])
def test_hosts_that_cannot_be_allowed(text: str) -> None:
    with pytest.raises(UsageError, match="an allowed host: expected NAME or NAME:PORT"):
        parse_allowed(text)


def test_hosts_are_compared_in_one_spelling() -> None:
    assert parse_allowed("B\u00fccher.Example.") == ("xn--bcher-kva.example", None)
    assert parse_allowed("XN--BCHER-KVA.example:8443") == ("xn--bcher-kva.example", 8443)


PRIVATE = """
0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 192.0.0.8
192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1
240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:8.8.8.8
::ffff:0:8.8.8.8 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::8.8.8.8 100::1 2001::1
2001:10::1 2001:20::1 2001:2::1 2001:db8::1 2002:7f00:1:: 2002:808:808::1 3fff::1 5f00::1
fc00::1 fd00:ec2::254 fe80::1 fe80::1%lo 2606:4700::1111%1 fec0::1 ff02::1 ff0e::1
2130706433 127.1 0177.0.0.1 0x7f.1 localhost
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)

    async def resolver(_: str, __: int) -> Sequence[str]:
        return ["1.1.1.1", address]

    with pytest.raises(
        ApiError, match=r"images\.example does not answer: it has no public address"
    ):
        fetch(RemoteImages([HOST], LIMITS, resolver), f"http://{HOST}/image")


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


def test_the_address_that_was_checked_is_the_one_that_is_reached(host: Host) -> None:
    """A name that has another address at the second look is looked up once alone."""
    looks = 0

    async def rebinding(_: str, __: int) -> Sequence[str]:
        nonlocal looks
        looks += 1
        return ["127.0.0.1"] if looks == 1 else ["127.0.0.2"]

    checked: list[str] = []

    def check(address: str) -> bool:
        checked.append(address)
        return True

    images = fetching(f"{HOST}:{host.port}", resolver=rebinding, may_reach=check)
    assert fetch(images, f"http://{HOST}:{host.port}/image") == [picture(3)]
    assert looks == 1 and checked == ["127.0.0.1"]


def test_limits_are_of_all_images_together(host: Host) -> None:
    size, url = len(picture(3)), f"http://{HOST}:{host.port}/image"
    for count, fits in ((2, True), (3, False)):
        images = fetching(f"{HOST}:{host.port}", limits=FetchLimits(2 * size, 10))
        if fits:
            assert len(fetch(images, *[url] * count)) == count
        else:
            with pytest.raises(ApiError, match=r"at\.2: the images are too long"):
                fetch(images, *[url] * count)
    images = fetching(f"{HOST}:{host.port}", limits=FetchLimits(10**6, 0.2))
    with pytest.raises(ApiError, match=r"did not come within 0\.2 s"):
        fetch(images, f"http://{HOST}:{host.port}/slow")


@pytest.mark.parametrize(
    ("resolver_error", "message"), [(OSError("no such name"), "it has no address"), (None, "")]
)
def test_hosts_that_do_not_answer(resolver_error: OSError | None, message: str) -> None:
    async def resolver(_: str, __: int) -> Sequence[str]:
        if resolver_error is not None:
            raise resolver_error
        return ["127.0.0.1"]

    with hosting() as gone:
        port = gone.port
    with pytest.raises(ApiError, match=f"images.example does not answer: {message}"):
        fetch(fetching(f"{HOST}:{port}", resolver=resolver), f"http://{HOST}:{port}/image")


def test_tls_is_verified_against_the_name(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=x", "-addext", f"subjectAltName=DNS:{HOST}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=certificate)
    with hosting(serving) as host:
        allowed = [f"{HOST}:{host.port}", f"other.example:{host.port}"]
        url = f"https://{HOST}:{host.port}/image"
        assert fetch(fetching(*allowed, tls=trusting), url) == [picture(3)]
        with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(fetching(*allowed, tls=trusting), url.replace(HOST, "other.example"))
        with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(fetching(*allowed), url)


def test_a_question_about_a_fetched_image(serve: Serve, host: Host) -> None:
    url = f"http://{HOST}:{host.port}/image"
    with serve(images=fetching(f"{HOST}:{host.port}")) as server:
        text = {"type": "text", "text": QUESTION}
        by_url = {"type": "image_url", "image_url": {"url": url}}
        found = ask(server, [{"role": "user", "content": [by_url, text]}])
        wanted = ask(server, [{"role": "user", "content": [*shown(picture(3)), text]}])
        assert found.choices[0].message.content == wanted.choices[0].message.content
        by_url = {"type": "input_image", "image_url": f"http://{HOST}:{host.port}/page"}
        body = {"model": NAME, "input": [{"role": "user", "content": [by_url, text]}]}
        refused = server.post("/v1/responses", json=body)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "input.0.content.0"
