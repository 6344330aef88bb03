"""The engine for programs with an event loop, such as a server: it runs in a thread of its own.

The thread alone touches the engine. Others hand it functions to call between two steps; it hands
them tokens, through their event loop. Nothing is locked, and nobody waits for anything but answers.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

from mvlm.runtime.engine.engine import Engine
from mvlm.runtime.engine.load import EngineLoad
from mvlm.runtime.engine.request import Answer, AnswerStats, FinishReason, Request, TokenLogprobs
from mvlm.runtime.engine.settings import EngineSettings
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.model import Model

_T = TypeVar("_T")
_Call = Callable[[], None]
# Tokens that came in a step, and whether the answer has ended.
_News = tuple[list[int], bool]


class EngineStoppedError(MvlmError):
    """The engine was closed, or has failed."""


class AsyncAnswer:
    """An answer in progress: iterate over its tokens, once.

    Leaving the iteration early, by an exception or a cancelled task, cancels the answer.
    """

    def __init__(self, answer: Answer, loop: asyncio.AbstractEventLoop) -> None:
        self._answer = answer
        self._loop = loop
        self._news: asyncio.Queue[_News] = asyncio.Queue()
        self._given = 0

    @property
    def finish_reason(self) -> FinishReason | None:
        """As :attr:`Answer.finish_reason`."""
        return self._answer.finish_reason

    @property
    def stats(self) -> AnswerStats:
        """What it took, so far."""
        return self._answer.stats

    @property
    def count(self) -> int:
        """Tokens that were chosen so far, an end of sequence included."""
        return len(self._answer.tokens)

    @property
    def logprobs(self) -> Sequence[TokenLogprobs]:
        """As :attr:`Answer.logprobs`."""
        return self._answer.logprobs

    @property
    def prompt_logprobs(self) -> Sequence[TokenLogprobs | None]:
        """As :attr:`Answer.prompt_logprobs`."""
        return self._answer.prompt_logprobs

    def cancel(self) -> None:
        """End the answer before the engine's next step."""
        self._answer.cancel()

    async def __aiter__(self) -> AsyncGenerator[int, None]:
        """Yield the tokens as they come.

        Raises:
            MvlmError: The answer failed.
        """
        is_finished = False
        try:
            while not is_finished:
                tokens, is_finished = await self._news.get()
                for token in tokens:
                    yield token
        finally:
            self.cancel()
        if self._answer.error is not None:
            raise self._answer.error

    def fail(self, error: MvlmError) -> None:
        """End an answer that goes on no more; called in the engine's thread."""
        if not self._answer.is_finished:
            self._answer.finish("error", error)
        self.deliver()

    def deliver(self) -> bool:
        """Hand over what has come; called in the engine's thread. Returns whether all has."""
        tokens = self._answer.tokens[self._given :]
        self._given += len(tokens)
        is_finished = self._answer.is_finished
        if tokens or is_finished:
            try:
                self._loop.call_soon_threadsafe(self._news.put_nowait, (tokens, is_finished))
            except RuntimeError:  # the event loop is gone, and with it whoever asked
                self._answer.cancel()
                return True
        return is_finished


class AsyncEngine:
    """An engine in a thread of its own; to be entered and left as an asynchronous context.

    Args:
        model: The loaded artifact. Nobody else may use it meanwhile.
        settings: The engine's limits.

    Raises:
        UsageError: A setting is out of its range.
        ContextError: There is too little memory for the KV cache.
    """

    def __init__(self, model: Model, settings: EngineSettings | None = None) -> None:
        self._engine = Engine(model, settings)
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._answers: list[AsyncAnswer] = []
        self._thread = threading.Thread(target=self._work, name="mvlm-engine", daemon=True)
        self._failure: EngineStoppedError | None = None

    @property
    def model(self) -> Model:
        """The loaded artifact."""
        return self._engine.model

    async def __aenter__(self) -> AsyncEngine:
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    @property
    def has_ended(self) -> bool:
        """Whether it was closed, or has failed."""
        return self._failure is not None

    @property
    def load(self) -> EngineLoad:
        """How much there is to do; it never waits for a step, which may take long."""
        return self._engine.load

    async def submit(self, request: Request, answers: int = 1) -> list[AsyncAnswer]:
        """Ask for answers; see :meth:`Engine.submit`.

        Raises:
            PromptError: The prompt is empty, or its images do not match their places.
            ContextError: It does not fit.
            EngineStoppedError: The engine was closed, or has failed.
        """
        loop, begun, is_wanted = asyncio.get_running_loop(), list[AsyncAnswer](), True

        def begin() -> list[AsyncAnswer]:
            begun.extend(AsyncAnswer(each, loop) for each in self._engine.submit(request, answers))
            self._answers += begun
            if not is_wanted:
                cancel()
            return begun

        def cancel() -> None:
            for answer in begun:
                answer.cancel()

        try:
            return await self._call(begin)
        except asyncio.CancelledError:
            # Whoever asked has gone: what has begun, or begins at this moment, ends.
            is_wanted = False
            cancel()
            raise

    async def read_ahead(self, request: Request) -> Answer:
        """Compute a prompt while there is nothing else to do; see :meth:`Engine.read_ahead`.

        Returns:
            Its answer, which stays empty and may be cancelled.

        Raises:
            PromptError: As :meth:`submit`.
            ContextError: As :meth:`submit`.
            EngineStoppedError: As :meth:`submit`.
        """
        return await self._call(lambda: self._engine.read_ahead(request))

    async def _call(self, function: Callable[[], _T]) -> _T:
        """Call a function in the engine's thread, between two steps."""
        future: Future[_T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return  # whoever asked has gone
            if self._failure is not None:
                future.set_exception(self._failure)
                return
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        if self._failure is not None or not self._thread.is_alive():
            raise self._failure or EngineStoppedError("the engine does not run")
        self._calls.put(run)
        if self._failure is not None:  # the thread has ended since, and takes no calls any more
            self._refuse_calls()
        return await asyncio.wrap_future(future)

    def _work(self) -> None:
        """Compute until the engine is closed."""
        try:
            while self._take_calls():
                self._engine.step()
                self._answers = [each for each in self._answers if not each.deliver()]
            self._stop(EngineStoppedError("the engine was closed"))
        except BaseException as error:
            self._stop(EngineStoppedError(f"the engine has failed: {error!r:.200}"))
            raise

    def _take_calls(self) -> bool:
        """Make the calls that have come, and wait for one if there is nothing to compute."""
        while True:
            try:
                call = self._calls.get(block=self._engine.is_idle)
            except queue.Empty:
                return True
            if call is None:
                return False
            call()

    def _stop(self, failure: EngineStoppedError) -> None:
        self._failure = failure
        for answer in self._answers:
            answer.fail(failure)
        self._refuse_calls()

    def _refuse_calls(self) -> None:
        """Make the calls that are left, each of which finds that the engine has stopped."""
        with suppress(queue.Empty):
            while True:
                if (call := self._calls.get_nowait()) is not None:
                    call()
