"""Errors of stores and of steps, and whether trying again can help."""

from __future__ import annotations

import errno

from mvlm.runtime.errors import MvlmError

# What does not mend itself in the seconds between two tries.
_LASTING = {
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
        may_pass: Whether trying again can help.
    """

    may_pass = True


class LastingStoreError(StoreError):
    """The same, where trying again cannot help: a full disk, a right that is missing."""

    may_pass = False


class DamagedError(StoreError):
    """A file of the store is not what its name says. Its damaged copy has been taken away."""


class UnfinishedStepError(MvlmError):
    """A worker ended before it had done its step: killed, out of memory, its machine gone."""


def store_error(place: str, error: Exception) -> StoreError:
    """Return what an error of a file system says of a store.

    Args:
        place: The store, or the file in it.
        error: What was raised.
    """
    number = getattr(error, "errno", None)
    if number in _FULL:
        return LastingStoreError(
            f"cannot write {place}",
            found="no space left on the disk",
            fix="Free some space and run the matrix again: what is done is not done again.",
        )
    kind = LastingStoreError if number in _LASTING or _is_refusal(error) else StoreError
    said = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return kind(f"cannot use {place}", found=str(said)[:300])


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, PermissionError)
