"""``/v1/completions``: https://platform.openai.com/docs/api-reference/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mvlm.runtime.engine import Request as EngineRequest
from mvlm.runtime.engine import TokenLogprobs
from mvlm.runtime.engine.asynchronous import AsyncAnswer
from mvlm.runtime.server.api.answering import Piece, merged, pieces, submit, token_text
from mvlm.runtime.server.api.bodies import CompletionFields, read_fields, tokens_asked
from mvlm.runtime.server.api.responding import end_ids, frame, respond, usage
from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.models.served_model import ServedModel
from mvlm.runtime.server.service import Service
from mvlm.runtime.text_stream import TextStream
from mvlm.runtime.tokenizer import Tokenizer

_DEFAULT_TOKENS = 16  # OpenAI's
_MOST_PROMPTS = 128


async def completions(request: Request, service: Service) -> Response:
    """Go on with texts, or with token ids.

    Raises:
        ApiError: The request is wrong, or there is too much to do.
        MvlmError: A prompt cannot be continued.
    """
    fields = await read_fields(request, CompletionFields, service)
    fields.check()
    served = await service.model(fields.model)
    prompts = _prompts(fields.prompt, served.tokenizer)
    documents = _documents(service, served, fields, prompts)
    return await respond(request, fields, documents, _whole)


def _prompts(given: str | Sequence[Any], tokenizer: Tokenizer) -> list[list[int]]:
    """Return the prompts' ids: of a text, of several, of ids, or of several lists of ids."""
    is_one = isinstance(given, str) or (len(given) > 0 and isinstance(given[0], int))
    several: Sequence[Any] = [given] if is_one else given
    if not 0 < len(several) <= _MOST_PROMPTS:
        raise ApiError(400, f"prompt: expected 1 to {_MOST_PROMPTS}", param="prompt")
    return [
        tokenizer.encode(each, bos=True) if isinstance(each, str) else list(each)
        for each in several
    ]


@dataclass
class _Continuation:
    """An answer that goes on from a prompt.

    Attributes:
        served: The model.
        fields: The request.
        ids: The prompt.
        answer: The answer.
        first: The first of the answers to this prompt, which notes the prompt's probabilities.
        stream: Turns tokens into text.
        offset: Characters that were told so far.
        is_begun: Whether the prompt was told, if it is to be.
    """

    served: ServedModel
    fields: CompletionFields
    ids: Sequence[int]
    answer: AsyncAnswer
    first: AsyncAnswer
    stream: TextStream
    offset: int = 0
    is_begun: bool = False

    def choice(self, index: int, piece: Piece) -> dict[str, Any]:
        """Return what a piece adds, as OpenAI's API writes it."""
        text, logprobs = piece.text, list[TokenLogprobs | None](piece.logprobs)
        if self.fields.echo and not self.is_begun:
            text = self.served.tokenizer.decode(self.ids) + text
            logprobs = [*self.first.prompt_logprobs, *logprobs]
        choice = {
            "index": index,
            "text": text,
            "logprobs": self._told(logprobs),
            "finish_reason": piece.finish_reason,
        }
        self.is_begun = True
        return choice

    def _told(self, found: Sequence[TokenLogprobs | None]) -> dict[str, Any] | None:
        if self.fields.logprobs is None:
            return None
        # The prompt's first token has no probability, and comes with the prompt.
        prompt = self.ids[: len(found)] if self.fields.echo and not self.is_begun else ()
        told = [each.token if each else token for token, each in zip_longest(prompt, found)]
        tokens = list(map(self._text, told))
        offsets = list(accumulate(map(len, tokens), initial=self.offset))
        self.offset = offsets.pop()
        return {
            "tokens": tokens,
            "token_logprobs": [None if each is None else each.logprob for each in found],
            "top_logprobs": [self._top(each) for each in found] if self.fields.logprobs else None,
            "text_offset": offsets,
        }

    def _top(self, found: TokenLogprobs | None) -> dict[str, float] | None:
        if found is None:
            return None
        # Of tokens of the same text, such as bytes, the likeliest one counts.
        return {self._text(token): logprob for token, logprob in reversed(found.top)}

    def _text(self, token: int) -> str:
        return token_text(self.served.tokenizer, token)


async def _documents(
    service: Service,
    served: ServedModel,
    fields: CompletionFields,
    prompts: Sequence[list[int]],
) -> AsyncIterator[dict[str, Any]]:
    """Yield the chunks of a stream, or of a whole answer."""
    eos, common = end_ids(fields, served), frame("cmpl", "text_completion", served)
    begun: list[_Continuation] = []
    with service.room(fields.answers * len(prompts)):
        try:
            for ids in prompts:
                begun += await _begin(service, served, fields, ids, eos)
            sources = [pieces(each.answer, each.stream, eos) for each in begun]
            async with aclosing(merged(sources)) as found:
                async for index, piece in found:
                    yield common | {"choices": [begun[index].choice(index, piece)]}
            if fields.wants_usage:
                groups = [each.answer for each in begun]
                yield common | {"choices": [], "usage": usage(groups, fields.answers)}
        finally:
            for each in begun:
                each.answer.cancel()


async def _begin(
    service: Service,
    served: ServedModel,
    fields: CompletionFields,
    ids: list[int],
    eos: frozenset[int],
) -> list[_Continuation]:
    """Submit a prompt."""
    params = fields.params(tokens_asked(fields.max_tokens, default=_DEFAULT_TOKENS))
    request = EngineRequest(
        ids,
        (),
        params,
        eos,
        timeout=service.settings.answer_seconds,
        logprobs=fields.logprobs,
        prompt_logprobs=fields.logprobs if fields.echo else None,
        matcher=await served.matcher(fields.constraint(), after_text=True),
    )
    answers = await submit(served, request, fields.answers)
    return [
        _Continuation(
            served,
            fields,
            ids,
            answer,
            answers[0],
            TextStream(served.tokenizer, params.stop, verbatim=True),
        )
        for answer in answers
    ]


async def _whole(chunks: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    """Join the chunks of a stream to one document."""
    choices: dict[int, dict[str, Any]] = {}
    document: dict[str, Any] = {}
    async for chunk in chunks:
        document |= chunk
        for part in chunk["choices"]:
            choice = choices.setdefault(part["index"], part)
            if choice is part:
                continue
            choice["text"] += part["text"]
            choice["finish_reason"] = part["finish_reason"]
            for key, values in (part["logprobs"] or {}).items():
                if values is not None:
                    choice["logprobs"][key] += values
    return document | {"choices": [choice for _, choice in sorted(choices.items())]}
