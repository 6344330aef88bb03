"""Messages of OpenAI's chat API to a prompt: turns of the chat template, and images.

An image that comes before a message's text, or after it, is shown in front of the text, as the
model was trained; one between two texts stays there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.remote_images import ImageUrl
from mvlm.runtime.template import IMAGE_PLACEHOLDER, ChatTemplate, Segment, Turn

_SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True)
class Conversation:
    """What a request's messages say.

    Attributes:
        system: The text that opens the conversation; the template's own if None.
        turns: Questions and answers; the last one has no answer.
        images: The images' files or URLs, in the order in which the turns show them.
    """

    system: str | None
    turns: tuple[Turn, ...]
    images: tuple[bytes | ImageUrl, ...]

    def render(self, template: ChatTemplate) -> tuple[Segment, ...]:
        """Write the conversation as a prompt."""
        opened = template if self.system is None else replace(template, system=self.system)
        return opened.render(self.turns)


@dataclass(frozen=True)
class _Message:
    """A message's role, its text with placeholders, and its images."""

    role: str
    text: str
    images: tuple[bytes | ImageUrl, ...] = ()


def read_conversation(
    messages: Sequence[Any], most_images: int, where: str = "messages"
) -> Conversation:
    """Read the messages of a request.

    Args:
        messages: As the chat API has them.
        most_images: How many images they may have.
        where: The field that holds them, for errors.

    Raises:
        ApiError: A message is not understood, there are too many images, or the last message is
            not the user's.
        PromptError: A question is empty.
    """
    read = [_message(f"{where}.{number}", each) for number, each in enumerate(messages)]
    images = tuple(image for message in read for image in message.images)
    if len(images) > most_images:
        raise _wrong(f"expected at most {most_images} images, found {len(images)}", where)
    systems = [message.text for message in read if message.role in _SYSTEM_ROLES]
    talk = _joined([message for message in read if message.role not in _SYSTEM_ROLES])
    if not talk or talk[0].role != "user" or talk[-1].role != "user":
        raise _wrong("expected the user's message at the beginning and at the end", where)
    turns = []
    for question, answer in zip(talk[::2], [*talk[1::2], None], strict=True):
        text = None if answer is None else answer.text
        turns.append(Turn(question.text, len(question.images), text))
    return Conversation("\n".join(systems) if systems else None, tuple(turns), images)


def _joined(messages: Sequence[_Message]) -> list[_Message]:
    """Join messages of one role that follow one another."""
    joined: list[_Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            last = joined.pop()
            text = "\n".join(filter(None, (last.text, message.text)))
            message = _Message(message.role, text, last.images + message.images)
        joined.append(message)
    return joined


def _message(where: str, given: Any) -> _Message:
    if not isinstance(given, dict):
        raise _wrong("expected an object", where)
    role, content = given.get("role"), given.get("content")
    if role not in (*_SYSTEM_ROLES, "user", "assistant"):
        raise _wrong(f"role {role!r:.40}: expected system, user or assistant", where)
    if given.get("tool_calls") or given.get("function_call"):
        raise _wrong("tools are not supported here", where)
    if isinstance(content, str):
        return _Message(role, content)
    if not isinstance(content, list):
        raise _wrong("content: expected a text or a list of parts", where)
    parts = [_part(f"{where}.content.{at}", part) for at, part in enumerate(content)]
    images = tuple(part for part in parts if not isinstance(part, str))
    if images and role != "user":
        raise _wrong("images are shown by the user", where)
    return _Message(role, _with_places(parts), images)


def _with_places(parts: Sequence[str | bytes | ImageUrl]) -> str:
    """Join a message's texts, with placeholders if an image is between two of them."""
    kinds = "".join("t" if isinstance(part, str) else "i" for part in parts)
    if "ti" in kinds and "it" in kinds:
        return "".join(part if isinstance(part, str) else IMAGE_PLACEHOLDER for part in parts)
    return "\n".join(part for part in parts if isinstance(part, str))


def _part(where: str, part: Any) -> str | bytes | ImageUrl:
    """Return a part's text, or its image's file or URL."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    if kind == "image_url":
        given = part.get("image_url")
        url = given.get("url") if isinstance(given, dict) else given
        if isinstance(url, str):
            return _image(where, url)
    raise _wrong(f"type {kind!r:.40}: expected text or image_url", where)


def _image(where: str, url: str) -> bytes | ImageUrl:
    """Return the file that a data URL (RFC 2397) holds, or another URL as it is."""
    scheme, _, rest = url.partition(":")
    if scheme.lower() != "data":
        return ImageUrl(url, where)
    head, comma, data = rest.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise _wrong("expected a data URL in base64", where)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise _wrong("the data URL's base64 is damaged", where) from None


def _wrong(message: str, where: str) -> ApiError:
    return ApiError(400, f"{where}: {message}", param=where)
