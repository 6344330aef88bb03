"""Tokens of an answer to pieces of text, with probabilities, until a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from mvlm.runtime.engine import Request as EngineRequest
from mvlm.runtime.engine import TokenLogprobs
from mvlm.runtime.engine.asynchronous import AsyncAnswer
from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.models.served_model import ServedModel
from mvlm.runtime.server.observability.request_context import REQUEST, TokenClock
from mvlm.runtime.text_stream import TextStream
from mvlm.runtime.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """What comes next of an answer.

    Attributes:
        text: Final text; may be empty.
        logprobs: Of the tokens that came, if they were asked for.
        finish_reason: ``stop`` or ``length`` with the last piece; None before.
    """

    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: str | None = None


async def submit(served: ServedModel, request: EngineRequest, answers: int) -> list[AsyncAnswer]:
    """Ask a model for answers to a prompt, which the request's context counts.

    Raises:
        PromptError: The prompt is empty, or its images do not match their places.
        ContextError: It does not fit.
        EngineStoppedError: The engine was closed, or has failed.
    """
    begun = await served.engine.submit(request, answers)
    REQUEST.get().groups.append(begun)
    return begun


async def pieces(
    answer: AsyncAnswer, stream: TextStream, eos: frozenset[int]
) -> AsyncGenerator[Piece, None]:
    """Yield an answer as it comes; leaving early cancels it.

    Raises:
        ApiError: It took too long.
        MvlmError: It failed.
    """
    reason, given, clock = None, 0, TokenClock(answer)
    try:
        async with aclosing(answer.__aiter__()) as tokens:
            async for token in tokens:
                clock.token()
                if token in eos:
                    reason = "stop"
                    break
                text = stream.push(token)
                known = tuple(answer.logprobs[given : given + 1])
                given += 1
                if text or known:
                    yield Piece(text, known)
                if stream.stopped_by is not None:
                    reason = "stop"
                    break
        if reason is None and answer.finish_reason == "stop":  # its form is complete
            reason = "stop"
    finally:
        clock.end(reason or answer.finish_reason or "cancelled")
    if reason is None and answer.finish_reason == "timeout":
        raise ApiError(504, "the answer took too long", kind="server_error", code="timeout")
    yield Piece(stream.finish(), (), reason or "length")


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """Return how a token is told with its probability; half a character is U+FFFD."""
    return tokenizer.token_bytes(token).decode("utf-8", "replace")


async def merged(
    sources: Sequence[AsyncGenerator[Piece, None]],
) -> AsyncGenerator[tuple[int, Piece], None]:
    """Yield the pieces of several answers as they come, with the answer's number."""
    queue: asyncio.Queue[tuple[int, Piece] | Exception | None] = asyncio.Queue()

    async def pump(number: int, source: AsyncGenerator[Piece, None]) -> None:
        try:
            async with aclosing(source):
                async for piece in source:
                    queue.put_nowait((number, piece))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    pumps = [asyncio.create_task(pump(*each)) for each in enumerate(sources)]
    try:
        left = len(pumps)
        while left:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in pumps:
            task.cancel()
        for task in pumps:
            with suppress(asyncio.CancelledError):
                await task


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Wait for what is computed for a client, but cancel it once the client has gone.

    Raises:
        ApiError: The client has gone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client has gone", kind="server_error")
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
            with suppress(BaseException):
                await each


async def _disconnected(request: Request) -> None:
    while True:
        message: dict[str, Any] = dict(await request.receive())
        if message["type"] == "http.disconnect":
            return
