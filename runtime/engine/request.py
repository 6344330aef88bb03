"""What the engine is asked for, and the answer as it comes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from mvlm.runtime.engine.trace import Trace
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.model import FloatArray
from mvlm.runtime.sampling import SamplingParams, log_probabilities
from mvlm.runtime.structured_output import TokenMatcher

FinishReason: TypeAlias = Literal["stop", "length", "cancelled", "timeout", "error"]


@dataclass(frozen=True)
class TokenLogprobs:
    """How likely a token was, by the model itself: before penalties, biases and temperature.

    Attributes:
        token: Its id.
        logprob: The natural logarithm of its probability.
        top: The likeliest ids at its place and theirs, the likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, token: int, logits: FloatArray, count: int) -> TokenLogprobs:
        """Compute them from the logits ``(vocabulary,)``, with `count` of the likeliest."""
        logprobs = log_probabilities(logits)
        is_part = count < logprobs.size
        best = np.argpartition(-logprobs, count)[:count] if is_part else range(logprobs.size)
        # Of equally likely ones the lowest id is the first.
        ordered = sorted((-float(logprobs[each]), int(each)) for each in best)
        top = tuple((each, -negative) for negative, each in ordered)
        return cls(token, float(logprobs[token]), top)


@dataclass(frozen=True)
class Request:
    """A prompt, and how to answer it.

    Attributes:
        ids: The prompt, with -200 in the place of each image.
        images: Pixels ``(1, 3, S, S)`` float32, one for each place.
        params: How to sample, and how many tokens at most.
        eos: Ids that end the answer.
        priority: Requests of a higher one go first; in turn if equal.
        timeout: Seconds from its submission after which the answer ends; None for no limit.
        logprobs: How many of the likeliest tokens to report with each token; None reports none.
        prompt_logprobs: The same for the tokens of the prompt, which is then computed anew.
        matcher: The form of the answer, at its beginning; None for any.
        trace: Records every stage; the prompt is then computed alone and anew.
    """

    ids: Sequence[int]
    images: Sequence[FloatArray] = field(default=(), repr=False)
    params: SamplingParams = field(default_factory=SamplingParams)
    eos: frozenset[int] = frozenset()
    priority: int = 0
    timeout: float | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    matcher: TokenMatcher | None = field(default=None, repr=False)
    trace: Trace | None = field(default=None, repr=False)

    @property
    def wants_prompt(self) -> bool:
        """Whether the logits of all of the prompt's positions are wanted."""
        return self.trace is not None or self.prompt_logprobs is not None


@dataclass
class AnswerStats:
    """What an answer took.

    Attributes:
        submitted: When it was asked for, by ``time.perf_counter``.
        image_seconds: Encoding those of its images that were not known.
        prompt: Positions of the prompt.
        computed: Those of them that were not in the prefix cache.
        prefill_seconds: The steps in which they were computed, neighbours' rows included.
        drafted: Tokens that were drafted for it.
        accepted: Those of them that the model chose, too.
        steps: Steps of the engine that chose one token of it or more.
        preemptions: How often its pages were given to others.
    """

    submitted: float = field(default_factory=time.perf_counter)
    image_seconds: float = 0.0
    prompt: int = 0
    computed: int = 0
    prefill_seconds: float = 0.0
    drafted: int = 0
    accepted: int = 0
    steps: int = 0
    preemptions: int = 0

    @property
    def cached(self) -> int:
        """Positions of the prompt that were in the prefix cache; 0 before any is computed."""
        return self.prompt - self.computed if self.computed else 0


class Answer:
    """An answer in progress.

    Attributes:
        request: What was asked for.
        tokens: Chosen so far, an end of sequence included.
        logprobs: Of each of them, if they were asked for.
        prompt_logprobs: Of each position of the prompt, if asked for; None for the first one and
            for an image's.
        finish_reason: ``stop`` at an end of sequence, ``length`` at a limit, ``cancelled``,
            ``timeout`` or ``error``; None as long as it is not finished.
        error: Why it failed, if it did.
        stats: What it took.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.prompt_logprobs: list[TokenLogprobs | None] = []
        self.finish_reason: FinishReason | None = None
        self.error: MvlmError | None = None
        self.stats = AnswerStats()
        self.is_cancelled = False

    @property
    def is_finished(self) -> bool:
        """Whether no token follows."""
        return self.finish_reason is not None

    def cancel(self) -> None:
        """End the answer before the engine's next step."""
        self.is_cancelled = True

    def finish(self, reason: FinishReason, error: MvlmError | None = None) -> None:
        """End the answer; the engine calls it."""
        self.finish_reason, self.error = reason, error

    @property
    def is_overdue(self) -> bool:
        """Whether its time is over."""
        limit = self.request.timeout
        return limit is not None and time.perf_counter() - self.stats.submitted > limit
