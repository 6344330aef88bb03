"""Errors of stores and of steps, and whether a retry can help."""

from __future__ import annotations

import errno

from mvlm.runtime.errors import MvlmError

# Errors that a retry some seconds later does not help against.
_PERMANENT = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.ELOOP,
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StoreError(MvlmError):
    """The store cannot be reached, read or written.

    Attributes:
        retryable: Whether a retry can help.
    """

    retryable = True


class PermanentStoreError(StoreError):
    """The same, where a retry cannot help: a full disk, a missing permission."""

    retryable = False


class DamagedError(StoreError):
    """A file of the store does not match its digest. The damaged copy has been removed."""


def store_error(place: str, error: Exception) -> StoreError:
    """Return what an error of a file system says of a store.

    Args:
        place: The store, or the file in it.
        error: What was raised.
    """
    number = getattr(error, "errno", None)
    if number in _FULL:
        return PermanentStoreError(
            f"cannot write {place}",
            found="no space left on the disk",
            fix="Free some space and run the matrix again: what is done is not done again.",
        )
    kind = PermanentStoreError if number in _PERMANENT or _is_refusal(error) else StoreError
    said = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return kind(f"cannot use {place}", found=str(said)[:300])


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, PermissionError)
