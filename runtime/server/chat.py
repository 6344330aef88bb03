"""``/v1/chat/completions``: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mvlm.runtime.engine import Request as EngineRequest
from mvlm.runtime.engine import TokenLogprobs
from mvlm.runtime.engine.asynchronous import AsyncAnswer
from mvlm.runtime.generation import TextStream
from mvlm.runtime.server.answering import Piece, merged, pieces, while_connected
from mvlm.runtime.server.bodies import ChatFields, read_fields, tokens_asked
from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.prompts import read_conversation
from mvlm.runtime.server.served_model import ServedModel
from mvlm.runtime.server.service import Service
from mvlm.runtime.server.sse import event_stream
from mvlm.runtime.tokenizer import Tokenizer


async def chat_completions(request: Request, service: Service) -> Response:
    """Answer the next message of a conversation.

    Raises:
        ApiError: The request is wrong, or there is too much to do.
        MvlmError: The prompt cannot be answered.
    """
    fields = await read_fields(request, ChatFields, service.settings)
    fields.check()
    if fields.top_logprobs is not None and not fields.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs", param="top_logprobs")
    served = service.model(fields.model)
    conversation = read_conversation(fields.messages, service.settings.max_images)
    ids = served.tokenizer.encode_prompt(conversation.render(served.template))
    most = tokens_asked(fields.max_completion_tokens, fields.max_tokens)
    params = fields.params(most)
    eos = frozenset[int]() if fields.ignore_eos else frozenset(served.model.settings.eos)
    count = (fields.top_logprobs or 0) if fields.logprobs else None
    asked = EngineRequest(
        ids,
        await served.pixels(conversation.images),
        params,
        eos,
        timeout=service.settings.answer_seconds,
        logprobs=count,
    )
    stops = (*served.template.stop, *params.stop)
    documents = _documents(service, served, fields, asked, stops)
    if fields.stream:
        return event_stream(await begun(documents))
    return JSONResponse(await while_connected(request, _whole(documents)))


async def _documents(
    service: Service,
    served: ServedModel,
    fields: ChatFields,
    request: EngineRequest,
    stops: tuple[str, ...],
) -> AsyncIterator[dict[str, Any]]:
    """Yield the chunks of a stream, or of a whole answer."""
    with service.room(fields.answers):
        answers = await served.engine.submit(request, fields.answers)
        frame = {
            "id": f"chatcmpl-{uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": served.name,
        }
        try:
            for index in range(fields.answers):
                delta = {"role": "assistant", "content": ""}
                yield frame | {"choices": [_choice(index, delta)]}
            sources = [
                pieces(answer, TextStream(served.tokenizer, stops), request.eos)
                for answer in answers
            ]
            async with aclosing(merged(sources)) as found:
                async for index, piece in found:
                    yield frame | {"choices": [_piece_choice(served, fields, index, piece)]}
            if fields.wants_usage:
                yield frame | {"choices": [], "usage": usage(answers, fields.answers)}
        finally:
            for answer in answers:
                answer.cancel()


def _piece_choice(
    served: ServedModel, fields: ChatFields, index: int, piece: Piece
) -> dict[str, Any]:
    delta = {"content": piece.text} if piece.text else {}
    logprobs = None
    if fields.logprobs and piece.logprobs:
        content = [_logprob(served.tokenizer, each) for each in piece.logprobs]
        logprobs = {"content": content, "refusal": None}
    return _choice(index, delta, logprobs, piece.finish_reason)


def _choice(
    index: int,
    delta: Mapping[str, str],
    logprobs: Mapping[str, Any] | None = None,
    finish_reason: str | None = None,
) -> dict[str, Any]:
    return {
        "index": index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }


async def _whole(chunks: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    """Join the chunks of a stream to one document."""
    choices: dict[int, dict[str, Any]] = {}
    document: dict[str, Any] = {}
    async for chunk in chunks:
        document |= chunk
        for part in chunk["choices"]:
            choice = choices.setdefault(
                part["index"],
                {
                    "index": part["index"],
                    "message": {"role": "assistant", "content": "", "refusal": None},
                    "logprobs": None,
                    "finish_reason": None,
                },
            )
            choice["message"]["content"] += part["delta"].get("content", "")
            choice["finish_reason"] = part["finish_reason"]
            if part["logprobs"] is not None:
                held = choice["logprobs"] or {"content": [], "refusal": None}
                held["content"] += part["logprobs"]["content"]
                choice["logprobs"] = held
    ordered = [choice for _, choice in sorted(choices.items())]
    return document | {"object": "chat.completion", "choices": ordered}


def _logprob(tokenizer: Tokenizer, found: TokenLogprobs) -> dict[str, Any]:
    top = [_likely(tokenizer, *each) for each in found.top]
    return _likely(tokenizer, found.token, found.logprob) | {"top_logprobs": top}


def _likely(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    data = tokenizer.token_bytes(token)
    return {
        "token": data.decode("utf-8", "replace"),
        "logprob": logprob,
        "bytes": list(data),
    }


async def begun(documents: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """Wait for a stream's first document: what is wrong shows before there is a status."""
    first = await documents.__anext__()

    async def all_of_them() -> AsyncIterator[dict[str, Any]]:
        yield first
        async for document in documents:
            yield document

    return all_of_them()


def usage(answers: Sequence[AsyncAnswer], shared_by: int) -> dict[str, Any]:
    """Return the tokens of a request.

    Args:
        answers: In order of their prompts.
        shared_by: So many neighbouring ones share a prompt.
    """
    first = [answer.stats for answer in answers[::shared_by]]
    prompt, completion = (
        sum(stats.prompt for stats in first),
        sum(answer.count for answer in answers),
    )
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": prompt - sum(stats.computed for stats in first)},
    }
