"""Random requests at once, in engines of all kinds: answers are those they are alone, to the bit.

Time is a random walk of the test's own, so that a mix is the same each time: it decides what times
out and which numbers of drafts seem to pay.
"""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from mvlm.runtime.artifact.layout import TOKENIZER
from mvlm.runtime.engine import Answer, Engine, EngineSettings, Request, Trace
from mvlm.runtime.engine.positions import ImageEmbedding, Positions
from mvlm.runtime.engine.prefix_cache import _Block
from mvlm.runtime.engine.running import Running, Waiting
from mvlm.runtime.engine.sequence import PagedSequence
from mvlm.runtime.engine.speculation import Draft, NgramDrafter
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import Sampler, SamplingParams
from mvlm.runtime.structured_output import Constraint, ConstraintCompiler
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID, Tokenizer
from tests.runtime.engine.asking import (
    CONTEXT,
    IMAGE_TOKENS,
    MOST_STEPS,
    PAGE,
    VOCABULARY,
    Floats,
    check_pages,
    pixels,
    prompt,
)

# Mixes draw from so many requests, so that each is computed alone but once.
REQUESTS = 60
IMAGES = [pixels(seed) for seed in range(3)]
# What several prompts begin with, and what they repeat.
COMMON = prompt(110, seed=7)
IMAGE_PLACE = 20
PHRASE = [5, 6, 7, 8, 9, 10]
# Some answers have one of these forms: of one token and of many, with and without a choice.
FORMS = [
    Constraint.choice(["red", "reddish", "green"]),
    Constraint.regex("([a-f]{1,8} ){2,40}end"),
    Constraint.json_schema(
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 9},
                "kind": {"enum": ["person", "animal"]},
                "ages": {"type": "array", "items": {"type": "integer"}, "maxItems": 4},
            },
            "required": ["name", "kind", "ages"],
            "additionalProperties": False,
        }
    ),
]


@dataclass(frozen=True)
class Alone:
    """An answer by itself: its tokens, and the logits that each was chosen from."""

    tokens: list[int]
    rows: list[bytes]


