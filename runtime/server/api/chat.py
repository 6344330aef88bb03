"""``/v1/chat/completions``: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mvlm.runtime.engine import Request as EngineRequest
from mvlm.runtime.engine import TokenLogprobs
from mvlm.runtime.server.api.answering import Piece, merged, pieces, submit, token_text
from mvlm.runtime.server.api.bodies import ChatFields, read_fields, tokens_asked
from mvlm.runtime.server.api.chat_prompt import chat_prompt
from mvlm.runtime.server.api.responding import end_ids, frame, respond, usage
from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.models.served_model import ServedModel
from mvlm.runtime.server.service import Service
from mvlm.runtime.text_stream import TextStream
from mvlm.runtime.tokenizer import Tokenizer


async def chat_completions(request: Request, service: Service) -> Response:
    """Answer the next message of a conversation.

    Raises:
        ApiError: The request is wrong, or there is too much to do.
        MvlmError: The prompt cannot be answered.
    """
    fields = await read_fields(request, ChatFields, service)
    fields.check()
    if fields.top_logprobs is not None and not fields.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs", param="top_logprobs")
    served = await service.model(fields.model)
    ids, pixels = await chat_prompt(service, served, fields.messages)
    most = tokens_asked(fields.max_completion_tokens, fields.max_tokens)
    params = fields.params(most)
    count = (fields.top_logprobs or 0) if fields.logprobs else None
    asked = EngineRequest(
        ids,
        pixels,
        params,
        end_ids(fields, served),
        timeout=service.settings.answer_seconds,
        logprobs=count,
        matcher=await served.matcher(fields.constraint()),
    )
    stops = (*served.template.stop, *params.stop)
    documents = _documents(service, served, fields, asked, stops)
    return await respond(request, fields, documents, _whole)


async def _documents(
    service: Service,
    served: ServedModel,
    fields: ChatFields,
    request: EngineRequest,
    stops: tuple[str, ...],
) -> AsyncIterator[dict[str, Any]]:
    """Yield the chunks of a stream, or of a whole answer."""
    with service.room(fields.answers):
        answers = await submit(served, request, fields.answers)
        common = frame("chatcmpl", "chat.completion.chunk", served)
        try:
            for index in range(fields.answers):
                delta = {"role": "assistant", "content": ""}
                yield common | {"choices": [_choice(index, delta)]}
            sources = [
                pieces(answer, TextStream(served.tokenizer, stops), request.eos)
                for answer in answers
            ]
            async with aclosing(merged(sources)) as found:
                async for index, piece in found:
                    yield common | {"choices": [_piece_choice(served, fields, index, piece)]}
            if fields.wants_usage:
                yield common | {"choices": [], "usage": usage(answers, fields.answers)}
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
    return {
        "token": token_text(tokenizer, token),
        "logprob": logprob,
        "bytes": list(tokenizer.token_bytes(token)),
    }
