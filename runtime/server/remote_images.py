"""Images by their URLs: fetched from hosts that the server's owner allows, and from no other.

A URL comes from a client and must not lead into the network that the server is in. So the host must
be allowed by name, every address of the name must be public, and the connection goes to the very
addresses that were checked: a second look at the name might find another one (DNS rebinding). TLS
is still verified against the name. No redirect is followed, not even to an allowed host: an image
has a URL of its own, and a host that redirects anywhere would undo the list. No cookies, passwords
or proxies of the environment are used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpcore

from mvlm.runtime.errors import UsageError
from mvlm.runtime.server.errors import ApiError

_PORTS = {"http": 80, "https": 443}
_MOST_URL = 2048
# Printable ASCII without the backslash, which some readers take for a slash.
_URL = re.compile(r"https?://[!-\[\]-~]+", re.IGNORECASE)
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_MOST_FETCHES = 16
_CODE = "invalid_image_url"
_HEADERS = [("User-Agent", "mvlm"), ("Accept", "image/*"), ("Accept-Encoding", "identity")]

# Older versions of Python's `is_global` do not know all of these.
_NOT_PUBLIC = [
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which holds any IPv4 address
        "3fff::/20",  # documentation
    )
]
_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True)
class ImageUrl:
    """A URL that a request shows.

    Attributes:
        url: As the client wrote it.
        where: The part of the request, for errors.
    """

    url: str
    where: str


@dataclass(frozen=True)
class FetchLimits:
    """Of one request's images together.

    Attributes:
        most_bytes: Of their files.
        seconds: From the first one's name to the last one's end.
    """

    most_bytes: int = 64 << 20
    seconds: float = 20.0


def is_public(address: str) -> bool:
    """Return whether an address is one that anybody on the internet may reach.

    IPv6 forms that hold an IPv4 address are refused, but for NAT64's, which networks without IPv4
    need; there the address within counts.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            return False
        if found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        if found not in _UNICAST:
            return False
    is_special = found.is_multicast or any(found in network for network in _NOT_PUBLIC)
    return found.is_global and not is_special


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host.

    Raises:
        OSError: It has none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def parse_allowed(text: str) -> tuple[str, int | None]:
    """Return the host and the port of ``HOST`` or ``HOST:PORT``.

    Raises:
        UsageError: It is no host's name; addresses are none.
    """
    host, colon, port = text.partition(":")
    try:
        if colon and not (port.isdecimal() and 0 < int(port) < 1 << 16):
            raise ValueError
        return _host_name(host), int(port) if colon else None
    except ValueError:
        raise UsageError(
            "an allowed host", expected="NAME or NAME:PORT", found=repr(text)
        ) from None


def _host_name(text: str) -> str:
    """Return a name in lower case, in ASCII, and without a dot behind it.

    Raises:
        ValueError: It is no name, or a number, which the system would read as an address.
    """
    name = text.encode("idna").decode("ascii").lower().removesuffix(".")
    last = name.rpartition(".")[2]
    if len(name) > 253 or not _NAME.fullmatch(name) or last.isdecimal() or last.startswith("0x"):
        raise ValueError(f"{text!r} is no host name")
    return name


