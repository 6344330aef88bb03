"""An answer while it is generated: its text as it becomes final, its tokens, usage and speeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from mvlm.runtime.decode_loop import DecodeLoop
from mvlm.runtime.errors import PromptError
from mvlm.runtime.machine import peak_rss_bytes
from mvlm.runtime.model import FloatArray
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.session import PrefillResult, Session, Trace
from mvlm.runtime.streaming import TextStream

FinishReason: TypeAlias = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Usage:
    """Positions used: `prompt_tokens` counts the whole prompt, images included."""

    prompt_tokens: int
    image_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Stats:
    """Speeds of one answer.

    Attributes:
        vision_ms: Encoding the images that were new.
        prefill_tok_s: Prompt positions computed in a second; those in the cache are not counted.
        decode_tok_s: Answer tokens in a second, from the second on; the consumer's time between two
            parts is not counted.
        first_token_ms: From the question to the first token.
        peak_rss_bytes: The largest resident memory of the process so far.
    """

    vision_ms: float
    prefill_tok_s: float
    decode_tok_s: float
    first_token_ms: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class Completion:
    """A finished answer.

    Attributes:
        text: Without white space at either end, and without the stop string.
        token_ids: Every token that was generated, an end of sequence included.
        finish_reason: ``stop`` at an end of sequence or a stop string, ``length`` at a limit,
            ``cancelled`` after :meth:`Generation.cancel`.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    stats: Stats

    def to_json(self) -> dict[str, Any]:
        """Return the completion as plain JSON values."""
        return asdict(self) | {"token_ids": list(self.token_ids)}


class Generation:
    """An answer in progress: iterate over its text, then take :attr:`completion`.

    Args:
        session: The sequence to generate in.
        ids: The prompt, with -200 in the place of each image.
        pixels: The images ``(1, 3, S, S)``, in their places' order.
        params: How to sample, and how many tokens at most.
        stream: Turns the tokens into text.
        finished: Called with the whole text once it is complete.
        dropped_turns: Turns of the conversation that the prompt has no room for.
        trace: Records every stage.
    """

    def __init__(
        self,
        session: Session,
        ids: Sequence[int],
        pixels: Sequence[FloatArray],
        params: SamplingParams,
        stream: TextStream,
        finished: Callable[[str], None],
        *,
        dropped_turns: int = 0,
        trace: Trace | None = None,
    ) -> None:
        self.dropped_turns = dropped_turns
        self._session, self._ids, self._pixels = session, ids, pixels
        self._params, self._stream, self._finished = params, stream, finished
        self._trace = trace
        self._cancelled = False
        self._completion: Completion | None = None
        self._parts = self._generate()

    def __iter__(self) -> Iterator[str]:
        """Yield the text as it becomes final."""
        return self._parts

    def cancel(self) -> None:
        """Stop after the current token."""
        self._cancelled = True

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
        session, stream = self._session, self._stream
        clock, settings = _Clock(session), session.model.settings
        loop = DecodeLoop(session, self._ids, self._pixels, self._params, settings.eos, self._trace)
        tokens, steps = list[int](), iter(loop)
        reason: FinishReason = "length"
        while not self._cancelled and (token := next(steps, None)) is not None:
            clock.token()
            tokens.append(token)
            if token in settings.eos:
                reason = "stop"
            elif text := stream.push(token):
                with clock.paused():
                    yield text
            if stream.stopped_by is not None:
                reason = "stop"
                break
        if self._cancelled:
            reason = "cancelled"
        if text := stream.finish():
            yield text
        self._finished(stream.text)
        image_tokens = len(self._pixels) * settings.image_tokens
        usage = Usage(session.length(self._ids), image_tokens, len(tokens))
        stats = clock.stats(loop.prefill)
        self._completion = Completion(stream.text, tuple(tokens), reason, usage, stats)


class _Clock:
    """Times one answer, without the time that its consumer takes between two parts of it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._vision_before = session.vision_seconds
        self._begin = time.perf_counter()
        self._paused = 0.0
        self._tokens: list[float] = []

    def token(self) -> None:
        self._tokens.append(time.perf_counter() - self._paused)

    @contextmanager
    def paused(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._paused += time.perf_counter() - began

    def stats(self, prefill: PrefillResult | None) -> Stats:
        first = self._tokens[0] if self._tokens else self._begin
        decoding = self._tokens[-1] - first if self._tokens else 0.0
        return Stats(
            vision_ms=1e3 * (self._session.vision_seconds - self._vision_before),
            prefill_tok_s=prefill.computed / prefill.seconds if prefill else 0.0,
            decode_tok_s=(len(self._tokens) - 1) / decoding if decoding else 0.0,
            first_token_ms=1e3 * (first - self._begin),
            peak_rss_bytes=peak_rss_bytes(),
        )
