"""The server's limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSettings:
    """What a server takes from its clients.

    Attributes:
        api_keys: One of these is needed; none if there are none.
        hosts: What a request's ``Host`` may be, without the port; ``*`` takes all. It keeps a page
            of another origin, whose name was pointed here, from using a server of this machine.
        image_hosts: From which images are fetched, each ``NAME`` or ``NAME:PORT``.
        max_body_bytes: Of a request; of the images that it has fetched, together, as well.
        body_room: Bytes of bodies that are read at once, of all requests together; one more is told
            to come again.
        max_images: Of a request.
        max_answers: Answers that are begun and not finished; a request beyond them gets 429.
        body_seconds: How long a request's body may take to come.
        image_seconds: How long a request's images may take to be fetched.
        answer_seconds: After which an answer ends.
    """

    api_keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ("*",)
    image_hosts: tuple[str, ...] = ()
    max_body_bytes: int = 64 << 20
    body_room: int = 512 << 20
    max_images: int = 16
    max_answers: int = 64
    body_seconds: float = 30.0
    image_seconds: float = 20.0
    answer_seconds: float = 600.0
