"""What both kinds of completions share: their frame, usage, and how they are sent."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mvlm.runtime.engine.asynchronous import AsyncAnswer
from mvlm.runtime.server.api.answering import while_connected
from mvlm.runtime.server.api.bodies import SamplingFields
from mvlm.runtime.server.api.response_fields import ResponseFields
from mvlm.runtime.server.http.sse import event_stream
from mvlm.runtime.server.models.served_model import ServedModel

Documents = AsyncIterator[dict[str, Any]]


async def respond(
    request: Request,
    fields: SamplingFields | ResponseFields,
    documents: Documents,
    whole: Callable[[Documents], Awaitable[dict[str, Any]]],
    stream: Callable[[Documents], Response] = event_stream,
) -> Response:
    """Send documents by `stream` if one is asked for, or else joined to one by `whole`.

    Raises:
        ApiError: The client has gone.
        MvlmError: What went wrong before a stream began, or within a whole answer.
    """
    if fields.stream:
        return stream(await _begun(request, documents))
    return JSONResponse(await while_connected(request, whole(documents)))


async def _begun(request: Request, documents: Documents) -> Documents:
    """Wait for a stream's first document: what is wrong shows before there is a status."""
    first = await while_connected(request, documents.__anext__())

    async def all_of_them() -> Documents:
        yield first
        async for document in documents:
            yield document

    return all_of_them()


def frame(prefix: str, kind: str, served: ServedModel) -> dict[str, Any]:
    """Return what all documents of an answer have in common."""
    return {
        "id": f"{prefix}-{uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": served.name,
    }


def end_ids(fields: SamplingFields, served: ServedModel) -> frozenset[int]:
    """Return the ids that end an answer."""
    return frozenset() if fields.ignore_eos else frozenset(served.model.settings.eos)


def usage(answers: Sequence[AsyncAnswer], shared_by: int) -> dict[str, Any]:
    """Return the tokens of a request.

    Args:
        answers: In order of their prompts.
        shared_by: So many neighbouring ones share a prompt.
    """
    first = [answer.stats for answer in answers[::shared_by]]
    prompt = sum(stats.prompt for stats in first)
    completion = sum(answer.count for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(stats.cached for stats in first)},
    }
