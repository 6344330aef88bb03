"""Settings of libtiff, which Pillow carries. They belong to the whole process."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from PIL import TiffImagePlugin


@contextmanager
def by_libtiff() -> Iterator[None]:
    """Let libtiff decode all files, without a word on standard error.

    Pillow itself reads 16-bit planes and uncompressed YCbCr wrongly. To be entered by one thread at
    a time.
    """
    setting, set_handler = TiffImagePlugin.READ_LIBTIFF, _error_handler_setter()
    TiffImagePlugin.READ_LIBTIFF = True
    handler = set_handler(None) if set_handler else None
    try:
        yield
    finally:
        TiffImagePlugin.READ_LIBTIFF = setting
        if set_handler:
            set_handler(handler)


def _error_handler_setter() -> Callable[[Any], Any] | None:
    """Return libtiff's function that takes a new handler and returns the old one."""
    try:
        # Symbols are looked for in the libraries that Pillow's own one is linked with, too.
        setter = ctypes.CDLL(import_module("PIL._imaging").__file__).TIFFSetErrorHandler
    except (AttributeError, OSError, TypeError):
        return None  # A Pillow without libtiff, or with one whose symbols are hidden.
    setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return setter
