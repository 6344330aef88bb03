"""Files that come from outside: whether one is there, and names that are not UTF-8.

A symbolic link that leads nowhere is not an absent file. Model folders are full of links (the
Hugging Face cache is made of them), and passing a broken one over would compile another model than
the one that was meant. The same holds for a Git LFS pointer, which is a small text file.

A Linux file name is any bytes. Python carries those that are not UTF-8 as lone surrogates
(PEP 383), which TVM and onnx refuse.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mvlm.runtime.errors import MvlmError

_LFS_MARK = b"version https://git-lfs.github.com/"
_LFS_FIX = "Run `git lfs pull` in its folder, or download the file itself."


def is_present(path: Path, error: type[MvlmError]) -> bool:
    """Whether a file is there; False where there is nothing of that name, or a folder.

    Args:
        path: The file.
        error: What to raise where the answer is neither yes nor no.

    Raises:
        MvlmError: The path, or a folder on the way to it, is a link that leads nowhere; or the
            system does not let us look.
    """
    try:
        if path.is_file():
            return True
        _refuse_broken_link(path, error)
    except ValueError:  # a NUL byte in the name
        return False
    except OSError as failure:
        if failure.errno == errno.ENAMETOOLONG:
            return False
        raise error(f"{path} cannot be read", found=failure.strerror) from None
    return False


def refuse_lfs_pointer(path: Path, start: bytes, error: type[MvlmError]) -> None:
    """Refuse a Git LFS pointer in the place of a file.

    Args:
        path: The file.
        start: Its first bytes, 64 or more if it has as many.
        error: What to raise.

    Raises:
        MvlmError: It is a pointer.
    """
    if start.startswith(_LFS_MARK):
        raise error(f"{path} is a Git LFS pointer, not the file itself", fix=_LFS_FIX)


def _refuse_broken_link(path: Path, error: type[MvlmError]) -> None:
    for place in (path, *path.parents):
        if place.exists():
            return
        if place.is_symlink():
            raise error(
                f"{place} is a link that leads nowhere",
                expected="a link to a file or a folder that is there",
                found=f"a link to {place.readlink()}",
                fix="Download what it points to again, or remove the link.",
            )


@contextmanager
def utf8_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder by a path that is UTF-8: its own, or that of a link for the time of the block.

    Args:
        folder: It exists.
    """
    try:
        os.fspath(folder).encode()
    except UnicodeEncodeError:
        import tempfile  # here, since it would slow the start of every command

        with tempfile.TemporaryDirectory(prefix="mvlm-") as place:
            link = Path(place) / "folder"
            link.symlink_to(folder.absolute())
            yield link
    else:
        yield folder


def as_utf8(name: str) -> str:
    """Return a file's name as text that can be stored: U+FFFD stands for what is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")
