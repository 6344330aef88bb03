"""The engine: answers many requests at once, a step of the model at a time.

A step computes one call's rows: the next token of each answer that is decoded, drafted tokens, and
a chunk of a prompt. It is synchronous and belongs to one thread; `asynchronous` is its face for
others. An answer has the same tokens whatever else is computed: rows have the same logits in any
company, and each answer has its own random numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from mvlm.runtime.engine.batch import Rows, compute
from mvlm.runtime.engine.image_encoder import ImageEncoder, image_digest
from mvlm.runtime.engine.load import EngineLoad
from mvlm.runtime.engine.masks import MaskWorker, take_masks
from mvlm.runtime.engine.page_pool import PagePool
from mvlm.runtime.engine.positions import check_places
from mvlm.runtime.engine.prefix_cache import PrefixCache
from mvlm.runtime.engine.request import Answer, FinishReason, Request, TokenLogprobs
from mvlm.runtime.engine.running import Running, Waiting
from mvlm.runtime.engine.scheduler import Scheduler
from mvlm.runtime.engine.settings import EngineSettings
from mvlm.runtime.engine.speculation import DraftPlanner
from mvlm.runtime.engine.trace import Trace
from mvlm.runtime.errors import ContextError, MvlmError
from mvlm.runtime.model import FloatArray, Model
from mvlm.runtime.sampling import Sampler, SamplingParams
from mvlm.runtime.structured_output import Mask
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID


class Engine:
    """Answers requests to one model.

    Args:
        model: The loaded artifact.
        settings: Its limits.

    Raises:
        UsageError: A setting is out of its range.
        ContextError: There is too little memory for the KV cache.

    Attributes:
        model: The loaded artifact.
        settings: Its limits, without any None.
        images: Encodes the images.
    """

    def __init__(self, model: Model, settings: EngineSettings | None = None) -> None:
        self.model = model
        self.settings = (settings or EngineSettings()).checked(model.settings)
        self.images = ImageEncoder(model, self.settings.image_bytes)
        self.cache = model.new_cache(self.settings.capacity)
        self._planner = DraftPlanner(self.settings.speculate)
        self._masks = MaskWorker()
        self._scheduler = Scheduler(
            model.settings, self.settings, self.cache, self.images, self._planner
        )

    @property
    def context(self) -> int:
        """Positions of one sequence at the most."""
        return self._scheduler.context

    @property
    def pool(self) -> PagePool:
        """The pages of the KV cache."""
        return self._scheduler.pool

    @property
    def prefixes(self) -> PrefixCache:
        """The prefix cache."""
        return self._scheduler.prefixes

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute."""
        return self._scheduler.is_idle

    @property
    def load(self) -> EngineLoad:
        """How much there is to do; any thread may read it."""
        return self._scheduler.load

    def submit(self, request: Request, answers: int = 1) -> list[Answer]:
        """Ask for answers; nothing is computed before :meth:`step`.

        Args:
            request: The prompt, and how to answer it.
            answers: How many. They share the prompt; the seed of each is one more than that of the
                one before.

        Raises:
            PromptError: The prompt is empty, or its images do not match their places.
            ContextError: It does not fit.
        """
        first = self._checked(request, reads_ahead=False)
        seed = request.params.seed
        for number in range(1, answers):
            params = replace(request.params, seed=None if seed is None else seed + number)
            sibling = replace(request, params=params, trace=None, prompt_logprobs=None)
            first.siblings.append(self._checked(sibling, reads_ahead=False))
        return self._enqueue(first, *first.siblings)

    def read_ahead(self, request: Request) -> Answer:
        """Compute a prompt into the prefix cache, as long as there is nothing else to do.

        The answer stays empty, and finishes with ``length``. A request that begins alike takes over
        what is computed by then.

        Raises:
            PromptError: As :meth:`submit`.
            ContextError: It does not fit.
        """
        (answer,) = self._enqueue(self._checked(request, reads_ahead=True))
        return answer

    def tokens(self, answer: Answer) -> Iterator[int]:
        """Compute until an answer is finished, and yield its tokens as they come.

        Raises:
            MvlmError: The answer failed.
        """
        given = 0
        while True:
            while given < len(answer.tokens):
                given += 1
                yield answer.tokens[given - 1]
            if answer.is_finished:
                break
            self.step()
        if answer.error is not None:
            raise answer.error

    def step(self) -> bool:
        """Compute what comes next: a part of an image, and rows of the decoder.

        Returns whether there was anything, or is more.

        An exception that is no answer's own, as Ctrl-C raises, leaves the engine usable; if it came
        at a bad moment, all answers fail.
        """
        with self._changing():
            self._scheduler.drop_ended()
            self._scheduler.admit()
            batch = self._scheduler.batch()
        if not batch:
            return not self.is_idle
        self._masks.begin(batch)
        begin = time.perf_counter()
        try:
            logits = compute(self.model, self.cache, [rows for _, rows in batch])
        except MvlmError as error:
            with self._changing():
                for running, _ in batch:
                    self._scheduler.end(running, "error", error)
            return True
        seconds = time.perf_counter() - begin
        if self._planner.is_looking and all(running.is_decoding for running, _ in batch):
            self._planner.measured(sum(rows.total for _, rows in batch), seconds)
        with self._changing():
            for (running, rows), each in zip(batch, logits, strict=True):
                self._advance(running, rows, each, seconds)
        return True

    def logits(self, ids: Sequence[int], images: Sequence[FloatArray] = ()) -> FloatArray:
        """Compute the logits ``(positions, vocabulary)`` float32 of a whole prompt.

        Args:
            ids: The prompt, with -200 in the place of each image.
            images: Pixels ``(1, 3, S, S)`` float32, one for each place.

        Raises:
            PromptError: The prompt is empty, or its images do not match their places.
            ContextError: It does not fit.
        """
        trace = Trace()
        (answer,) = self.submit(Request(ids, images, SamplingParams(max_tokens=1), trace=trace))
        for _ in self.tokens(answer):
            pass
        return np.concatenate(trace.prefill_logits)

    def length(self, ids: Sequence[int]) -> int:
        """Count the positions of a prompt's ids, in which -200 stands for an image."""
        return len(ids) + ids.count(IMAGE_TOKEN_ID) * (self.model.settings.image_tokens - 1)

    def clear(self) -> None:
        """Cancel all answers, and drop the prefix cache; encoded images stay."""
        for answer in self._scheduler.unfinished():
            answer.cancel()
        with self._changing():
            self._scheduler.drop_ended()
            self.prefixes.clear()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Begin anew after an exception, such as Ctrl-C, that comes while pages change hands.

        What they hold is not known then. An answer is in the lists until it is finished, so that
        none is forgotten.
        """
        try:
            yield
        except BaseException:
            self._scheduler.begin_anew(MvlmError("the answer was interrupted", fix="Ask again."))
            raise

    def _enqueue(self, *several: Waiting) -> list[Answer]:
        """Let sequences wait for their turn; none stays if Ctrl-C comes in between."""
        answers = [waiting.answer for waiting in several]
        try:
            for waiting in several:
                self._scheduler.wait(waiting)
        except BaseException:
            for answer in answers:
                answer.cancel()
            raise
        return answers

    def _checked(self, request: Request, reads_ahead: bool) -> Waiting:
        """Return what waits for a request's answer, if it is one that can be computed."""
        check_places(request.ids, len(request.images))
        self._check_tokens(request.ids)
        if self.length(request.ids) > self.context:
            raise ContextError(
                "the prompt does not fit into the context",
                expected=f"at most {self.context} positions",
                found=self.length(request.ids),
            )
        answer = Answer(request)
        answer.stats.prompt = self.length(request.ids)
        digests = tuple(map(image_digest, request.images))
        matcher = None if request.matcher is None else request.matcher.copy()
        return Waiting(answer, digests, reads_ahead, Sampler(request.params), matcher)

    def _check_tokens(self, ids: Sequence[int]) -> None:
        """Check a prompt's ids before they are computed in one call with those of others."""
        vocabulary = range(self.model.settings.vocabulary)
        if not all(
            isinstance(token, int) and (token in vocabulary or token == IMAGE_TOKEN_ID)
            for token in ids
        ):
            raise self.model.token_error()

    def _advance(self, running: Running, rows: Rows, logits: FloatArray, seconds: float) -> None:
        """Take in what a step has computed of a sequence."""
        answer, trace = running.answer, running.answer.request.trace
        is_reading = rows.count > 1 or not answer.tokens
        running.sequence.append([*running.positions.keys[rows.begin : rows.end], *rows.drafts])
        if is_reading:
            answer.stats.prefill_seconds += seconds
            if trace is not None:
                trace.prompt_ids = tuple(answer.request.ids)
                trace.prefill_logits.append(logits)
            self._note_prompt(running, rows, logits)
        if rows.end < len(running.positions):
            return
        if rows.count > 1:
            self._scheduler.share_prompt(running)
        if running.origin.reads_ahead:
            self._scheduler.end(running, "length")
            return
        chosen = logits[-1 - len(rows.drafts) :]
        if not answer.tokens:
            for sibling in self._scheduler.fork(running):
                self._choose_tokens(sibling, (), chosen[:1])
        self._choose_tokens(running, rows.drafts, chosen)

    def _note_prompt(self, running: Running, rows: Rows, logits: FloatArray) -> None:
        """Note how likely the prompt's tokens were behind rows of it."""
        answer, keys = running.answer, running.positions.keys
        if (count := answer.request.prompt_logprobs) is None or answer.tokens:
            return
        if rows.begin == 0:
            answer.prompt_logprobs[:] = [None]
        for each, token in zip(logits, keys[rows.begin + 1 : rows.end + 1], strict=False):
            answer.prompt_logprobs.append(
                TokenLogprobs.of(token, each, count) if isinstance(token, int) else None
            )

    def _choose_tokens(self, running: Running, drafts: tuple[int, ...], logits: FloatArray) -> None:
        """Sample behind the last position, and behind each draft that was right."""
        stats = running.answer.stats
        stats.steps += 1
        stats.drafted += len(drafts)
        try:
            right, reason = self._verify(running, drafts, logits)
        except MvlmError as error:
            self._scheduler.end(running, "error", error)
            return
        stats.accepted += right
        self._learn(running, len(drafts), right)
        running.sequence.truncate(len(running.positions) - 1)
        if reason is not None:
            self._scheduler.end(running, reason)

    def _verify(
        self, running: Running, drafts: tuple[int, ...], logits: FloatArray
    ) -> tuple[int, FinishReason | None]:
        """Choose tokens as long as they are those that were drafted, and one more.

        Returns:
            How many drafts were right, and why the answer is finished, if it is.

        Raises:
            MvlmError: The logits are not finite, or the answer's form has grown too complex.
        """
        answer, trace, masks = running.answer, running.answer.request.trace, take_masks(running)
        for number, scores in enumerate(logits):
            if trace is not None:
                trace.step_logits.append(scores[None])
            mask = None if masks is None else masks[number]
            token = self._sample(running, scores, mask)
            running.positions.append(token)
            answer.tokens.append(token)
            if (count := answer.request.logprobs) is not None:
                answer.logprobs.append(TokenLogprobs.of(token, scores, count))
            is_right = number < len(drafts) and drafts[number] == token
            if (reason := self._finished(running, token)) is not None or not is_right:
                return number + is_right, reason
        raise AssertionError("behind the last draft there is none that could be right")

    def _sample(self, running: Running, scores: FloatArray, mask: Mask | None) -> int:
        origin = running.origin
        token = origin.sampler.sample(scores, running.positions.ids, running.answer.tokens, mask)
        if origin.matcher is not None:
            origin.matcher.consume(token)
        return token

    def _finished(self, running: Running, token: int) -> FinishReason | None:
        matcher = running.origin.matcher
        if token in running.answer.request.eos or (matcher is not None and matcher.is_complete):
            return "stop"
        if running.tokens_left == 0 or len(running.positions) > self.context:
            return "length"
        return None

    def _learn(self, running: Running, drafted: int, right: int) -> None:
        """Learn how often guesses are right, from those too that were not verified."""
        guess, running.guess = running.guess, None
        if guess is None:
            return
        if drafted == 0:
            is_right = running.positions.ids[-1] == guess.tokens[0]
            self._planner.learn(guess.kind, int(is_right), int(not is_right))
        else:
            self._planner.learn(guess.kind, right, int(right < drafted))
