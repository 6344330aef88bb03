"""An answer while it is generated: its text as it becomes final, its tokens, usage and speeds.

What a user has seen cannot be taken back, so text is shown only when it is final: not half a
character, not what may turn out to be the beginning of a stop string, not white space that may turn
out to be the answer's end. The work for a token does not grow with the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from mvlm.runtime.engine import Answer, AnswerStats, Engine, FinishReason, Request
from mvlm.runtime.errors import PromptError, UsageError
from mvlm.runtime.machine import peak_rss_bytes
from mvlm.runtime.tokenizer import Detokenizer, Tokenizer


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
        drafted: Tokens that were drafted and verified.
        accepted: Those of them that the model chose, too.
        tokens_per_step: Tokens of the answer for each step of the model; 1 without drafts.
        peak_rss_bytes: The largest resident memory of the process so far.
    """

    vision_ms: float
    prefill_tok_s: float
    decode_tok_s: float
    first_token_ms: float
    drafted: int
    accepted: int
    tokens_per_step: float
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
        request, stream, clock = self._request, self._stream, _Clock()
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


class _Clock:
    """Times one answer, without the time that its consumer takes between two parts of it."""

    def __init__(self) -> None:
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

    def stats(self, answer: AnswerStats) -> Stats:
        first = self._tokens[0] if self._tokens else self._begin
        decoding = self._tokens[-1] - first if self._tokens else 0.0
        return Stats(
            vision_ms=1e3 * answer.image_seconds,
            prefill_tok_s=answer.computed / answer.prefill_seconds if self._tokens else 0.0,
            decode_tok_s=(len(self._tokens) - 1) / decoding if decoding else 0.0,
            first_token_ms=1e3 * (first - self._begin),
            drafted=answer.drafted,
            accepted=answer.accepted,
            tokens_per_step=len(self._tokens) / answer.steps if answer.steps else 0.0,
            peak_rss_bytes=peak_rss_bytes(),
        )


class TextStream:
    """Turns the ids of one answer into text to show.

    The concatenation of what :meth:`push` and :meth:`finish` return is the text of all ids, cut
    before the first stop string, and without white space at either end unless it is `verbatim`. Of
    several stop strings the one that is complete first counts; of those complete at the same
    character, the longest.

    Args:
        tokenizer: The model's tokenizer. Special ids have no text: the caller ends the answer at
            the end-of-sequence id.
        stop: Texts that end the answer; they are not shown.
        verbatim: Whether the text goes on from a prompt as it is, white space at either end
            included.

    Raises:
        UsageError: A stop string is empty.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), *, verbatim: bool = False
    ) -> None:
        if "" in stop:
            raise UsageError("stop", expected="texts that are not empty", found=repr(tuple(stop)))
        self._verbatim = verbatim
        self._detokenizer = Detokenizer(tokenizer, at_start=not verbatim)
        self._matchers = [_Matcher(text) for text in dict.fromkeys(stop)]
        # Decoded and not shown: what may begin a stop string.
        self._held = ""
        # Decoded and not shown: white space after the text shown, in parts.
        self._blanks: list[str] = []
        self._shown: list[str] = []
        self._finished = False
        self._stopped_by: str | None = None

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended the answer, if one did."""
        return self._stopped_by

    @property
    def text(self) -> str:
        """All that was shown so far."""
        return "".join(self._shown)

    def push(self, token_id: int) -> str:
        """Take the next id and return the text that can be shown now.

        After a stop string, or after :meth:`finish`, ids are passed over.

        Raises:
            TokenizerError: The id is negative.
        """
        if self._finished:
            return ""
        return self._take(self._detokenizer.push(token_id))

    def finish(self) -> str:
        """End the answer and return the text that was held back."""
        if self._finished:
            return ""
        shown = self._take(self._detokenizer.finish())
        if not self._finished:
            self._finished = True
            last = self._show(self._held)
            self._held = ""
            shown += last
        return shown

    def _take(self, text: str) -> str:
        held = self._held + text
        for end, character in enumerate(text, start=len(self._held) + 1):
            # All matchers see every character, so that none lags behind.
            complete = [matcher for matcher in self._matchers if matcher.push(character)]
            if complete:
                longest = max(complete, key=lambda matcher: len(matcher.text))
                self._stopped_by = longest.text
                self._finished = True
                self._held = ""
                return self._show(held[: end - len(longest.text)])
        begun = max((matcher.matched for matcher in self._matchers), default=0)
        settled = len(held) - begun
        self._held = held[settled:]
        return self._show(held[:settled])

    def _show(self, text: str) -> str:
        """Show text that no stop string can take back, but for white space at its end."""
        if self._verbatim:
            self._shown.append(text)
            return text
        if not self._shown:
            text = text.lstrip()
        visible = text.rstrip()
        if not visible:
            # Kept in parts: joining them for each token would be quadratic in a run of blanks.
            if text:
                self._blanks.append(text)
            return ""
        shown = "".join([*self._blanks, visible])
        trailing = text[len(visible) :]
        self._blanks = [trailing] if trailing else []
        self._shown.append(shown)
        return shown


class _Matcher:
    """Knuth-Morris-Pratt search for one text in a stream of characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        """How many of the last characters are the beginning of the text, at most."""
        self._fallback = _borders(text)

    def push(self, character: str) -> bool:
        """Take a character and say whether it completes the text."""
        while self.matched and self.text[self.matched] != character:
            self.matched = self._fallback[self.matched - 1]
        if self.text[self.matched] == character:
            self.matched += 1
        return self.matched == len(self.text)


def _borders(text: str) -> list[int]:
    """For each beginning of `text`, the length of its longest other beginning that ends it."""
    borders = [0]
    for character in text[1:]:
        length = borders[-1]
        while length and text[length] != character:
            length = borders[length - 1]
        borders.append(length + 1 if text[length] == character else 0)
    return borders
