"""Connections with time limits: uvicorn alone waits for a request's head, or a reader, for ever.

A connection that awaits a head is closed after some seconds, and at once if it is the oldest of too
many: whoever opens thousands and says nothing takes away nobody else's place.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass
class ConnectionLimits:
    """What connections may take, and which of them await a request's head.

    Attributes:
        head_seconds: How long a request's head may take, from the connection's beginning or the
            last response's end.
        read_seconds: How long a client may leave unread what was sent to it.
        most_waiting: Connections that await a head at once.
        waiting: These, the oldest first.
    """

    head_seconds: float = 10.0
    read_seconds: float = 60.0
    most_waiting: int = 1024
    waiting: OrderedDict[LimitedProtocol, None] = field(default_factory=OrderedDict)

    def protocol(self, **arguments: Any) -> LimitedProtocol:
        """Return the protocol of a new connection."""
        return LimitedProtocol(self, **arguments)


class LimitedProtocol(H11Protocol):
    """A connection of HTTP/1.1 within limits.

    Args:
        limits: The server's.
        arguments: Uvicorn's.
    """

    def __init__(self, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        # A head and its body, or two tokens, are writes of their own, of which the second one would
        # wait 40 ms for an acknowledgement. asyncio does this for sockets of a named protocol only.
        sock = transport.get_extra_info("socket")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._limits.waiting.pop(self, None)
        for name in list(self._timers):
            self._stop(name)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Read what has come; a whole head ends the wait for it."""
        super().handle_events()
        if self._is_answering:
            self._limits.waiting.pop(self, None)
            self._stop("head")

    def on_response_complete(self) -> None:
        """Begin to wait for the next head, unless it is there already."""
        super().on_response_complete()
        if not (self._is_answering or self.transport.is_closing()):
            self._await_head()

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        self._start("read", self._limits.read_seconds)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._stop("read")

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        waiting = self._limits.waiting
        waiting[self] = None
        self._start("head", self._limits.head_seconds)
        if len(waiting) > self._limits.most_waiting:
            oldest, _ = waiting.popitem(last=False)
            oldest.transport.abort()

    def _start(self, name: str, seconds: float) -> None:
        self._stop(name)
        self._timers[name] = self.loop.call_later(seconds, self.transport.abort)

    def _stop(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()
