"""Keys of servers, from files."""

from __future__ import annotations

from pathlib import Path

from mvlm.runtime.errors import UsageError

_MOST_BYTES = 1 << 16


def read_key(path: Path) -> str:
    """Return the key on a file's first line.

    Raises:
        UsageError: The file cannot be read, or holds none.
    """
    try:
        with path.open("rb") as file:
            words = file.read(_MOST_BYTES).decode("ascii").split()
    except (OSError, ValueError) as error:
        raise UsageError("--api-key-file", expected="a readable text", found=error) from None
    if not words:
        raise UsageError("--api-key-file", expected="a key on the first line", found="none")
    return words[0]
