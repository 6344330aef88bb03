"""Exceptions at any moment of a step, as Ctrl-C raises them: the engine stays usable."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import mvlm.runtime
from mvlm.runtime.engine import Answer, Engine, EngineSettings, Request
from mvlm.runtime.engine.running import Waiting
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID
from tests.forward import logits_of
from tests.runtime.engine.asking import (
    CHUNK,
    Sampled,
    alone,
    ask,
    check_pages,
    finish,
    greedy,
    pixels,
    prompt,
)


class Interrupted(BaseException):
    """Not an Exception, as KeyboardInterrupt."""


@pytest.fixture
def interrupt(chunked: Model, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """Interrupt the n-th call from now of the decoder, before or after it ran."""
    whole = chunked._call

    def arm(number: int, after: bool) -> None:
        calls = 0

        def call(name: str, *arguments: Any) -> Any:
            nonlocal calls
            is_decoder = name in ("prefill", "prefill_all", "decode", "decode_few")
            calls += is_decoder
            if calls == number and is_decoder:
                result = whole(name, *arguments) if after else None
                monkeypatch.setattr(chunked, "_call", whole)
                raise Interrupted(result)
            return whole(name, *arguments)

        monkeypatch.setattr(chunked, "_call", call)

    return arm


@pytest.mark.parametrize("name", ["vision_tower", "vision_tower_2", "projector"])
def test_an_image_whose_encoding_is_interrupted_is_encoded_anew(
    chunked: Model, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ids, whole = [1, IMAGE_TOKEN_ID, 5], chunked._call
    engine, wanted = Engine(chunked), alone(chunked, Request(ids, [pixels()], greedy(5)))

    def call(called: str, *arguments: Any) -> Any:
        if called == name:
            monkeypatch.setattr(chunked, "_call", whole)
            raise Interrupted
        return whole(called, *arguments)

    monkeypatch.setattr(chunked, "_call", call)
    with pytest.raises(Interrupted):
        ask(engine, ids, pixels())
    assert ask(engine, ids, pixels(), tokens=5).tokens == wanted
    check_pages(engine)


def test_no_answer_stays_of_a_request_that_is_interrupted(
    chunked: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(chunked)
    (other,) = engine.submit(Request(prompt(10, 1), params=greedy(3)))
    wait = engine._scheduler.wait

    def interrupted(waiting: Waiting) -> None:
        wait(waiting)
        if waiting.answer.request.params.seed == 1:
            raise Interrupted

    monkeypatch.setattr(engine._scheduler, "wait", interrupted)
    params = SamplingParams(max_tokens=3, seed=0)
    with pytest.raises(Interrupted):
        engine.submit(Request(prompt(10), params=params), 3)
    started = engine._scheduler.unfinished()[1:]
    assert len(started) == 2
    finish(engine)
    assert [answer.finish_reason for answer in started] == ["cancelled"] * 2
    assert other.tokens == alone(chunked, other.request)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_interrupted_prefill(
    chunked: Model,
    interrupt: Callable[[int, bool], None],
    sampled: Sampled,
    number: int,
    after: bool,
) -> None:
    engine, request = Engine(chunked), Request(prompt(30), params=greedy(9))
    expected = alone(chunked, request)
    # Its last position is computed, and its answer is not.
    ask(engine, prompt(9))
    interrupt(number, after)
    (answer,) = engine.submit(request)
    with pytest.raises(Interrupted):
        next(engine.tokens(answer))
    # Another answer shares what is computed so far, and both go on.
    (other,) = engine.submit(Request([*prompt(30), 5], params=greedy()))
    assert list(engine.tokens(answer)) == expected
    assert list(engine.tokens(other)) == [int(logits_of(chunked, [*prompt(30), 5])[-1].argmax())]
    check_pages(engine)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_prompt_that_is_asked_again_goes_on_from_the_last_whole_call(
    chunked: Model,
    interrupt: Callable[[int, bool], None],
    sampled: Sampled,
    number: int,
    after: bool,
) -> None:
    engine, ids = Engine(chunked), prompt(30)
    ask(engine, ids[:9])
    interrupt(number, after)
    (answer,) = engine.submit(Request(ids))
    with pytest.raises(Interrupted):
        next(engine.tokens(answer))
    answer.cancel()
    assert ask(engine, ids).stats.computed == 21 - (number - 1) * CHUNK
    np.testing.assert_array_equal(sampled.last, logits_of(chunked, ids)[-1])
    assert (answer.finish_reason, answer.tokens) == ("cancelled", [])


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("speculate", ["off", "ngram"])
def test_an_interrupted_decode(
    chunked: Model, interrupt: Callable[[int, bool], None], speculate: Any, after: bool
) -> None:
    requests = [Request(prompt(10, seed) * 2, params=greedy(12)) for seed in (1, 2)]
    engine = Engine(chunked, EngineSettings(capacity=512, speculate=speculate))
    answers = [engine.submit(each)[0] for each in requests]
    while not all(len(each.tokens) > 2 for each in answers):
        engine.step()
    interrupt(1, after)
    before = [list(each.tokens) for each in answers]
    with pytest.raises(Interrupted):
        engine.step()
    assert [each.tokens for each in answers] == before
    finish(engine)
    assert [each.tokens for each in answers] == [alone(chunked, each) for each in requests]


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Raise Interrupted in the main thread after some seconds, wherever it is."""

    def interrupted(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupted)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_interruptions_at_any_time(chunked: Model, alarm: Callable[[float], None]) -> None:
    """As Ctrl-C does: between any two steps of the interpreter, and right after compiled calls."""
    ids, others = prompt(40, seed=1), prompt(40, seed=2)
    expected = [alone(chunked, Request(ids[:count], params=greedy(4))) for count in range(1, 41)]
    engine, random = Engine(chunked), np.random.default_rng(0)
    begin = time.perf_counter()
    ask(engine, others, tokens=10)
    usual = time.perf_counter() - begin
    hits = 0
    for _ in range(100):
        answer = None
        try:
            alarm(float(random.uniform(1e-5, 1.5 * usual)))
            (answer,) = engine.submit(Request(others[: random.integers(1, 30)], params=greedy(10)))
            for _ in engine.tokens(answer):
                pass
            alarm(0)
        except Interrupted:
            hits += 1
        if answer is not None:
            answer.cancel()
        count = int(random.integers(1, 41))
        assert ask(engine, ids[:count], tokens=4).tokens == expected[count - 1]
    finish(engine)
    assert hits > 10


