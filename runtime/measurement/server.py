"""Serves this device to tuners over TVM's RPC, with or without a tracker.

The protocol is TVM's (``tvm/rpc/server.py`` and ``tracker.py``): numbers are little-endian int32.
A client sends a magic number and ``client:KEY``; the server answers with one of three numbers and
``server:KEY``, and from then on the connection is the RPC's own. To a tracker the server sends
JSON texts, each prefixed by its length: its address, and the one-time key that a client must send.

A client can run any code here. The only protection is who can reach the port.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvlm.runtime.errors import UsageError
from mvlm.runtime.start_module import module_command

_MAGIC, _TRACKER_MAGIC = 0xFF271, 0x2F271
_MISMATCH = _MAGIC + 2
_PUT, _UPDATE_INFO, _PENDING_KEYS = 3, 5, 7
_MAX_KEY, _MAX_REPLY = 1 << 10, 1 << 20
# The limits of a handshake, and of an offered key that the tracker handed out and no client uses.
_HANDSHAKE_SECONDS, _UNUSED_SECONDS = 10, 6
_MAX_PORT, _MAX_DIGITS = (1 << 16) - 1, 5
_TICK_SECONDS = 1.0
_RETRY_SECONDS = 2.0
# How long a process may go on after its client has gone: it may be within a kernel.
_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str) -> Address:
        """Read ``HOST:PORT``.

        Raises:
            UsageError: The text is not an address.
        """
        host, _, port = text.rpartition(":")
        # Bounded, because int() refuses thousands of digits by an error of its own.
        is_port = port.isdecimal() and len(port) <= _MAX_DIGITS and 0 < int(port) <= _MAX_PORT
        if not (is_port and is_host(host.strip("[]"))):
            raise UsageError(
                option,
                expected=f"HOST:PORT, as in 192.168.0.7:9190, with a port from 1 to {_MAX_PORT}",
                found=repr(text),
            )
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def is_host(text: str) -> bool:
    """Whether a text is a valid host name or address; it is not resolved."""
    try:
        # What the resolver does first: it raises no OSError for labels that are empty or too long.
        return bool(text) and "\0" not in text and bool(text.encode("idna"))
    except UnicodeError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address.

    Args:
        host: The address, or a name of this machine.
        port: The port; any that is free if 0.

    Raises:
        UsageError: The address is invalid, or the port cannot be bound.
    """
    if not 0 <= port <= _MAX_PORT:
        raise UsageError(
            "--port", expected=f"1 to {_MAX_PORT}, or 0 for any that is free", found=port
        )
    if not is_host(host):
        raise UsageError("--host", expected="an address or a name", found=repr(host))
    try:
        return socket.create_server((host, port))
    except OSError as error:
        # Of a system's error Python repeats the address, and of a name's it has no other number.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise UsageError(
            f"cannot listen at {host}:{port}", found=reason, fix="Name another --host or --port."
        ) from None


