"""An answer while it is generated: its text as it becomes final."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mvlm.runtime.completion import Clock, Completion, Usage
from mvlm.runtime.engine import Answer, Engine, FinishReason, Request
from mvlm.runtime.errors import PromptError
from mvlm.runtime.text_stream import TextStream


class Generation:
    """An answer in progress: iterate over its text, then take :attr:`completion`.

    Args:
        engine: Computes the answer.
        request: The prompt, and how to answer it.
        stream: Turns the tokens into text.
        finished: Called with the whole text once it is complete.
        dropped_turns: Turns of the conversation that the prompt has no room for.
    """

    def __init__(
        self,
        engine: Engine,
        request: Request,
        stream: TextStream,
        finished: Callable[[str], None],
        *,
        dropped_turns: int = 0,
    ) -> None:
        self.dropped_turns = dropped_turns
        self._engine, self._request = engine, request
        self._stream, self._finished = stream, finished
        self._answer: Answer | None = None
        self._cancelled = False
        self._completion: Completion | None = None
        self._parts = self._generate()

    def __iter__(self) -> Iterator[str]:
        """Yield the text as it becomes final."""
        return self._parts

    def cancel(self) -> None:
        """Stop after the current token."""
        self._cancelled = True
        if self._answer is not None:
            self._answer.cancel()

    @property
    def completion(self) -> Completion:
        """The finished answer; generates what has not been iterated yet.

        Raises:
            PromptError: An error interrupted the answer before.
        """
        for _ in self._parts:
            pass
        if self._completion is None:
            raise PromptError("the answer was interrupted", fix="Ask again.")
        return self._completion

    def _generate(self) -> Iterator[str]:
        request, stream, clock = self._request, self._stream, Clock()
        (answer,) = self._engine.submit(request)
        self._answer, tokens = answer, list[int]()
        reason: FinishReason = "length"
        try:
            for token in () if self._cancelled else self._engine.tokens(answer):
                clock.token()
                tokens.append(token)
                if token in request.eos:
                    reason = "stop"
                    break
                if text := stream.push(token):
                    with clock.paused():
                        yield text
                if stream.stopped_by is not None:
                    reason = "stop"
                    break
                if self._cancelled:
                    break
            else:
                if answer.finish_reason == "stop":  # its form is complete
                    reason = "stop"
        finally:
            answer.cancel()
        if self._cancelled:
            reason = "cancelled"
        if text := stream.finish():
            yield text
        self._finished(stream.text)
        image_tokens = len(request.images) * self._engine.model.settings.image_tokens
        usage = Usage(answer.stats.prompt, image_tokens, len(tokens))
        self._completion = Completion(
            stream.text, tuple(tokens), reason, usage, clock.stats(answer.stats)
        )
