"""Conversations as other programs read them: Markdown, and JSON with OpenAI's messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mvlm.cli.conversation.conversation import Conversation
from mvlm.runtime.atomic_write import atomic_write
from mvlm.runtime.errors import UsageError


def export(conversation: Conversation, path: Path) -> None:
    """Write a conversation in the format that the file's name says.

    Raises:
        UsageError: It is another one, or the file cannot be written.
    """
    if (write := _FORMATS.get(path.suffix.lower())) is None:
        raise UsageError(
            "/export", expected=f"a file name with {' or '.join(_FORMATS)}", found=path.name
        )
    try:
        with atomic_write(path) as file:
            file.write(write(conversation).encode("utf-8", "replace"))
    except OSError as error:
        raise UsageError(f"cannot write {path}", found=error.strerror) from None


def _markdown(conversation: Conversation) -> str:
    parts = [f"# {conversation.title}"]
    if conversation.system is not None:
        parts.append(f"## System\n\n{conversation.system}")
    for exchange in conversation.exchanges:
        shown = "".join(f"[{image.name}]\n\n" for image in exchange.images)
        parts.append(f"## Question\n\n{shown}{exchange.question}")
        parts.append(f"## Answer\n\n{exchange.answer}")
    return "\n\n".join(parts) + "\n"


def _json(conversation: Conversation) -> str:
    system = conversation.system
    messages = [] if system is None else [{"role": "system", "content": system}]
    for exchange in conversation.exchanges:
        messages += exchange.messages()
    return json.dumps({"messages": messages}, indent=1, ensure_ascii=False) + "\n"


_FORMATS: dict[str, Callable[[Conversation], str]] = {".md": _markdown, ".json": _json}