class DeviceServer:
    """Serves one client at a time.

    Args:
        library: The TVM runtime's library, loaded by each session.
        key: The kind of device, by which a tracker knows it.
        host: The address to listen at.
        port: The port; any that is free if 0.
        tracker: Where to announce the device; a client has to know the port if None.
        note: Called with what happens, for people.
    """

    def __init__(
        self,
        library: Path,
        key: str,
        host: str = "127.0.0.1",
        port: int = 0,
        tracker: Address | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._library, self._key, self._note = library, key, note
        self._listener = listen(host, port)
        self.address = Address(host, self._listener.getsockname()[1])
        self._tracker = None if tracker is None else _Tracker(tracker, key, self.address.port)

    def serve(self) -> None:
        """Serve one client after the other, for ever."""
        while True:
            connection = self._wait()
            if connection is not None:
                self._serve(connection)

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
        if self._tracker is not None:
            self._tracker.close()

    def _wait(self) -> socket.socket | None:
        """Wait a second for a client; announce the device to the tracker."""
        key = self._key
        if self._tracker is not None:
            try:
                key = self._tracker.offer()
            except OSError as error:
                self._note(f"no tracker at {self._tracker.address}: {error.strerror or error}")
                self._tracker.close()
                time.sleep(_RETRY_SECONDS)
                return None
        ready, _, _ = select.select([self._listener], [], [], _TICK_SECONDS)
        if not ready:
            return None
        connection, peer = self._listener.accept()
        connection.settimeout(_HANDSHAKE_SECONDS)
        try:
            _shake_hands(connection, key, self._key)
        except (OSError, ValueError) as error:
            self._note(f"refused {peer[0]}: {error}")
            connection.close()
            return None
        connection.settimeout(None)
        self._note(f"serving {peer[0]}")
        return connection

    def _serve(self, connection: socket.socket) -> None:
        """Serve a connection in a process of its own, and end that when the client disconnects."""
        descriptor = connection.fileno()
        session = subprocess.Popen(
            module_command(
                "mvlm.runtime.measurement.rpc_session", str(descriptor), str(self._library)
            ),
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            # Ctrl-C is for us alone: we end the session, which would print a traceback of its own.
            start_new_session=True,
        )
        if self._tracker is not None:
            self._tracker.taken()
        try:
            _wait_for_end(session, connection)
        finally:
            if session.poll() is None:
                session.kill()
            session.wait()
            connection.close()
        status = session.returncode
        self._note("done" if status == 0 else f"the session ended with {status}")


def _wait_for_end(session: subprocess.Popen[bytes], connection: socket.socket) -> None:
    """Wait for a session, or until its client has gone and it does not end by itself."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    while session.poll() is None:
        if poll.poll(1000 * _TICK_SECONDS):
            with contextlib.suppress(subprocess.TimeoutExpired):
                session.wait(_GRACE_SECONDS)
            return


def _shake_hands(connection: socket.socket, key: str, name: str) -> None:
    """Accept a client that sends the key."""
    if _read_number(connection) != _MAGIC:
        raise ValueError("not a client of TVM's RPC")
    said = _read_text(connection, _MAX_KEY).split()
    if not said or said[0] != f"client:{key}":
        connection.sendall(struct.pack("<i", _MISMATCH))
        raise ValueError("it asked for another key")
    answer = f"server:{name}".encode()
    connection.sendall(struct.pack("<ii", _MAGIC, len(answer)) + answer)


class _Tracker:
    """The connection to a tracker."""

    def __init__(self, address: Address, key: str, port: int) -> None:
        self.address, self._key, self._port = address, key, port
        self._socket: socket.socket | None = None
        self._offered: str | None = None
        self._unused_since: float | None = None

    def offer(self) -> str:
        """Return the key that a client has to send; offer it to the tracker.

        A key that the tracker has handed out, and that no client uses, is replaced.
        """
        connection = self._socket or self._connect()
        if self._offered is not None and self._is_lost(connection):
            self._offered = None
        if self._offered is None:
            offered = f"{self._key}:{secrets.token_hex(8)}"
            self._ask(connection, [_PUT, self._key, [self._port, offered], None])
            self._offered, self._unused_since = offered, None
        return self._offered

    def taken(self) -> None:
        """Drop the key: a client has used it."""
        self._offered = None

    def close(self) -> None:
        """Disconnect from the tracker, which then hands out our address no more."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._offered = None

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(
            (self.address.host, self.address.port), _HANDSHAKE_SECONDS
        )
        connection.sendall(struct.pack("<i", _TRACKER_MAGIC))
        if _read_number(connection) != _TRACKER_MAGIC:
            connection.close()
            raise OSError("it is no tracker of TVM's")
        about = {"key": f"server:{self._key}", "addr": [None, self._port]}
        self._ask(connection, [_UPDATE_INFO, about])
        self._socket = connection
        return connection

    def _is_lost(self, connection: socket.socket) -> bool:
        pending = self._ask(connection, [_PENDING_KEYS])
        if isinstance(pending, list) and self._offered in pending:
            self._unused_since = None
            return False
        now = time.monotonic()
        self._unused_since = self._unused_since or now
        return now - self._unused_since > _UNUSED_SECONDS

    @staticmethod
    def _ask(connection: socket.socket, request: Any) -> Any:
        text = json.dumps(request).encode()
        connection.sendall(struct.pack("<i", len(text)) + text)
        try:
            return json.loads(_read_text(connection, _MAX_REPLY))
        except ValueError as error:
            raise OSError(f"the tracker sent an invalid answer: {error}") from None


def _read_number(connection: socket.socket) -> int:
    number: int = struct.unpack("<i", _read(connection, 4))[0]
    return number


def _read_text(connection: socket.socket, most: int) -> str:
    length = _read_number(connection)
    if not 0 <= length <= most:
        raise ValueError(f"a text of {length} bytes")
    return _read(connection, length).decode()


def _read(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise OSError("the connection was closed")
        data += part
    return bytes(data)
