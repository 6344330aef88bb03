"""Server-sent events, as OpenAI's API streams its answers.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from mvlm.runtime.server.errors import api_error

_DONE = b"data: [DONE]\n\n"
# Proxies would keep the events until there are many.
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event_stream(documents: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """Stream documents as they come; an error ends the stream as an event of its own."""

    async def events() -> AsyncIterator[bytes]:
        try:
            async for document in documents:
                yield _event(document)
        except Exception as error:  # the status is sent: nothing else can be told
            yield _event(api_error(error).to_json())
        yield _DONE

    return _stream(events())


def typed_event_stream(documents: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """Stream documents as they come, each as an event of its ``type``."""

    async def events() -> AsyncIterator[bytes]:
        async for document in documents:
            yield b"event: " + document["type"].encode() + b"\n" + _event(document)

    return _stream(events())


def _stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(events, media_type="text/event-stream", headers=_HEADERS)


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"
