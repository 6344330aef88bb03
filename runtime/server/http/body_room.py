"""How much memory the bodies of all requests in progress may take together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mvlm.runtime.server.errors import ApiError


class BodyRoom:
    """Room for bodies.

    Args:
        most: Bytes.

    Attributes:
        taken: Bytes that are taken.
    """

    def __init__(self, most: int) -> None:
        self._most, self.taken = most, 0

    @contextmanager
    def part(self) -> Iterator[BodyPart]:
        """Hold what one body takes, until its request has ended."""
        part = BodyPart(self)
        try:
            yield part
        finally:
            self.taken -= part.taken

    def take(self, count: int) -> None:
        """Take bytes.

        Raises:
            ApiError: There are too few.
        """
        if self.taken + count > self._most:
            raise ApiError(
                429,
                "the requests in progress take too much memory",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
            )
        self.taken += count


class BodyPart:
    """What one body takes of the room."""

    def __init__(self, room: BodyRoom) -> None:
        self._room, self.taken = room, 0

    def take(self, count: int) -> None:
        """Take bytes for the next piece.

        Raises:
            ApiError: There are too few.
        """
        self._room.take(count)
        self.taken += count
