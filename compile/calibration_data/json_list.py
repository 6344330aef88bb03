"""Finds the objects of a JSON list in a file that is too large to be parsed as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

_CHUNK = 2**20
_SPACE = " \t\r\n"


class ListError(ValueError):
    """The file is not a JSON list of objects; the message says where."""


def object_spans(file: BinaryIO, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the first byte of each object of a list, and the byte behind it.

    Args:
        file: In UTF-8, at the list's bracket.
        max_bytes: Of an object. Memory is a few times that.

    Raises:
        ListError: It is not a list of objects, or holds a larger one.
    """
    scanner = _Scanner(file, max_bytes)
    scanner.take("[")
    number = 1
    if scanner.peek() == "]":
        scanner.take("]")
    else:
        yield scanner.take_object(number)
        while scanner.take(",]") == ",":
            number += 1
            yield scanner.take_object(number)
    if scanner.peek():
        raise ListError(f"more text behind the list, at byte {scanner.position:,}")


class _Scanner:
    """A place in a file, and the text that follows it.

    The file is decoded as Latin-1, in which each byte is a character: places in the text are places
    in the file, and what strings hold does not matter here.
    """

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._decoder = json.JSONDecoder()
        self._start = file.tell()  # of the text in the file
        self._text = ""
        self._at = 0  # in the text

    @property
    def position(self) -> int:
        """The place in the file."""
        return self._start + self._at

    def peek(self) -> str:
        """Go to the next character that is not white space, and return it; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._read_on():
                return ""

    def take(self, expected: str) -> str:
        """Take the next character, one of `expected`."""
        found = self.peek()
        if not found or found not in expected:
            raise self._error(" or ".join(map(repr, expected)), repr(found) if found else "the end")
        self._at += 1
        return found

    def take_object(self, number: int) -> tuple[int, int]:
        """Take an object and return where it begins and ends."""
        if self.peek() != "{":
            raise self._error(f"entry {number}, an object", repr(self.peek()) or "the end")
        start = self.position
        while True:
            try:
                self._at = self._decoder.raw_decode(self._text, self._at)[1]
            except (ValueError, RecursionError) as error:
                # The text may end within the object.
                is_large = len(self._text) - self._at > self._max_bytes
                if is_large or not self._read_on():
                    limit = f" of at most {self._max_bytes:,} bytes" if is_large else ""
                    found = error.msg if isinstance(error, json.JSONDecodeError) else error
                    raise self._error(f"entry {number}, an object{limit}", found) from None
            else:
                return start, self.position

    def _read_on(self) -> bool:
        """Read more of the file, and forget what was taken; False at its end."""
        # As much again as is waiting: an object is tried again a few times at the most.
        more = self._file.read(max(_CHUNK, len(self._text) - self._at))
        self._start += self._at
        self._text = self._text[self._at :] + more.decode("latin-1")
        self._at = 0
        return bool(more)

    def _error(self, expected: str, found: object) -> ListError:
        return ListError(f"expected {expected} at byte {self.position:,}, found {found}")
