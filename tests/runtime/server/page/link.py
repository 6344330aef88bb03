"""A connection to a server that can be slow, cut, or down: a TCP proxy in threads."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType

# Of an answer, a piece of which comes every few milliseconds while the link is slow.
_SLOW_BYTES, _SLOW_SECONDS = 400, 0.03


class Link:
    """Forwards connections from a port of its own.

    Args:
        port: The server's, on this machine.

    Attributes:
        port: The one to connect to.
        is_slow: Whether what the server sends trickles.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.is_slow = False
        self._is_down = False
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End all connections."""
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def go_down(self) -> None:
        """End all connections, and take no others."""
        self._is_down = True
        self.cut()

    def come_back(self) -> None:
        """Take connections again, and quickly."""
        self._is_down = self.is_slow = False

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self._is_down:
                return
            with socket.create_connection(("127.0.0.1", self._upstream)) as server:
                self._open |= {client, server}
                back = threading.Thread(target=self._forward, args=(server, client, True))
                back.start()
                self._forward(client, server, False)
                back.join()
                self._open -= {client, server}

    def _forward(self, source: socket.socket, target: socket.socket, may_trickle: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                while may_trickle and self.is_slow and data:
                    target.sendall(data[:_SLOW_BYTES])
                    data = data[_SLOW_BYTES:]
                    time.sleep(_SLOW_SECONDS)
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
