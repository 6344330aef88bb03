"""An answer while it is generated, for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from mvlm.runtime.completion import Clock, Completion, Usage
from mvlm.runtime.engine import FinishReason, Request
from mvlm.runtime.engine.asynchronous import AsyncAnswer, AsyncEngine
from mvlm.runtime.errors import PromptError
from mvlm.runtime.text_stream import TextStream


class AsyncGeneration:
    """An answer in progress: iterate over its text, once, or wait for :meth:`completion`.

    Leaving the iteration early, by an exception or a cancelled task, cancels the answer.

    Args:
        engine: Computes the answer; it has to be entered.
        prepare: Returns what to ask it for.
        stream: Turns the tokens into text.
    """

    def __init__(
        self, engine: AsyncEngine, prepare: Callable[[], Awaitable[Request]], stream: TextStream
    ) -> None:
        self._engine, self._prepare, self._stream = engine, prepare, stream
        self._answer: AsyncAnswer | None = None
        self._cancelled = False
        self._completion: Completion | None = None
        self._parts = self._generate()

    def __aiter__(self) -> AsyncGenerator[str, None]:
        """Yield the text as it becomes final.

        Raises:
            MvlmError: The answer failed.
        """
        return self._parts

    def cancel(self) -> None:
        """Stop before the engine's next step."""
        self._cancelled = True
        if self._answer is not None:
            self._answer.cancel()

    async def completion(self) -> Completion:
        """Return the finished answer; waits for what has not been iterated yet.

        Raises:
            MvlmError: The answer failed, or its iteration was left early.
        """
        async for _ in self._parts:
            pass
        if self._completion is None:
            raise PromptError("the answer was interrupted", fix="Ask again.")
        return self._completion

    async def _generate(self) -> AsyncGenerator[str, None]:
        clock, stream, tokens = Clock(), self._stream, list[int]()
        request = await self._prepare()
        (answer,) = await self._engine.submit(request)
        self._answer = answer
        if self._cancelled:
            answer.cancel()
        is_ended = False
        async with aclosing(aiter(answer)) as coming:
            async for token in coming:
                clock.token()
                tokens.append(token)
                is_ended = token in request.eos
                if not is_ended and (text := stream.push(token)):
                    yield text
                if is_ended or stream.stopped_by is not None:
                    is_ended = True
                    break
        if text := stream.finish():
            yield text
        reason: FinishReason = "stop" if is_ended else answer.finish_reason or "cancelled"
        settings = self._engine.model.settings
        usage = Usage(answer.stats.prompt, len(request.images) * settings.image_tokens, len(tokens))
        stats = clock.stats(answer.stats)
        self._completion = Completion(stream.text, tuple(tokens), reason, usage, stats)


async def in_thread(function: Callable[[], Request]) -> Request:
    """Prepare a request in a thread: images are decoded and forms compiled."""
    return await asyncio.to_thread(function)