class Noted:
    """The logits that each sampler chose from, as bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[Sampler, list[bytes]] = {}
        sample = Sampler.sample

        def noted(sampler: Sampler, logits: Floats, *tokens: Any) -> int:
            self.rows.setdefault(sampler, []).append(logits.tobytes())
            return sample(sampler, logits, *tokens)

        monkeypatch.setattr(Sampler, "sample", noted)


def random_request(number: int, context: int) -> Request:
    """Text or images, a beginning that others have as well, greedy or not, short or to the end."""
    draw = random.Random(number)
    ids = [1, *(draw.randrange(3, VOCABULARY) for _ in range(draw.choice([0, 1, 5, 30, 80])))]
    if draw.random() < 0.5:
        ids = COMMON[: draw.randrange(1, len(COMMON))] + ids[1 : draw.randrange(1, 20)]
    if draw.random() < 0.4:
        ids += PHRASE * draw.randrange(1, 4)
    images = []
    for _ in range(draw.choice([0, 0, 1, 2])):
        # Half of them where other prompts have another image.
        place = draw.choice([IMAGE_PLACE, draw.randrange(1, len(ids) + 1)])
        ids.insert(place, IMAGE_TOKEN_ID)
        images.append(draw.choice(IMAGES))
    while len(ids) + len(images) * (IMAGE_TOKENS - 1) > context:
        if ids.pop() == IMAGE_TOKEN_ID:
            images.pop()
    is_greedy = draw.random() < 0.5
    params = SamplingParams(
        temperature=0 if is_greedy else 0.9,
        top_k=draw.choice([0, 20]),
        repetition_penalty=draw.choice([1.0, 1.0, 1.2]),
        seed=number,
        max_tokens=draw.choice([1, 3, 12, 40, 200]),
    )
    eos = draw.sample(range(VOCABULARY), draw.choice([0, 0, 8]))
    return Request(ids, images, params, frozenset(eos), priority=draw.choice([0, 0, 0, 1]))


@dataclass
class Answers:
    """What requests are answered alone, in fresh engines without drafts."""

    model: Model
    context: int
    noted: Noted
    known: dict[tuple[int, int], Alone] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chat = self.model.settings
        tokenizer = Tokenizer(self.model.folder / TOKENIZER, legacy=chat.legacy_tokenizer)
        self.compiler = ConstraintCompiler(tokenizer, chat.vocabulary, chat.eos)

    def request(self, number: int) -> Request:
        """A random request, one in three with a form."""
        request = random_request(number, self.context)
        if number % 3:
            return request
        form = FORMS[number // 3 % len(FORMS)]
        return replace(request, matcher=self.compiler.compile(form))

    def of(self, number: int, sibling: int = 0) -> Alone:
        """An answer of a request."""
        key = number, sibling
        if key not in self.known:
            request = self.request(number)
            params = replace(request.params, seed=number + sibling)
            engine = Engine(self.model, EngineSettings(context=self.context, speculate="off"))
            (answer,) = engine.submit(replace(request, params=params))
            sampler = engine._scheduler._waiting[0].sampler
            tokens = list(engine.tokens(answer))
            self.known[key] = Alone(tokens, self.noted.rows.pop(sampler))
        return self.known[key]


class HalfAnOracle(NgramDrafter):
    """Guesses what was answered before to such a prompt, and errs now and then."""

    answers: Answers
    draw: random.Random

    def propose(self, ids: Sequence[int], most: int) -> Draft | None:
        for (number, _), found in self.answers.known.items():
            whole = [*random_ids(number, self.answers.context), *found.tokens]
            if whole[: len(ids)] == ids and len(whole) > len(ids):
                tokens = whole[len(ids) : len(ids) + most]
                if self.draw.random() < 0.4:
                    tokens[self.draw.randrange(len(tokens))] = self.draw.randrange(VOCABULARY)
                return Draft(tuple(tokens), 4)
        return super().propose(ids, most)


_ids: dict[tuple[int, int], Sequence[int]] = {}


def random_ids(number: int, context: int) -> Sequence[int]:
    """The prompt of a request."""
    if (number, context) not in _ids:
        _ids[number, context] = random_request(number, context).ids
    return _ids[number, context]


def random_settings(draw: random.Random, context: int) -> EngineSettings:
    """Small pools, few sequences, few rows, few images: whatever makes sequences wait."""
    return EngineSettings(
        context=context,
        capacity=context + PAGE * draw.choice([0, 0, 1, 2, 4, 30]),
        image_bytes=IMAGE_TOKENS * 256 * 4 * draw.choice([1, 2, 100]),
        max_running=draw.choice([1, 2, 3, 16, 16]),
        prefill_rows=draw.choice([16, 24, 64]),
        speculate=draw.choice(["off", "ngram", "auto"]),
    )


@dataclass
class Asked:
    """An answer of a mix, and what it is alone."""

    answer: Answer
    sampler: Sampler
    alone: Alone

    def check(self, noted: Noted) -> None:
        """The answer is what it is alone, or its beginning; by the same logits."""
        answer, rows = self.answer, noted.rows.get(self.sampler, [])
        assert answer.error is None
        if answer.finish_reason in ("cancelled", "timeout"):
            assert answer.tokens == self.alone.tokens[: len(answer.tokens)]
        else:
            assert answer.finish_reason in ("stop", "length")
            assert answer.tokens == self.alone.tokens
        assert rows == self.alone.rows[: len(rows)] and len(rows) == len(answer.tokens)
        stats = answer.stats
        assert 0 <= stats.computed <= stats.prompt and stats.accepted <= stats.drafted
        if not stats.preemptions and answer.request.trace is None:
            assert len(answer.tokens) <= stats.steps + stats.accepted


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let time go by at random, from a seed on."""

    def begin(seed: int) -> None:
        draw, now = random.Random(seed), 0.0

        def seconds() -> float:
            nonlocal now
            now += draw.expovariate(1.0)
            return now

        monkeypatch.setattr(time, "perf_counter", seconds)

    return begin


def random_mix(answers: Answers, seed: int) -> Counter[str]:
    """Ask for some answers, one after the other and at once, and compare all of them.

    Returns:
        What came up.
    """
    draw = random.Random(seed)
    HalfAnOracle.draw = draw
    settings = random_settings(draw, answers.context)
    engine, asked = Engine(answers.model, settings), list[Asked]()
    left, seen, ahead = draw.randrange(2, 12), Counter[str](), list[Answer]()
    for _ in range(MOST_STEPS):
        if left and (engine.is_idle or draw.random() < 0.2):
            left -= 1
            asked += ask_for(engine, answers, draw)
        if draw.random() < 0.02:
            number = draw.randrange(REQUESTS)
            ahead.append(engine.read_ahead(random_request(number, answers.context)))
        if asked and draw.random() < 0.01:
            draw.choice(asked).answer.cancel()
        if not left and engine.is_idle:
            break
        engine.step()
    check_pages(engine)
    for each in asked:
        each.check(answers.noted)
        answers.noted.rows.pop(each.sampler, None)
        stats = each.answer.stats
        seen[each.answer.finish_reason or ""] += 1
        seen["preempted"] += stats.preemptions
        seen["drafted"] += stats.drafted
        seen["accepted"] += stats.accepted
        seen["shared"] += stats.prompt - stats.computed if each.answer.tokens else 0
    assert all(each.finish_reason in ("length", "cancelled") for each in ahead)
    seen["read ahead"] += sum(each.finish_reason == "length" for each in ahead)
    engine.clear()
    assert engine.pool.free == engine.pool.size
    return seen


