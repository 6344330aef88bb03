"""Requests to a server that speaks OpenAI's API, and what goes wrong with them.

The client is asynchronous, because only that can be cancelled at every moment: while it connects,
while the server reads the prompt, and between two tokens. Callers see ordinary functions; the event
loop runs inside of them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

import httpx

from mvlm.runtime.errors import MvlmError, PromptError, UsageError
from mvlm.runtime.terminal_text import one_line

_CONNECT_SECONDS = 10.0
# More than `mvlm serve` takes for an answer at the most.
_SILENCE_SECONDS = 660.0
_MOST_BYTES = 1 << 22  # of an event, or of a document
_MOST_SHOWN = 300  # characters of what a server says
_KEY_HELP = "Give its key: --api-key-file FILE, or MVLM_API_KEY."

T = TypeVar("T")


class ServerError(MvlmError):
    """A server cannot be reached, or answers what is not understood."""


class Cancelled(Exception):  # noqa: N818  # no error
    """The caller has cancelled the request."""


class ServerConnection:
    """A server's address and key.

    Args:
        url: Where the server is, with or without ``/v1``.
        key: Is sent as a bearer token, if there is one.
        silence: Seconds without any byte after which the server counts as dead.
    """

    def __init__(self, url: str, key: str | None, silence: float = _SILENCE_SECONDS) -> None:
        self.url = url.rstrip("/")
        base = self.url if self.url.endswith("/v1") else f"{self.url}/v1"
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._client = httpx.AsyncClient(
            base_url=base,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(silence, connect=_CONNECT_SECONDS),
            trust_env=not is_loopback(url),  # no proxy leads to this machine
        )

    def close(self) -> None:
        """Close all connections."""
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()

    def get(self, path: str) -> Any:
        """Return the JSON document of a path.

        Raises:
            MvlmError: There is none.
        """

        async def got() -> bytes:
            async with self._client.stream("GET", path) as response:
                return await _checked_body(response)

        return _parsed(self._run(got()))

    def events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Send a request and yield its server-sent events, until the one that says ``[DONE]``.

        Raises:
            MvlmError: The server refuses the request, or breaks off.
            Cancelled: By :meth:`cancel`.
        """
        self._cancelled = False
        stream = self._events(path, body)
        try:
            while (event := self._run(_following(stream))) is not None:
                yield event
        finally:
            self._loop.run_until_complete(stream.aclose())

    def cancel(self) -> None:
        """End the events; may be called from a signal's handler."""
        self._cancelled = True
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def _events(
        self, path: str, body: dict[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        async with self._client.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                await _checked_body(response)
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise ServerError(
                    "the server does not stream", expected="text/event-stream", found=f"{kind:.60}"
                )
            async for line in _lines(response):
                if line == b"data: [DONE]":
                    return
                if line.startswith(b"data:"):
                    event = _parsed(line[5:])
                    if "error" in event:
                        raise ServerError("the server has failed", found=_told(event))
                    yield event

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        task: asyncio.Task[T] = self._loop.create_task(work)
        self._task = task
        if self._cancelled:
            task.cancel()
        try:
            return self._loop.run_until_complete(task)
        except asyncio.CancelledError:
            raise Cancelled from None
        except httpx.ConnectError as error:
            raise ServerError(
                f"there is no server at {self.url}",
                found=f"{error}"[:_MOST_SHOWN],
                fix="Is it running? `mvlm serve ARTIFACT` starts one.",
            ) from None
        except httpx.TimeoutException:
            raise ServerError(f"the server at {self.url} does not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerError(
                f"the server at {self.url} broke off", found=f"{error}"[:_MOST_SHOWN]
            ) from None
        finally:
            self._task = None


async def _following(stream: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
    return await anext(stream, None)


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the lines of a stream; httpx's own have no limit."""
    held = b""
    async for part in response.aiter_bytes():
        *lines, held = (held + part).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
        if len(held) > _MOST_BYTES:
            raise ServerError("the server's event is too long", expected=f"{_MOST_BYTES} bytes")


async def _checked_body(response: httpx.Response) -> bytes:
    """Return a whole body.

    Raises:
        MvlmError: It is too long, or the status is an error's.
    """
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _MOST_BYTES:
            raise ServerError("the server's document is too long")
    if response.status_code != 200:
        raise _refusal(response, body)
    return body


def _refusal(response: httpx.Response, body: bytes) -> MvlmError:
    """Return the error that a status stands for."""
    status = response.status_code
    try:
        said = _told(_parsed(body))
    except ServerError:
        said = f"status {status}"
    if status in (401, 403):
        return UsageError("the server refuses the key", found=said, fix=_KEY_HELP)
    if status == 404:
        return UsageError("the server has no such model or path", found=said)
    if status == 429:
        wait = response.headers.get("retry-after", "")
        when = f"in {wait} s" if wait.isdecimal() and len(wait) < 6 else "later"
        return ServerError("the server is busy", found=said, fix=f"Try again {when}.")
    if 400 <= status < 500:
        return PromptError("the server refuses the request", found=said)
    return ServerError("the server has failed", found=said)


def _told(document: dict[str, Any]) -> str:
    """Return what a server says of an error, shortened."""
    error = document.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return one_line(message if isinstance(message, str) else str(document))[:_MOST_SHOWN]


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        shown = data[:60].decode(errors="replace")
        raise ServerError("the server's answer is not understood", found=repr(shown))
    return document


def is_loopback(url: str) -> bool:
    """Whether a URL is this machine's own."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
