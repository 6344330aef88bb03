"""Uvicorn, as it serves our application: limits, log, and a readiness that says when it ends."""

from __future__ import annotations

import resource
import socket
from contextlib import suppress
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette

from mvlm.runtime.server.http.connections import ConnectionLimits

_GRACE_SECONDS = 30
_MOST_CONNECTIONS, _MOST_HEADER_BYTES = 4096, 1 << 16
_FILES_TO_SPARE = 256


class HttpServer(uvicorn.Server):
    """Serves the application until it is told to end.

    Args:
        app: The application.
        limits: Of its connections.
    """

    def __init__(self, app: Starlette, limits: ConnectionLimits | None = None) -> None:
        limits = limits or ConnectionLimits()
        config = uvicorn.Config(
            app,
            http=cast(Any, limits.protocol),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
        )
        super().__init__(config)
        self._service = app.state.service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Say that the server ends, and let answers that have begun end."""
        self._service.drain()
        super().handle_exit(sig, frame)

    def serve_on(self, listener: socket.socket) -> None:
        """Serve what comes to a socket."""
        raise_file_limit()
        self.run([listener])


def raise_file_limit() -> None:
    """Let this process open as many files as it needs for its connections, where it may."""
    wanted = _MOST_CONNECTIONS + _FILES_TO_SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