class RemoteImages:
    """Fetches images.

    Args:
        allowed: Hosts, each ``NAME`` or ``NAME:PORT``; without a port, the scheme's own.
        limits: Of each request.
        resolver: Finds a name's addresses.
        may_reach: Says whether an address may be connected to.
        tls: Verifies hosts; the system's own if None.

    Raises:
        UsageError: A host is none.
    """

    def __init__(
        self,
        allowed: Iterable[str] = (),
        limits: FetchLimits | None = None,
        resolver: Resolve = resolve,
        may_reach: Callable[[str], bool] = is_public,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = frozenset(map(parse_allowed, allowed))
        self._limits = limits or FetchLimits()
        self._backend = _CheckedBackend(resolver, may_reach)
        self._tls = tls
        self._turns = asyncio.Semaphore(_MOST_FETCHES)

    async def files(self, images: Sequence[bytes | ImageUrl]) -> list[bytes]:
        """Return images' files, those of URLs fetched.

        Raises:
            ApiError: A URL is not allowed, or its image cannot be had.
        """
        targets = [each if isinstance(each, bytes) else self._target(each) for each in images]
        files, left = list[bytes](), self._limits.most_bytes

        async def fetch_all() -> None:
            nonlocal left
            for target in targets:
                if isinstance(target, bytes):
                    files.append(target)
                    continue
                async with self._turns:
                    file = await self._fetch(target, left)
                left -= len(file)
                files.append(file)

        seconds = self._limits.seconds
        try:
            await asyncio.wait_for(fetch_all(), seconds)
        except asyncio.TimeoutError:
            message = f"the images did not come within {seconds:g} s"
            raise ApiError(400, message, code=_CODE) from None
        return files

    def _target(self, image: ImageUrl) -> _Target:
        """Return what a URL names, if it is allowed."""
        if not self._allowed:
            raise _refused(
                image.where,
                "images are taken as data URLs (data:image/png;base64,...); this server fetches "
                "none",
            )
        try:
            if len(image.url) > _MOST_URL or not _URL.fullmatch(image.url):
                raise ValueError
            parts = urlsplit(image.url)
            if "@" in parts.netloc or parts.hostname is None:
                raise ValueError
            host, port = _host_name(parts.hostname), parts.port
        except ValueError:
            raise _refused(image.where, "expected a data URL, or one of http or https") from None
        standard = _PORTS[parts.scheme]
        port = standard if port is None else port
        wanted = {(host, port), (host, None)} if port == standard else {(host, port)}
        if not wanted & self._allowed:
            raise _refused(image.where, f"this server fetches nothing from {host}:{port}")
        query = f"?{parts.query}" if parts.query else ""
        return _Target(image.where, parts.scheme, host, port, (parts.path or "/") + query)

    async def _fetch(self, target: _Target, most: int) -> bytes:
        if self._tls is None and target.scheme == "https":
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        try:
            async with (
                httpcore.AsyncConnectionPool(self._tls, network_backend=self._backend) as pool,
                pool.stream("GET", target.url, headers=target.headers) as response,
            ):
                _check_answer(target, response)
                parts, total = list[bytes](), 0
                async for part in response.aiter_stream():
                    total += len(part)
                    if total > most:
                        raise _refused(target.where, "the images are too long")
                    parts.append(part)
                return b"".join(parts)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise _refused(
                target.where, f"{target.host} does not answer: {str(error)[:100] or 'no reason'}"
            ) from None


@dataclass(frozen=True)
class _Target:
    """An allowed URL, in parts."""

    where: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> httpcore.URL:
        return httpcore.URL(scheme=self.scheme, host=self.host, port=self.port, target=self.path)

    @property
    def headers(self) -> list[tuple[str, str]]:
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return [("Host", self.host + port), *_HEADERS]


def _check_answer(target: _Target, response: httpcore.Response) -> None:
    """Refuse what is no image, by its status and headers."""
    headers = {name.lower(): value.lower() for name, value in response.headers}
    if response.status != 200:
        raise _refused(
            target.where,
            f"{target.host} answered {response.status}, expected 200; no redirect is followed",
        )
    if not headers.get(b"content-type", b"").startswith(b"image/"):
        raise _refused(target.where, f"{target.host} sent no image")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise _refused(target.where, f"{target.host} sent it compressed")


class _CheckedBackend(httpcore.AnyIOBackend):
    """Connects to addresses that may be reached, each looked up once."""

    def __init__(self, resolver: Resolve, may_reach: Callable[[str], bool]) -> None:
        self._resolve, self._may_reach = resolver, may_reach

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except OSError:
            raise httpcore.ConnectError("it has no address") from None
        # All of them: a name with both kinds is not one of a public host.
        if not addresses or not all(map(self._may_reach, addresses)):
            raise httpcore.ConnectError("it has no public address")
        error: Exception = httpcore.ConnectError("it has no address")
        for address in addresses:
            try:
                return await super().connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore.ConnectError as failure:
                error = failure
        raise error


def _refused(where: str, message: str) -> ApiError:
    return ApiError(400, f"{where}: {message}", param=where, code=_CODE)