def ask_for(engine: Engine, answers: Answers, draw: random.Random) -> Iterator[Asked]:
    """Submit a request; some have several answers, little time, or a trace."""
    number, count = draw.randrange(REQUESTS), draw.choice([1, 1, 1, 3])
    alone = [answers.of(number, sibling) for sibling in range(count)]
    request = answers.request(number)
    if draw.random() < 0.15:
        request = replace(request, timeout=draw.expovariate(1 / 300))
    if draw.random() < 0.05:
        request = replace(request, trace=Trace())
    found = engine.submit(request, count)
    samplers = {id(each.answer): each.sampler for each in engine._scheduler._waiting}
    for answer, expected in zip(found, alone, strict=True):
        answer.stats.submitted = time.perf_counter()  # by the test's clock
        yield Asked(answer, samplers[id(answer)], expected)


def check_mixes(answers: Answers, seeds: Iterable[int], clock: Callable[[int], None]) -> None:
    seen = Counter[str]()
    for seed in seeds:
        clock(seed)
        print("mix", seed)  # for whoever reads of a failure
        seen += random_mix(answers, seed)
    kinds = "length", "stop", "cancelled", "timeout", "preempted", "drafted", "accepted", "shared"
    assert all(seen[kind] > 0 for kind in (*kinds, "read ahead")), seen


MIXES = [
    pytest.param(range(16), id="some"),
    pytest.param(range(16, 216), id="200", marks=pytest.mark.extended),
]


@pytest.mark.parametrize("seeds", MIXES)
def test_answers_of_a_mix_are_those_alone(
    model: Model, monkeypatch: pytest.MonkeyPatch, clock: Callable[[int], None], seeds: range
) -> None:
    check_mixes(Answers(model, 4 * PAGE, Noted(monkeypatch)), seeds, clock)


@pytest.mark.parametrize("seeds", MIXES)
def test_answers_with_drafts_that_are_often_right(
    model: Model, monkeypatch: pytest.MonkeyPatch, clock: Callable[[int], None], seeds: range
) -> None:
    answers = Answers(model, 4 * PAGE, Noted(monkeypatch))
    monkeypatch.setattr("mvlm.runtime.engine.scheduler.NgramDrafter", HalfAnOracle)
    monkeypatch.setattr(HalfAnOracle, "answers", answers, raising=False)
    check_mixes(answers, seeds, clock)


@pytest.mark.parametrize("seeds", MIXES)
def test_answers_of_a_model_of_small_chunks(
    chunked: Model, monkeypatch: pytest.MonkeyPatch, clock: Callable[[int], None], seeds: range
) -> None:
    """Whose context ends within a page."""
    check_mixes(Answers(chunked, CONTEXT, Noted(monkeypatch)), seeds, clock)


# --- memory -------------------------------------------------------------------------------------

OURS = (Running, Waiting, PagedSequence, Positions, Answer, Sampler, NgramDrafter)


def living() -> Counter[type]:
    """How many objects of the engine's classes there are, and of all."""
    gc.collect()
    found: Counter[type] = Counter(map(type, gc.get_objects()))
    found[object] = found.total()
    return found


def test_memory_stays_flat_over_a_thousand_requests(
    model: Model, clock: Callable[[int], None]
) -> None:
    """Of which many are cancelled or have too little time, at any moment."""
    clock(0)
    draw, numbers = random.Random(0), np.random.default_rng(0)
    size = IMAGE_TOKENS * 256 * 4
    settings = EngineSettings(context=3 * PAGE, capacity=6 * PAGE, image_bytes=3 * size)
    engine, reasons, before = Engine(model, settings), Counter[str](), Counter[type]()
    outside = living()

    for round_ in range(10):
        answers: list[Answer] = []
        for _ in range(100):
            ids = [*COMMON[: draw.randrange(1, 90)], *numbers.integers(3, 384, 9).tolist()]
            images = [pixels(draw.randrange(50))] if draw.random() < 0.2 else []
            ids += [IMAGE_TOKEN_ID] * len(images)
            params = SamplingParams(max_tokens=draw.randrange(1, 12))
            timeout = draw.expovariate(1 / 100) if draw.random() < 0.3 else None
            request = Request(ids, images, params, timeout=timeout)
            found = engine.submit(request, draw.choice([1, 1, 1, 2]))
            for answer in found:
                answer.stats.submitted = time.perf_counter()  # by the test's clock
            answers += found
            if draw.random() < 0.1:
                engine.read_ahead(replace(request, timeout=None))
            while draw.random() < 0.6:
                engine.step()
            if draw.random() < 0.3:
                draw.choice(answers).cancel()
        while not engine.is_idle:
            engine.step()
        check_pages(engine)
        assert all(answer.error is None for answer in answers)
        reasons.update(answer.finish_reason or "" for answer in answers)
        answers.clear()
        del found, answer, request
        now = living() - outside
        assert not any(now[kind] for kind in OURS), now
        assert now[_Block] <= engine.pool.size + 1 and now[ImageEmbedding] <= 3
        assert len(engine.cache._arguments) <= 32
        if round_ == 4:
            before = now
        elif round_ > 4:
            # All objects together: a block of the cache has a few.
            assert now[object] - before[object] < 20 * engine.pool.size
    assert sum(reasons.values()) > 1000
    assert all(reasons[reason] > 50 for reason in ("length", "cancelled", "timeout")), reasons
    engine.clear()
    assert engine.pool.free == engine.pool.size
