"""Runs TVM's tracker in this process, and keeps it alive among strangers.

TVM's own :class:`tvm.rpc.tracker.Tracker` starts a process that outlives ours on SIGTERM, and its
destructor fails where the port is taken. Its classes for the protocol are used here, but whatever a
peer sends that is not the protocol ends that peer's connection and nothing else.
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

_MOST_SHOWN = 300  # characters of what a peer may have made up


def run_tracker(listener: socket.socket, note: Callable[[str], None]) -> None:
    """Serve the tracker's protocol until KeyboardInterrupt; closes the listener.

    Args:
        listener: A socket that listens.
        note: Called with what happens, for people.
    """
    logger = logging.getLogger("RPCTracker")
    logger.handlers[:], logger.propagate = [_Notes(note)], False
    logger.setLevel(logging.WARNING)
    asyncio.set_event_loop(asyncio.new_event_loop())
    try:
        _Tracker(listener, note).run()
    finally:
        listener.close()
        IOLoop.current().close()


class _Notes(logging.Handler):
    """Tells of what TVM's classes report, without their tracebacks."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of one report, in a line."""
        reason = record.exc_info[1] if record.exc_info else None
        self._note(_refusal(record.getMessage(), reason))


class _Tracker(TrackerServerHandler):
    """The devices, and those who wait for them."""

    def __init__(self, listener: socket.socket, note: Callable[[str], None]) -> None:
        self.note = note
        # Nobody learns the key that would let a peer stop the tracker.
        super().__init__(listener, secrets.token_hex(16))

    def _on_event(self, _: Any) -> None:
        # TVM's goes on for ever where a connection cannot be accepted, as without descriptors.
        try:
            connection, address = self._sock.accept()
        except OSError:
            return
        _Connection(self, connection, address)

    def close(self, connection: _Connection) -> None:
        """Forget a connection, and the devices that it has offered."""
        self._connections.discard(connection)
        for scheduler in self._scheduler_map.values():
            for offered in connection.put_values:
                scheduler.remove(offered)


class _Connection(TCPEventHandler):
    """One peer: a device, or somebody who wants one."""

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
        """Take a connection that broke for one that ended."""
        self.close()

    def call_handler(self, request: Any) -> None:
        """Answer a request; raises for one that is none."""
        if request[0] == TrackerCode.UPDATE_INFO:
            _check_info(request[1])
        super().call_handler(request)


def _refusal(problem: str, reason: BaseException | None) -> str:
    because = f": {type(reason).__name__}: {reason}" if reason else ""
    return one_line(f"refused a peer. {problem}{because}")[:_MOST_SHOWN]


def _check_info(info: Any) -> None:
    """Refuse what would spoil the list of devices for those who ask for it."""
    host, port = info["addr"]
    if not (
        isinstance(info["key"], str)
        and (host is None or isinstance(host, str))
        and type(port) is int
    ):
        raise ValueError("it does not say who it is")
