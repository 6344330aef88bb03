"""A file of calibration data: that it is there and is text, before anything is drawn from it."""

from __future__ import annotations

import codecs
from pathlib import Path

from mvlm.runtime.errors import UsageError
from mvlm.runtime.input_file import is_present, refuse_lfs_pointer

TEXT_SUFFIXES = (".txt", ".md")
JSON_SUFFIXES = (".json", ".jsonl")
MAX_BYTES = 8 * 2**30
"""Larger files are refused. LLaVA's mix665k has one gigabyte; reading it takes some seconds."""

_CHUNK = 2**20


def check_text_file(path: Path) -> int:
    """Check that a file is UTF-8 text, in one pass and a megabyte of memory.

    Returns:
        Its size in bytes.

    Raises:
        UsageError: It is absent, of an unknown kind, too large, empty, or not UTF-8.
        OSError: It cannot be read.
    """
    if not is_present(path, UsageError):
        raise UsageError(
            f"there is no file {path}" if not path.is_dir() else f"{path} is a folder",
            expected="a file of calibration data",
            fix="Name the file itself; the images' folder is an option of its own.",
        )
    if path.suffix.lower() not in TEXT_SUFFIXES + JSON_SUFFIXES:
        raise UsageError(
            f"{path} is of an unknown kind",
            expected=f"text ({', '.join(TEXT_SUFFIXES)}) or conversations in LLaVA's format "
            f"({', '.join(JSON_SUFFIXES)})",
            found=repr(path.suffix),
        )
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UsageError(
            f"{path} is too large",
            expected=f"at most {MAX_BYTES:,} bytes",
            found=f"{size:,}",
            fix="Give a part of it: calibration reads a few thousand tokens.",
        )
    if not _check_encoding(path):
        raise UsageError(f"{path} is empty", expected="calibration data")
    return size


def _check_encoding(path: Path) -> bool:
    """Return whether the file holds anything but white space; it is UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    has_text = False
    with path.open("rb") as file:
        for position in range(0, MAX_BYTES + _CHUNK, _CHUNK):
            chunk = file.read(_CHUNK)
            if not position:
                refuse_lfs_pointer(path, chunk, UsageError)
            begin = position - len(decoder.getstate()[0])  # with what was left of the last chunk
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                found = f"{error.reason} at byte {begin + error.start:,}"
                raise _encoding_error(path, found) from None
            if "\0" in text:
                raise _encoding_error(path, "NUL bytes, as UTF-16 has")
            has_text = has_text or bool(text.strip("\ufeff \t\r\n"))
            if not chunk:
                break
    return has_text


def _encoding_error(path: Path, found: str) -> UsageError:
    return UsageError(
        f"{path} is not UTF-8 text",
        expected="UTF-8",
        found=found,
        fix=f"Convert it, such as by `iconv -f LATIN1 -t UTF-8 {path.name}`.",
    )
