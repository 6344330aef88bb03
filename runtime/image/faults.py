"""Why a file is no image that can be read, before the file's name is known.

The modules of formats raise these; :mod:`~mvlm.runtime.image.load` makes an ``ImageError`` of each.
"""


class UnreadableError(Exception):
    """A file that is not read; the text says what was found in it."""


class DamagedError(UnreadableError):
    """A part of the file contradicts its format."""


class CutShortError(UnreadableError):
    """The file ends before the last pixel."""


class UnsupportedError(UnreadableError):
    """The file may be intact, and holds what is not read here."""
