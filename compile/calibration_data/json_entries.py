"""The entries of a JSON list, or of a file with one JSON object a line, without loading them all.

The file is read once, to learn where its entries are; only those that are drawn are read again.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mvlm.compile.calibration_data.json_list import ListError, object_spans
from mvlm.runtime.errors import UsageError

MAX_ENTRY_BYTES = 2**20
"""Longer entries are refused; calibration reads the first few hundred tokens of one."""

MAX_ENTRIES = 5_000_000
"""Files of more entries are refused; LLaVA's mix665k has 665,298. An entry takes 16 bytes."""

_FORMAT = "a JSON list of entries, or one entry a line"
_BOM = b"\xef\xbb\xbf"


class JsonEntries:
    """The places of a file's entries.

    Args:
        path: A file in UTF-8: a JSON list of objects, or JSONL.

    Raises:
        UsageError: It is neither, holds no entry, or is over a limit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._spans = array("Q")
        with path.open("rb") as file:
            is_list = self._begins_list(file)
            spans = object_spans(file, MAX_ENTRY_BYTES) if is_list else _line_spans(file)
            try:
                for span in spans:
                    self._spans.extend(span)
                    self._check_limits()
            except ListError as error:
                raise UsageError(
                    f"{path} is not calibration data", expected=_FORMAT, found=error
                ) from None
        if not len(self):
            raise UsageError(f"{path} has no entries", expected=_FORMAT, found="an empty list")

    def __len__(self) -> int:
        return len(self._spans) // 2

    def name(self, index: int) -> str:
        """How messages call an entry: by its number, counted from 1 as lines are."""
        return f"{self.path}: entry {index + 1}"

    def read(self, index: int) -> object:
        """Read one entry.

        Raises:
            UsageError: It is not JSON.
        """
        start, end = self._spans[2 * index : 2 * index + 2]
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{self.name(index)} is not JSON", expected=_FORMAT, found=str(error)[:120]
            ) from None

    def _begins_list(self, file: BinaryIO) -> bool:
        """Go to the first entry or bracket; whether it is a bracket."""
        file.seek(len(_BOM) if file.read(len(_BOM)) == _BOM else 0)
        while line := file.readline(MAX_ENTRY_BYTES):
            if body := line.lstrip():
                file.seek(-len(body), 1)
                break
        if body[:1] not in (b"[", b"{"):
            raise UsageError(
                f"{self.path} is not calibration data",
                expected=_FORMAT,
                found=repr(body[:20].decode("utf-8", "ignore")),
            )
        return body.startswith(b"[")

    def _check_limits(self) -> None:
        start, end = self._spans[-2:]
        if end - start > MAX_ENTRY_BYTES:
            raise UsageError(
                f"{self.name(len(self) - 1)} is too large",
                expected=f"an entry of at most {MAX_ENTRY_BYTES:,} bytes",
                fix="Leave it out: calibration reads the beginning of an entry only.",
            )
        if len(self) > MAX_ENTRIES:
            raise UsageError(
                f"{self.path} has too many entries",
                expected=f"at most {MAX_ENTRIES:,}",
                fix="Give a part of it: calibration reads some dozens.",
            )


def _line_spans(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield where the lines that are not blank begin and end."""
    start = file.tell()
    while line := file.readline(MAX_ENTRY_BYTES + 2):
        if not line.isspace():
            yield start, start + len(line.rstrip())
        start += len(line)
