"""Runs TVM's tracker in this process, safe from untrusted peers.

TVM's own :class:`tvm.rpc.tracker.Tracker` starts a process that outlives ours on SIGTERM, and its
destructor fails where the port is taken. Its protocol classes are used here, but an invalid message
ends that peer's connection and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop
from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode
from tvm.rpc.tracker import TCPEventHandler, TrackerServerHandler

from mvlm.runtime.terminal_text import one_line

_MAX_SHOWN = 300  # characters of untrusted text


def run_tracker(listener: socket.socket, note: Callable[[str], None]) -> None:
    """Serve the tracker's protocol until KeyboardInterrupt; closes the listener.

    Args:
        listener: A listening socket.
        note: Called with messages for the user.
    """
    logger = logging.getLogger("RPCTracker")
    logger.handlers[:], logger.propagate = [_LogHandler(note)], False
    logger.setLevel(logging.WARNING)
    asyncio.set_event_loop(asyncio.new_event_loop())
    try:
        _Tracker(listener, note).run()
    finally:
        listener.close()
        IOLoop.current().close()


class _LogHandler(logging.Handler):
    """Forwards the log records of TVM's classes, without tracebacks."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        """Forward one record as one line."""
        reason = record.exc_info[1] if record.exc_info else None
        self._note(_refusal(record.getMessage(), reason))


class _Tracker(TrackerServerHandler):
    """The registered devices and the clients that wait for one."""

    def __init__(self, listener: socket.socket, note: Callable[[str], None]) -> None:
        self.note = note
        # A random key, so that no peer can stop the tracker.
        super().__init__(listener, secrets.token_hex(16))

    def _on_event(self, _: Any) -> None:
        # TVM's loops for ever where a connection cannot be accepted, as without file descriptors.
        try:
            connection, address = self._sock.accept()
        except OSError:
            return
        _Connection(self, connection, address)

    def close(self, connection: _Connection) -> None:
        """Drop a connection and the devices that it has offered."""
        self._connections.discard(connection)
        for scheduler in self._scheduler_map.values():
            for offered in connection.put_values:
                scheduler.remove(offered)


class _Connection(TCPEventHandler):
    """One peer: a device, or a client that requests one."""

    def _event_handler(self, events: int) -> None:
        try:
            super()._event_handler(events)
        except Exception as error:
            self._tracker.note(_refusal(f"Error with {self.name()}", error))
            self.close()

    def _init_conn(self, message: bytes) -> None:
        # TVM's goes on with the connection that it has closed.
        if message != struct.pack("<i", RPC_TRACKER_MAGIC):
            raise ValueError("it does not speak the tracker's protocol")
        super()._init_conn(message)

    def name(self) -> str:
        """Name the peer in reports."""
        return str(self._addr[0])

    def on_error(self, error: OSError) -> None:
        """Treat a broken connection as a closed one."""
        self.close()

    def call_handler(self, request: Any) -> None:
        """Answer a request; raises for an invalid one."""
        if request[0] == TrackerCode.UPDATE_INFO:
            _check_info(request[1])
        super().call_handler(request)


def _refusal(problem: str, reason: BaseException | None) -> str:
    because = f": {type(reason).__name__}: {reason}" if reason else ""
    return one_line(f"refused a peer. {problem}{because}")[:_MAX_SHOWN]


def _check_info(info: Any) -> None:
    """Refuse an entry that would break the list of devices."""
    host, port = info["addr"]
    if not (
        isinstance(info["key"], str)
        and (host is None or isinstance(host, str))
        and type(port) is int
    ):
        raise ValueError("its device entry is invalid")
