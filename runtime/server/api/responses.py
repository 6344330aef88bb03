"""``/v1/responses``: https://platform.openai.com/docs/api-reference/responses.

An answer is a sequence of events; without a stream, the last one's response is sent. Nothing is
kept of it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from mvlm.runtime.engine import Request as EngineRequest
from mvlm.runtime.engine.asynchronous import AsyncAnswer
from mvlm.runtime.server.api.answering import pieces, submit
from mvlm.runtime.server.api.bodies import read_fields
from mvlm.runtime.server.api.chat_prompt import chat_prompt
from mvlm.runtime.server.api.responding import Documents, respond, usage
from mvlm.runtime.server.api.response_fields import ResponseFields
from mvlm.runtime.server.errors import api_error
from mvlm.runtime.server.http.sse import typed_event_stream
from mvlm.runtime.server.models.served_model import ServedModel
from mvlm.runtime.server.service import Service
from mvlm.runtime.text_stream import TextStream


async def responses(request: Request, service: Service) -> Response:
    """Answer the last message of an input.

    Raises:
        ApiError: The request is wrong, or there is too much to do.
        MvlmError: The prompt cannot be answered.
    """
    fields = await read_fields(request, ResponseFields, service)
    fields.check()
    served = await service.model(fields.model)
    ids, pixels = await chat_prompt(service, served, fields.messages(), "input")
    asked = EngineRequest(
        ids,
        pixels,
        fields.params(),
        frozenset(served.model.settings.eos),
        timeout=service.settings.answer_seconds,
        matcher=await served.matcher(fields.constraint()),
    )
    events = _numbered(_events(service, served, fields, asked))
    return await respond(request, fields, events, _last_response, typed_event_stream)


async def _numbered(events: Documents) -> Documents:
    number = 0
    async for event in events:
        yield event | {"sequence_number": number}
        number += 1


async def _last_response(events: Documents) -> dict[str, Any]:
    response: dict[str, Any] = {}
    async for event in events:
        response = event.get("response", response)
    return response


async def _events(
    service: Service, served: ServedModel, fields: ResponseFields, asked: EngineRequest
) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of an answer, but for their numbers."""
    with service.room(1):
        answers = await submit(served, asked, 1)
        response = _begun(served, fields)
        try:
            yield {"type": "response.created", "response": response}
            yield {"type": "response.in_progress", "response": response}
            try:
                text = TextStream(served.tokenizer, served.template.stop)
                async for event in _message_events(answers[0], text, asked.eos):
                    yield event
                    if event["type"] == "response.output_item.done":
                        response = _ended(response, event["item"], answers)
            except Exception as error:
                if not fields.stream:
                    raise
                told = {"code": "server_error", "message": api_error(error).message}
                response = response | {"status": "failed", "error": told}
            yield {"type": f"response.{response['status']}", "response": response}
        finally:
            answers[0].cancel()


async def _message_events(
    answer: AsyncAnswer, stream: TextStream, eos: frozenset[int]
) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of the one message that an answer has."""
    identifier, text, reason = f"msg_{uuid4().hex}", "", None
    of_item: dict[str, Any] = {"output_index": 0}
    of_part = of_item | {"item_id": identifier, "content_index": 0}
    yield {
        "type": "response.output_item.added",
        "item": _message(identifier, "in_progress"),
        **of_item,
    }
    yield {"type": "response.content_part.added", "part": _part(""), **of_part}
    async with aclosing(pieces(answer, stream, eos)) as found:
        async for piece in found:
            reason = piece.finish_reason
            if piece.text:
                text += piece.text
                yield {
                    "type": "response.output_text.delta",
                    "delta": piece.text,
                    "logprobs": [],
                    **of_part,
                }
    yield {"type": "response.output_text.done", "text": text, "logprobs": [], **of_part}
    yield {"type": "response.content_part.done", "part": _part(text), **of_part}
    status = "incomplete" if reason == "length" else "completed"
    item = _message(identifier, status, _part(text))
    yield {"type": "response.output_item.done", "item": item, **of_item}


def _message(identifier: str, status: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": identifier,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": list(parts),
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _begun(served: ServedModel, fields: ResponseFields) -> dict[str, Any]:
    """Return a response without output."""
    return {
        "id": f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "model": served.name,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "usage": None,
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "temperature": 1.0 if fields.temperature is None else fields.temperature,
        "top_p": 1.0 if fields.top_p is None else fields.top_p,
        "text": {"format": _told_format(fields)},
        "metadata": fields.metadata or {},
        "user": fields.user,
        "store": False,
        "background": False,
        "previous_response_id": None,
        "parallel_tool_calls": True,
        "tool_choice": fields.tool_choice or "auto",
        "tools": [],
        "truncation": "disabled",
        "reasoning": {"effort": None, "summary": None},
    }


def _ended(
    response: dict[str, Any], item: dict[str, Any], answers: Sequence[AsyncAnswer]
) -> dict[str, Any]:
    """Return a response with its output and usage."""
    used = usage(answers, 1)
    is_cut = item["status"] == "incomplete"
    return response | {
        "status": item["status"],
        "output": [item],
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "usage": {
            "input_tokens": used["prompt_tokens"],
            "input_tokens_details": used["prompt_tokens_details"],
            "output_tokens": used["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used["total_tokens"],
        },
    }


def _told_format(fields: ResponseFields) -> dict[str, Any]:
    form = None if fields.text is None else fields.text.format
    return {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_unset=True)
