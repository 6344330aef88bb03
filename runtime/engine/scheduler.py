"""Which sequences are computed, and which of their rows a step takes.

Admission is optimistic: a sequence is let in when its prompt fits. If pages run out, the sequence
that is last in order gives up its own and waits; its positions are computed anew later, but for
what is still in the prefix cache. The first in order is never given up, so that each finishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from mvlm.runtime.engine.batch import Rows
from mvlm.runtime.engine.image_encoder import ImageEncoder
from mvlm.runtime.engine.load import EngineLoad
from mvlm.runtime.engine.page_pool import PagePool, PoolFullError
from mvlm.runtime.engine.positions import Positions
from mvlm.runtime.engine.prefix_cache import PrefixCache
from mvlm.runtime.engine.request import Answer, FinishReason
from mvlm.runtime.engine.running import Running, Waiting
from mvlm.runtime.engine.sequence import PagedSequence, common_prefix
from mvlm.runtime.engine.settings import EngineSettings
from mvlm.runtime.engine.speculation import (
    FORCED,
    Draft,
    Drafter,
    DraftPlanner,
    NgramDrafter,
)
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.kv_cache import KVCache
from mvlm.runtime.settings import ChatSettings


class Scheduler:
    """The sequences that wait and that are computed, and the pages that they hold.

    Args:
        model: The model's settings.
        settings: The engine's limits, without any None.
        cache: The KV cache.
        images: Encodes the images.
        planner: Says how many drafted rows pay.

    Attributes:
        pool: The pages of the KV cache.
        prefixes: The prefix cache.
    """

    def __init__(
        self,
        model: ChatSettings,
        settings: EngineSettings,
        cache: KVCache,
        images: ImageEncoder,
        planner: DraftPlanner,
    ) -> None:
        self._model, self._settings = model, settings
        self._cache, self._images, self._planner = cache, images, planner
        self._page_size = model.cache.page_size
        self._waiting: list[Waiting] = []
        self._running: list[Running] = []
        # Whether this step may encode a part of an image, and whether the last one has.
        self._may_encode = self._has_encoded = False
        self._empty_pages()

    @property
    def context(self) -> int:
        """Positions of one sequence at the most."""
        assert self._settings.context is not None
        return self._settings.context

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not (self._waiting or self._running)

    @property
    def load(self) -> EngineLoad:
        """How much there is to do; any thread may read it, between two changes or amid one."""
        return EngineLoad(
            len(self._waiting),
            len(self._running),
            self.pool.size,
            self.pool.free,
            self.prefixes.pages,
            self._images.count,
        )

    def begin_anew(self, error: MvlmError) -> None:
        """Fail all answers, and forget who holds which pages."""
        for answer in self.unfinished():
            if not answer.is_finished:
                answer.finish("error", error)
        self._waiting.clear()
        self._running.clear()
        self._empty_pages()

    def _empty_pages(self) -> None:
        self.pool = PagePool(self._cache.pages)
        self.prefixes = PrefixCache(self.pool, self._page_size)

    def unfinished(self) -> list[Answer]:
        """Return the answers that are not finished."""
        waiting = [each.answer for each in self._waiting]
        return [*waiting, *(each.answer for each in self._running)]

    def wait(self, waiting: Waiting) -> None:
        """Let a sequence wait for its turn."""
        self._waiting.append(waiting)
        self._waiting.sort(key=lambda each: each.order)

    def drop_ended(self) -> None:
        """End what was cancelled, or has no time left."""
        for waiting in list(self._waiting):
            if (reason := _ended(waiting.answer)) is not None:
                self._drop(waiting, reason)
        for running in list(self._running):
            if (reason := _ended(running.answer)) is not None:
                self.end(running, reason)

    def admit(self) -> None:
        """Let sequences in, in order, as long as there is room.

        Before that their images are encoded, one part in a step, which whoever is answered
        meanwhile waits for. These parts take turns with chunks of prompts.
        """
        answering = [each for each in self._running if not each.origin.reads_ahead]
        has_chunks = len({each.is_decoding for each in answering}) > 1
        self._may_encode = not (self._has_encoded and has_chunks)
        self._has_encoded = False
        origins = [*self._waiting, *(running.origin for running in self._running)]
        followers = {sibling for origin in origins for sibling in origin.siblings}
        for waiting in list(self._waiting):
            if waiting in followers:
                continue
            if self._is_full and self._lower_than(waiting) is None:
                break
            if waiting.reads_ahead and self._running:
                break
            if not self._encode_images(waiting) or self._waits_for_prompt(waiting):
                continue
            if self._is_full and (last := self._lower_than(waiting)) is not None:
                self._give_up(last)
            if not self._begin(waiting):
                break

    @property
    def _is_full(self) -> bool:
        return len(self._running) >= self._settings.max_running

    def batch(self) -> list[tuple[Running, Rows]]:
        """Choose the step's rows, and make room for them in the KV cache."""
        chosen = self._choose()
        batch: list[tuple[Running, Rows]] = []
        for running, count, drafts in chosen:
            if running in self._running and self._make_room(running, count + len(drafts)):
                batch.append(self._rows(running, count, drafts))
        # A sequence may have been given up after its rows were chosen.
        return [(running, rows) for running, rows in batch if running in self._running]

    def fork(self, running: Running) -> list[Running]:
        """Let a sequence's siblings go on from its prompt, as far as they may run."""
        forks = []
        for sibling in running.origin.siblings:
            if sibling in self._waiting and not self._is_full:
                fork = running.sequence.fork()
                fork.truncate(len(running.positions))
                forks.append(self._run(sibling, running.positions.copy(), fork))
        running.origin.siblings.clear()
        return forks

    def share_prompt(self, running: Running) -> None:
        """Keep the whole pages of a prompt for others; the last one is still written to."""
        whole = len(running.sequence) // self._page_size
        keys = running.sequence.keys[: whole * self._page_size]
        self.prefixes.insert(keys, running.sequence.pages[:whole])

    def end(self, running: Running, reason: FinishReason, error: MvlmError | None = None) -> None:
        """Finish an answer, and take its pages."""
        running.answer.finish(reason, error)
        _hand_over(running.origin)
        self._release(running)

    def _drop(self, waiting: Waiting, reason: FinishReason, error: MvlmError | None = None) -> None:
        """Finish an answer that has no pages."""
        waiting.answer.finish(reason, error)
        _hand_over(waiting)
        self._waiting.remove(waiting)

    def _lower_than(self, waiting: Waiting) -> Running | None:
        """Return the last sequence in order, if one of a higher priority waits."""
        last = max(self._running, key=lambda running: running.origin.order)
        return last if last.origin.order[:2] > waiting.order[:2] else None

    def _encode_images(self, waiting: Waiting) -> bool:
        """Encode a part of a request's images, if it may; returns whether all are encoded."""
        if waiting.positions is not None:
            return True
        request, before = waiting.answer.request, self._images.seconds
        encoded, trace = waiting.images, request.trace
        try:
            while (number := len(encoded)) < len(request.images):
                digest = waiting.digests[number]
                if trace is not None or not self._images.knows(digest):
                    if not self._may_encode:
                        return False
                    self._may_encode, self._has_encoded = False, True
                image = self._images.advance(request.images[number], digest, trace)
                if image is None:
                    return False
                encoded.append(image)
            waiting.positions = Positions(request.ids, encoded)
        except MvlmError as error:
            self._drop(waiting, "error", error)
            return False
        finally:
            waiting.answer.stats.image_seconds += self._images.seconds - before
        return True

    def _waits_for_prompt(self, waiting: Waiting) -> bool:
        """Return whether a prompt that begins alike is being computed; then it is shared.

        A prompt that is read ahead ends here, and leaves what is computed of it.
        """
        assert waiting.positions is not None
        reading = [each for each in self._running if each.left > 1]
        if not reading or waiting.answer.request.wants_prompt:
            return False
        keys = waiting.positions.keys[:-1]
        cached = self.prefixes.match(keys).length
        for running in reading:
            common = common_prefix(keys, running.positions.keys)
            if running.origin.reads_ahead and common > 0:
                self.end(running, "cancelled")
            elif common // self._page_size * self._page_size > cached:
                return True
        return False

    def _begin(self, waiting: Waiting) -> bool:
        """Let a sequence in if its positions fit; returns whether they did."""
        positions = waiting.positions
        assert positions is not None
        sequence = PagedSequence(self.pool, self._page_size, self._cache.copy_page)
        is_whole = waiting.answer.request.wants_prompt
        # The last position's logits are needed, so that it is computed in any case.
        found = self.prefixes.match(() if is_whole else positions.keys[:-1])
        sequence.adopt(positions.keys[: found.length], found.pages)
        needed = sequence.pages_needed(len(positions) - len(sequence))
        # A page to spare for each other sequence, so that none is given up at once.
        while self._running and needed + len(self._running) > self._available_pages:
            if (last := self._lower_than(waiting)) is None:
                sequence.truncate(0)
                return False
            self._give_up(last)
        if not waiting.answer.tokens:
            waiting.answer.stats.computed = len(positions) - len(sequence)
        self._run(waiting, positions, sequence)
        return True

    @property
    def _available_pages(self) -> int:
        return self.pool.free + self.prefixes.evictable

    def _run(self, waiting: Waiting, positions: Positions, sequence: PagedSequence) -> Running:
        """Move a sequence from those that wait to those that are computed."""
        running = Running(
            waiting, positions, sequence, NgramDrafter() if self._planner.most else None
        )
        self._running.append(running)
        self._waiting.remove(waiting)
        self._running.sort(key=lambda each: each.origin.order)
        return running

    def _rows(self, running: Running, count: int, drafts: tuple[int, ...]) -> tuple[Running, Rows]:
        wants_all = running.answer.request.wants_prompt and not running.answer.tokens
        count = min(count, running.left)
        # Drafts follow the last position, which is farther if a shared page was given up.
        drafts = drafts if count == running.left else ()
        sequence = running.sequence
        return running, Rows(running.positions, sequence, len(sequence), count, drafts, wants_all)

    def _choose(self) -> list[tuple[Running, int, tuple[int, ...]]]:
        """Choose sequences, and how many of their positions and which drafts to compute."""
        asked = [each for each in self._running if not each.origin.reads_ahead]
        active = asked or self._running
        decoding = [each for each in active if each.is_decoding]
        is_late = self._has_encoded and bool(decoding)
        reading = [] if is_late else [each for each in active if not each.is_decoding]
        for running in reading:
            if running.answer.request.trace is not None:
                return [(running, min(running.left, self._model.prefill_chunk), ())]
        if not reading:
            return [
                (each, 1, drafts)
                for each, drafts in zip(decoding, self._drafts(decoding), strict=True)
            ]
        chosen: list[tuple[Running, int, tuple[int, ...]]] = [(each, 1, ()) for each in decoding]
        # Whoever waits for a step, waits for a short one: answers that are decoded, and what comes
        # while a prompt is read ahead.
        is_waited_for = decoding or not asked
        room = self._settings.prefill_rows if is_waited_for else self._model.prefill_chunk
        room = max(1, room - len(decoding))
        for running in reading:
            count = min(running.left, room)
            if count > 0:
                chosen.append((running, count, ()))
                room -= count
        return chosen

    def _drafts(self, decoding: Sequence[Running]) -> list[tuple[int, ...]]:
        """Draft tokens for sequences that are decoded, as many as pay."""
        self._planner.begin_step()
        if not self._planner.is_looking:
            return [()] * len(decoding)
        for running in decoding:
            running.guess = self._guess(running)
        drafts = [running.guess for running in decoding]
        if not any(drafts):
            return [()] * len(decoding)
        counts = self._planner.choose(drafts)
        return [
            draft.tokens[:count] if draft is not None else ()
            for draft, count in zip(drafts, counts, strict=True)
        ]

    def _guess(self, running: Running) -> Draft | None:
        """Guess a sequence's next tokens, as many as it may still have.

        What a drafter guesses that is no token ends the guess: the step is computed for others too.
        """
        if running.drafter is None or running.origin.reads_ahead:
            return None
        if running.ends_with_image or (guess := self._propose(running, running.drafter)) is None:
            return None
        room = min(running.tokens_left - 1, self.context - len(running.positions))
        known = range(self._model.vocabulary)
        tokens = tuple(takewhile(known.__contains__, guess.tokens[: max(0, room)]))
        return replace(guess, tokens=tokens) if tokens else None

    def _propose(self, running: Running, drafter: Drafter) -> Draft | None:
        """Guess a sequence's next tokens: what its form forces, or else what occurred before."""
        matcher, most = running.origin.matcher, self._planner.most
        if matcher is not None and (forced := matcher.forced(most)):
            return Draft(forced, FORCED)
        guess = drafter.propose(running.positions.ids, most)
        if guess is None or matcher is None:
            return guess
        return replace(guess, tokens=guess.tokens[: matcher.fitting(guess.tokens)])

    def _make_room(self, running: Running, count: int) -> bool:
        """Reserve pages for a sequence's rows; those last in order give up theirs.

        Returns:
            Whether it has them: it may be the last in order itself.
        """
        while True:
            try:
                running.sequence.reserve(count)
            except PoolFullError:
                last = max(self._running, key=lambda each: each.origin.order)
                if last is not running:
                    self._give_up(last)
                elif len(self._running) > 1:
                    self._give_up(running)
                    return False
                else:
                    self._give_up_shared_page(running)
            else:
                return True

    def _give_up_shared_page(self, running: Running) -> None:
        """Compute the positions of a partly shared page anew, since no page is left for a copy."""
        whole = len(running.sequence) // self._page_size * self._page_size
        assert whole < len(running.sequence), "one sequence does not fit"
        if not running.answer.tokens:
            running.answer.stats.computed += len(running.sequence) - whole
        running.sequence.truncate(whole)

    def _give_up(self, running: Running) -> None:
        """Take a sequence's pages, and let it wait for others."""
        running.answer.stats.preemptions += 1
        if (trace := running.answer.request.trace) is not None and not running.answer.tokens:
            trace.prefill_logits.clear()
        running.origin.positions = running.positions
        self.wait(running.origin)
        self._release(running)

    def _release(self, running: Running) -> None:
        """Take a running sequence's pages; the prefix cache keeps what is computed."""
        self._running.remove(running)
        running.sequence.truncate(len(running.positions))
        self.prefixes.insert(running.sequence.keys, running.sequence.pages)
        running.sequence.truncate(0)


def _hand_over(ended: Waiting) -> None:
    """Let the next of the answers to a prompt compute it, if the first ended before it had."""
    if ended.siblings:
        heir, *ended.siblings = ended.siblings
        heir.siblings, ended.siblings = ended.siblings, []


def _ended(answer: Answer) -> FinishReason | None:
    if answer.is_cancelled:
        return "cancelled"
    return "timeout" if answer.is_overdue else None
