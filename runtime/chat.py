"""A conversation about images: history, streaming, and truncation at the context's end.

The policy at the limit: an answer that reaches the end of the context stops there, with the finish
reason ``length``. When a conversation no longer fits, its oldest turns are dropped, one after the
other. Their images move to the next turn, as long as these fit themselves, since the conversation
is about them; :attr:`Generation.dropped_turns` counts the dropped turns. A single prompt that does
not fit is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mvlm.runtime.artifact.layout import TOKENIZER
from mvlm.runtime.errors import ArtifactError, ContextError, PromptError, UsageError
from mvlm.runtime.machine import peak_rss_bytes
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import Sampler, SamplingParams
from mvlm.runtime.session import ImageEmbedding, PrefillResult, Session, Trace
from mvlm.runtime.streaming import TextStream
from mvlm.runtime.template import TEMPLATES, ChatTemplate, Turn
from mvlm.runtime.tokenizer import Tokenizer

FloatArray = npt.NDArray[np.float32]

# Positions that a prompt must leave for its answer; older turns are dropped to free them.
_MIN_ANSWER_TOKENS = 64


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
    finish_reason: Literal["stop", "length", "cancelled"]
    usage: Usage
    stats: Stats

    def to_json(self) -> dict[str, Any]:
        """Return the completion as plain JSON values."""
        return asdict(self) | {"token_ids": list(self.token_ids)}


@dataclass
class _Exchange:
    """A turn of the conversation and the pixels of its images: first the inherited ones."""

    turn: Turn
    pixels: tuple[FloatArray, ...] = field(default=(), repr=False)


class Chat:
    """A conversation with one model.

    Args:
        model: The loaded artifact.
        template: Name of the chat template; the artifact's own if None.
        capacity: Positions of the KV cache; the model's context if None.

    Raises:
        UsageError: There is no such template.
        ArtifactError: The artifact names a template that does not exist.
        TokenizerError: The artifact's tokenizer is damaged.
    """

    def __init__(
        self, model: Model, template: str | None = None, capacity: int | None = None
    ) -> None:
        settings = model.settings
        self.session = Session(model, capacity)
        self.template = _find_template(template, settings.template)
        self.tokenizer = Tokenizer(model.folder / TOKENIZER, legacy=settings.legacy_tokenizer)
        self._history: list[_Exchange] = []
        self._active: Generation | None = None

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation so far, without the turns that were dropped."""
        return tuple(exchange.turn for exchange in self._history)

    def generate(
        self,
        question: str,
        pixels: Sequence[FloatArray] = (),
        params: SamplingParams | None = None,
        trace: Trace | None = None,
    ) -> Generation:
        """Answer the next question; nothing is computed before the generation is iterated.

        Args:
            question: The user's text.
            pixels: Preprocessed images ``(1, 3, S, S)`` shown with it.
            params: How to sample; greedily if None.
            trace: Records every stage.

        Raises:
            PromptError: The question is blank, or its images do not match its text.
            ContextError: The question alone does not fit into the context.
        """
        params = params or SamplingParams()
        if not self.template.has_turns:
            self._history.clear()
        exchanges = [*self._history, _Exchange(Turn(question, len(pixels)), tuple(pixels))]
        kept, ids = self._fit(exchanges, params.max_tokens)
        dropped = len(exchanges) - len(kept)
        return Generation(self, kept, ids, params, trace, dropped)

    def reset(self) -> None:
        """Begin a new conversation; an unfinished generation is cancelled."""
        if self._active is not None:
            self._active.cancel()
            self._active = None
        self._history.clear()
        self.session.clear()

    def begin(self, generation: Generation) -> None:
        """Let a generation use the session; an unfinished one before it is cancelled."""
        if self._active is not None:
            self._active.cancel()
        self._active = generation

    def remember(self, generation: Generation, exchanges: Sequence[_Exchange]) -> None:
        """Take a finished generation's turns as the history, unless another has begun since."""
        if self._active is generation:
            self._active = None
            self._history = list(exchanges)

    def _fit(
        self, exchanges: Sequence[_Exchange], max_tokens: int
    ) -> tuple[list[_Exchange], list[int]]:
        """Drop the oldest turns until the rest leaves room for an answer."""
        capacity = self.session.cache.capacity
        room = min(max_tokens, _MIN_ANSWER_TOKENS, capacity // 4)
        kept = list(exchanges)
        while True:
            turns = [exchange.turn for exchange in kept]
            ids = self.tokenizer.encode_prompt(self.template.render(turns))
            length = self.session.length(ids)
            if length + room <= capacity or (len(kept) == 1 and length < capacity):
                return kept, ids
            if len(kept) > 1:
                kept = _without_oldest(kept)
            elif kept[0].turn.inherited_images:
                # Of the images of dropped turns, the oldest go first.
                kept = [_inheriting(kept[0], kept[0].pixels[1:])]
            else:
                raise ContextError(
                    "the prompt does not fit into the context",
                    expected=f"fewer than {capacity} tokens",
                    found=length,
                    fix="Shorten the question, or show fewer images.",
                )


def _without_oldest(exchanges: Sequence[_Exchange]) -> list[_Exchange]:
    """Drop the first turn; its images are shown before those of the next one."""
    oldest, following, *rest = exchanges
    return [_inheriting(following, oldest.pixels + following.pixels), *rest]


def _inheriting(exchange: _Exchange, pixels: tuple[FloatArray, ...]) -> _Exchange:
    """Show other inherited images before the exchange's own, which are the last of `pixels`."""
    own = exchange.turn.images - exchange.turn.inherited_images
    turn = replace(exchange.turn, images=len(pixels), inherited_images=len(pixels) - own)
    return _Exchange(turn, pixels)


class Generation:
    """An answer in progress: iterate over its text, then take :attr:`completion`."""

    def __init__(
        self,
        chat: Chat,
        exchanges: list[_Exchange],
        ids: list[int],
        params: SamplingParams,
        trace: Trace | None,
        dropped_turns: int,
    ) -> None:
        self.dropped_turns = dropped_turns
        self._chat = chat
        self._exchanges = exchanges
        self._ids = ids
        self._params = params
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
        session, settings = self._chat.session, self._chat.session.model.settings
        stream = TextStream(self._chat.tokenizer, (*self._chat.template.stop, *self._params.stop))
        clock = _Clock(session)
        self._chat.begin(self)
        images = [
            session.encode_image(pixels, self._trace)
            for exchange in self._exchanges
            for pixels in exchange.pixels
        ]
        prefill = session.prefill(self._ids, images, self._trace)
        limit = min(self._params.max_tokens, session.cache.capacity - prefill.positions)
        sampler, logits, tokens = Sampler(self._params), prefill.logits, list[int]()
        reason: Literal["stop", "length", "cancelled"] = "length"
        while not self._cancelled:
            if self._trace:
                self._trace.step_logits.append(logits[None])
            tokens.append(sampler.sample(logits, [*self._ids, *tokens]))
            clock.token()
            if tokens[-1] in settings.eos:
                reason = "stop"
                break
            if text := stream.push(tokens[-1]):
                with clock.paused():
                    yield text
            if stream.stopped_by is not None:
                reason = "stop"
                break
            if len(tokens) >= limit:
                break
            logits = session.decode(tokens[-1])
        if self._cancelled:
            reason = "cancelled"
        if text := stream.finish():
            yield text
        self._finish(stream.text, tokens, reason, prefill, images, clock)

    def _finish(
        self,
        text: str,
        tokens: list[int],
        reason: Literal["stop", "length", "cancelled"],
        prefill: PrefillResult,
        images: Sequence[ImageEmbedding],
        clock: _Clock,
    ) -> None:
        *earlier, last = self._exchanges
        answered = _Exchange(replace(last.turn, answer=text), last.pixels)
        self._chat.remember(self, [*earlier, answered])
        image_tokens = sum(image.positions for image in images)
        usage = Usage(prefill.positions, image_tokens, len(tokens))
        self._completion = Completion(text, tuple(tokens), reason, usage, clock.stats(prefill))


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

    def stats(self, prefill: PrefillResult) -> Stats:
        first = self._tokens[0] if self._tokens else self._begin
        decoding = self._tokens[-1] - first if self._tokens else 0.0
        return Stats(
            vision_ms=1e3 * (self._session.vision_seconds - self._vision_before),
            prefill_tok_s=prefill.computed / prefill.seconds,
            decode_tok_s=(len(self._tokens) - 1) / decoding if decoding else 0.0,
            first_token_ms=1e3 * (first - self._begin),
            peak_rss_bytes=peak_rss_bytes(),
        )


def _find_template(chosen: str | None, default: str) -> ChatTemplate:
    name = default if chosen is None else chosen
    if name not in TEMPLATES:
        error = ArtifactError if chosen is None else UsageError
        raise error("unknown chat template", expected=" or ".join(TEMPLATES), found=repr(name))
    return TEMPLATES[name]
