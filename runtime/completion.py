"""A finished answer: its text, tokens, usage and speeds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from mvlm.runtime.engine import AnswerStats, FinishReason
from mvlm.runtime.machine import peak_rss_bytes


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


class Clock:
    """Times one answer, without the time that its consumer takes between two parts of it."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._paused = 0.0
        self._tokens: list[float] = []

    def token(self) -> None:
        """Note that a token has come."""
        self._tokens.append(time.perf_counter() - self._paused)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of the block."""
        began = time.perf_counter()
        yield
        self._paused += time.perf_counter() - began

    def stats(self, answer: AnswerStats) -> Stats:
        """Return the speeds of the answer whose tokens have come."""
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
