"""What is known of one call of the command line before its verb runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Invocation:
    """How the caller wants results and errors.

    Attributes:
        json: Standard output shall hold exactly one JSON document, an error's included.
        debug: Errors shall come with their traceback.
    """

    json: bool = False
    debug: bool = False
