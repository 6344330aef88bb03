"""A question with its images and its answer, as the chat remembers and exports it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mvlm.runtime.errors import ImageError, PromptError

if TYPE_CHECKING:
    from mvlm.runtime.model import FloatArray


@dataclass(frozen=True)
class AttachedImage:
    """An image that is shown with a question.

    Attributes:
        name: Its file's name, or what else a person may call it.
        data: The file's bytes; None where they are not known, as in a loaded conversation.
        pixels: As the local model sees it, ``(1, 3, S, S)`` float32; None for a server.
    """

    name: str
    data: bytes | None = field(default=None, repr=False)
    pixels: FloatArray | None = field(default=None, repr=False, compare=False)

    @property
    def url(self) -> str:
        """The file as a data URL (RFC 2397).

        Raises:
            ImageError: The file's bytes are not known.
        """
        if self.data is None:
            raise ImageError(f"the file of {self.name} is not known any more")
        kind = _media_type(self.data)
        return f"data:{kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Exchange:
    """A question, the images shown with it, and its answer."""

    question: str
    images: tuple[AttachedImage, ...] = ()
    answer: str = ""

    def messages(self) -> list[dict[str, Any]]:
        """Return both as messages of OpenAI's API; the answer only if there is one."""
        content: Any = self.question
        if self.images:
            parts = [_image_part(image) for image in self.images]
            content = [*parts, {"type": "text", "text": self.question}]
        asked = {"role": "user", "content": content}
        return [asked, {"role": "assistant", "content": self.answer}] if self.answer else [asked]


def last_of(exchanges: list[Exchange]) -> Exchange:
    """Return the last exchange.

    Raises:
        PromptError: There is none.
    """
    if not exchanges:
        raise PromptError("there is no turn yet", expected="a question that was answered")
    return exchanges[-1]


def _image_part(image: AttachedImage) -> dict[str, Any]:
    if image.data is None:
        return {"type": "text", "text": f"[{image.name}]"}
    return {"type": "image_url", "image_url": {"url": image.url}}


def _media_type(data: bytes) -> str:
    from mvlm.runtime.image.formats import HEAD_BYTES, identify

    return f"image/{(identify(data[:HEAD_BYTES]) or 'png').lower()}"
