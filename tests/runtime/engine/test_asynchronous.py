"""The engine in a thread of its own: answers arrive in the event loop, and its end is clean."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from mvlm.runtime.engine import Engine, EngineSettings, Request
from mvlm.runtime.engine.asynchronous import AsyncAnswer, AsyncEngine, EngineStoppedError
from mvlm.runtime.errors import ContextError, PromptError
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from tests.artifacts import ArtifactCache

NAME = "mvlm-engine"


@pytest.fixture(scope="module")
def model(artifact_cache: ArtifactCache) -> Model:
    return Model(artifact_cache.artifact("linear"))


def request(number: int, tokens: int = 12) -> Request:
    ids = np.random.default_rng(number).integers(3, 384, 5 + number).tolist()
    params = SamplingParams(temperature=0.8 * (number % 2), seed=number, max_tokens=tokens)
    return Request([1, *ids], params=params)


def alone(model: Model, wanted: Request) -> list[int]:
    engine = Engine(model, EngineSettings(speculate="off"))
    (answer,) = engine.submit(wanted)
    return list(engine.tokens(answer))


async def all_tokens(answer: AsyncAnswer) -> list[int]:
    return [token async for token in answer]


def run(model: Model, task: Callable[[AsyncEngine], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        async with AsyncEngine(model) as engine:
            return await asyncio.wait_for(task(engine), 60)

    found = asyncio.run(main())
    assert NAME not in {thread.name for thread in threading.enumerate()}
    return found


def test_answers_asked_for_at_once_are_those_they_are_alone(model: Model) -> None:
    async def task(engine: AsyncEngine) -> list[list[int]]:
        async def one(number: int) -> list[int]:
            (answer,) = await engine.submit(request(number))
            return await all_tokens(answer)

        return await asyncio.gather(*map(one, range(12)))

    assert run(model, task) == [alone(model, request(number)) for number in range(12)]


def test_answers_to_one_prompt_have_seeds_in_a_row(model: Model) -> None:
    async def task(engine: AsyncEngine) -> list[list[int]]:
        answers = await engine.submit(request(1), answers=3)
        return [await all_tokens(answer) for answer in answers]

    base = request(1)
    expected = []
    for seed in (1, 2, 3):
        params = SamplingParams(temperature=0.8, seed=seed, max_tokens=12)
        expected.append(alone(model, Request(base.ids, params=params)))
    assert run(model, task) == expected


def test_an_answer_that_is_left_is_cancelled_and_others_go_on(model: Model) -> None:
    async def task(engine: AsyncEngine) -> tuple[list[int], list[int], str | None]:
        (left,) = await engine.submit(request(2, tokens=60))
        (other,) = await engine.submit(request(3))
        tokens = []
        iteration = left.__aiter__()
        async for token in iteration:
            tokens.append(token)
            if len(tokens) == 3:
                break
        await iteration.aclose()  # type: ignore[attr-defined]
        rest = await all_tokens(other)
        while left.finish_reason is None:
            await asyncio.sleep(0.001)
        return tokens, rest, left.finish_reason

    tokens, rest, reason = run(model, task)
    assert tokens == alone(model, request(2, tokens=60))[:3]
    assert rest == alone(model, request(3)) and reason == "cancelled"


def test_a_cancelled_task_cancels_its_answer(model: Model) -> None:
    async def task(engine: AsyncEngine) -> str | None:
        (answer,) = await engine.submit(request(2, tokens=100))
        waiting = asyncio.create_task(all_tokens(answer))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while answer.finish_reason is None:
            await asyncio.sleep(0.001)
        return answer.finish_reason

    assert run(model, task) in ("cancelled", "length")


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_request_whose_sender_has_gone_ends(
    model: Model, monkeypatch: pytest.MonkeyPatch, is_begun: bool
) -> None:
    """It may go before the engine's thread takes the request, or while it does."""

    async def task(engine: AsyncEngine) -> list[int]:
        held, reached = threading.Event(), threading.Event()
        submit = engine._engine.submit

        def slow(*arguments: Any) -> Any:
            reached.set()
            assert held.wait(20)
            return submit(*arguments)

        monkeypatch.setattr(engine._engine, "submit", slow)
        first = asyncio.create_task(engine.submit(request(2, tokens=1000)))
        second = asyncio.create_task(engine.submit(request(2, tokens=1000)))
        await asyncio.to_thread(reached.wait, 20)
        gone = first if is_begun else second
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        held.set()
        monkeypatch.undo()
        (left,) = await (second if is_begun else first)
        left.cancel()
        while not engine._engine.is_idle:
            await asyncio.sleep(0.001)
        (answer,) = await engine.submit(request(3))
        return await all_tokens(answer)

    assert run(model, task) == alone(model, request(3))


def test_bad_requests_fail_where_they_are_made(model: Model) -> None:
    async def task(engine: AsyncEngine) -> None:
        with pytest.raises(PromptError, match="the prompt"):
            await engine.submit(Request([]))
        with pytest.raises(ContextError, match="does not fit"):
            await engine.submit(Request([1] * (model.settings.context + 1)))
        bad = np.zeros((1, 3, 2, 2), np.float32)
        (answer,) = await engine.submit(Request([1, -200, 4], [bad]))
        with pytest.raises(PromptError, match="pixels"):
            await all_tokens(answer)

    run(model, task)


def test_a_closed_engine_says_so(model: Model) -> None:
    async def main() -> None:
        engine = AsyncEngine(model)
        async with engine:
            (answer,) = await engine.submit(request(2, tokens=100))
        with pytest.raises(EngineStoppedError, match="closed"):
            await all_tokens(answer)
        with pytest.raises(EngineStoppedError):
            await engine.submit(request(2))

    asyncio.run(main())


def test_a_fault_of_the_engine_ends_all_answers(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Engine) -> bool:
        raise ValueError("a fault")

    monkeypatch.setattr(Engine, "step", fail)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)

    async def main() -> None:
        async with AsyncEngine(model) as engine:
            (answer,) = await engine.submit(request(2))
            with pytest.raises(EngineStoppedError, match="a fault"):
                await all_tokens(answer)
            with pytest.raises(EngineStoppedError):
                await engine.submit(request(2))

    asyncio.run(main())


def test_a_prompt_that_was_read_ahead_is_not_computed_again(model: Model) -> None:
    async def counted(engine: AsyncEngine) -> tuple[int, list[int]]:
        wanted = request(9)
        ahead = await engine.read_ahead(Request(wanted.ids[:-2]))
        while not ahead.is_finished:
            await asyncio.sleep(0.001)
        (answer,) = await engine.submit(wanted)
        tokens = await all_tokens(answer)
        return answer.stats.computed, tokens

    computed, tokens = run(model, counted)
    assert computed == 2
    assert tokens == alone(model, request(9))