class AtLine:
    """Raises Interrupted before the n-th line of ours that is run within its block."""

    FOLDER = str(Path(mvlm.runtime.__file__).parent)

    def __init__(self, number: int) -> None:
        self._left = number
        self._before = sys.gettrace()

    def __enter__(self) -> None:
        sys.settrace(self._called)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        is_ours = frame.f_code.co_filename.startswith(self.FOLDER)
        return self._stepped if is_ours else None

    def _stepped(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self._left -= 1
            if self._left == 0:
                sys.settrace(self._before)
                raise Interrupted
        return self._stepped


REPEATED = Request(prompt(20, 2) * 2, params=greedy(6))
SHARED = Request(prompt(40, 2), params=greedy(6))
EARLIER = Request(prompt(40, 1), params=greedy(6))


def interrupted_at(model: Model, number: int, expected: dict[tuple[int, ...], list[int]]) -> bool:
    """Interrupt a line while some answers are computed; returns whether there were so many lines.

    The answers go on, or end with an error; those that are asked for later know nothing of it.
    """
    settings = EngineSettings(speculate="ngram", prefill_rows=16)
    engine, answers = Engine(model, settings), list[Answer]()
    ask(engine, EARLIER.ids, tokens=6)
    is_interrupted = False
    try:
        with AtLine(number):
            answers += engine.submit(REPEATED, 2)
            answers += engine.submit(SHARED)
            while not engine.is_idle:
                engine.step()
    except Interrupted:
        is_interrupted = True
    finish(engine)
    for answer in answers:
        whole = expected[tuple(answer.request.ids)]
        assert answer.is_finished
        if answer.error is None:
            assert (answer.finish_reason, answer.tokens) == ("length", whole)
        else:
            assert is_interrupted and str(answer.error).startswith("the answer was interrupted")
            assert answer.tokens == whole[: len(answer.tokens)]
    assert ask(engine, EARLIER.ids, tokens=6).tokens == expected[tuple(EARLIER.ids)]
    finish(engine)
    return is_interrupted


@pytest.mark.parametrize("every", [97, pytest.param(3, marks=pytest.mark.extended)])
def test_interruptions_at_every_line(chunked: Model, every: int) -> None:
    """Or rather at one of so many: pages change hands between any two of them."""
    expected = {tuple(each.ids): alone(chunked, each) for each in (REPEATED, SHARED, EARLIER)}
    number = 1
    while interrupted_at(chunked, number, expected):
        number += every
    assert number > 4000
