"""Models that are loaded on demand: who waits, who gives way, and what a failure does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest

from mvlm.runtime.engine import EngineSettings
from mvlm.runtime.errors import ArtifactError, CacheMemoryError, ModelMemoryError
from mvlm.runtime.server.app import create_app
from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.models.model_pool import ModelPool
from mvlm.runtime.server.models.served_model import ServedModel
from mvlm.runtime.server.settings import ServerSettings
from tests.artifacts import ArtifactCache
from tests.cli.test_serve import serving
from tests.runtime.server.conftest import listening
from tests.runtime.server.test_hostile_connections import resident_bytes


class Fake:
    """A model, and its engine, that only note what happens to them."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes
        self.engine, self.has_ended = self, False

    async def __aenter__(self) -> Fake:
        self.notes.append(f"+{self.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.notes.append(f"-{self.name}")


def pool(names: Iterable[str], notes: list[str], **options: Any) -> ModelPool:
    def source(name: str) -> Callable[[], Any]:
        return lambda: Fake(name, notes)

    return ModelPool(on_demand={name: source(name) for name in names}, **options)


def run(task: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(task(), 30))


def test_the_one_that_was_used_longest_ago_gives_way() -> None:
    notes: list[str] = []

    async def task() -> None:
        async with pool("abc", notes, most=2) as models:
            for name in "abacab":
                with ExitStack() as held:
                    assert (await models.hold(name, held)).name == name
            assert models.states() == {"a": "loaded", "b": "loaded", "c": "unloaded"}

    run(task)
    assert notes == ["+a", "+b", "-b", "+c", "-c", "+b", "-a", "-b"]


def test_one_that_is_in_use_does_not() -> None:
    notes: list[str] = []

    async def task() -> None:
        async with pool("ab", notes, most=1, patience=20) as models:
            first, again, second = ExitStack(), ExitStack(), ExitStack()
            await models.hold("a", first)
            await models.hold("a", again)
            other = asyncio.create_task(models.hold("b", second))
            for held in (first, again):
                await asyncio.sleep(0.05)
                assert notes == ["+a"] and models.states()["b"] == "loading"
                held.close()
            assert (await other).name == "b"
            assert notes == ["+a", "-a", "+b"]
            second.close()

    run(task)


def test_requests_for_a_model_that_is_being_loaded_share_it() -> None:
    notes: list[str] = []
    go_on = threading.Event()

    def slow() -> Any:
        assert go_on.wait(20)
        return Fake("a", notes)

    async def task() -> None:
        async with ModelPool(on_demand={"a": slow}) as models:
            with ExitStack() as held:
                asked = [asyncio.create_task(models.hold("a", held)) for _ in range(5)]
                await asyncio.sleep(0.02)
                asked.pop().cancel()
                go_on.set()
                assert len({id(found) for found in await asyncio.gather(*asked)}) == 1
        assert notes == ["+a", "-a"]

    run(task)


def test_waiting_has_an_end() -> None:
    notes: list[str] = []

    async def task() -> None:
        async with pool("ab", notes, most=1, patience=0.05) as models:
            first, second = ExitStack(), ExitStack()
            await models.hold("a", first)
            with pytest.raises(ApiError, match=r"'b' was not loaded within 0\.05 s") as caught:
                await models.hold("b", second)
            assert caught.value.status == 503
            assert caught.value.response().headers["retry-after"]
            # Once nobody waits for it any more, it is not loaded either.
            second.close()
            first.close()
            await asyncio.sleep(0.01)
            assert models.states() == {"a": "loaded", "b": "unloaded"} and notes == ["+a"]
            models._patience = 20
            with ExitStack() as held:
                assert (await models.hold("b", held)).name == "b"

    run(task)


@pytest.mark.parametrize("error", [ModelMemoryError("low"), CacheMemoryError("low")], ids=repr)
def test_models_give_way_where_memory_is_short(error: Exception) -> None:
    notes: list[str] = []

    async def task() -> None:
        async with pool("abc", notes) as models:
            for name in "ab":
                with ExitStack() as held:
                    await models.hold(name, held)

            def needs_all() -> Any:
                if "-b" not in notes:
                    raise error
                return Fake("c", notes)

            models._slots["c"].load = needs_all
            with ExitStack() as held:
                await models.hold("c", held)
                assert notes == ["+a", "+b", "-a", "-b", "+c"]
                # With one in use there is too little for another.
                models._slots["a"].load = lambda: (_ for _ in ()).throw(error)
                with pytest.raises(ApiError, match="'a' could not be loaded") as caught:
                    await models.hold("a", held)
                assert caught.value.status == 503

    run(task)


def test_a_model_that_fails_is_not_tried_again_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def broken() -> Any:
        tries.append(1)
        raise ArtifactError("weights are damaged")

    async def task() -> None:
        async with ModelPool(on_demand={"a": broken}) as models:
            with ExitStack() as held:
                for _ in range(3):
                    with pytest.raises(ApiError, match="'a' could not be loaded; the server's log"):
                        await models.hold("a", held)
                assert len(tries) == 1 and "weights are damaged" in caplog.text
                monkeypatch.setattr("mvlm.runtime.server.models.model_pool._RETRY_SECONDS", 0)
                models._slots["a"].load = lambda: Fake("a", [])  # type: ignore[assignment, return-value]
                assert (await models.hold("a", held)).name == "a"

    run(task)


def test_two_models_in_the_place_of_one(artifact_cache: ArtifactCache) -> None:
    def source(name: str) -> Callable[[], ServedModel]:
        artifact = artifact_cache.artifact(name)
        return lambda: ServedModel.load(name, artifact, 2, EngineSettings())

    def broken() -> ServedModel:
        raise ArtifactError("damaged")

    sources = {name: source(name) for name in ("linear", "text")} | {"broken": broken}
    app = create_app(ModelPool(on_demand=sources, most=1), ServerSettings())
    with listening(app) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

        def ask(name: str, stream: bool = False) -> str:
            options: Any = {"temperature": 0, "max_tokens": 20, "stream": stream}
            found: Any = client.completions.create(model=name, prompt="Hello", **options)
            if not stream:
                return str(found.choices[0].text)
            return "".join(each.choices[0].text for each in found)

        assert [each["loaded"] for each in httpx.get(f"{url}/v1/models").json()["data"]] == [
            False
        ] * 3
        alone = {name: ask(name) for name in ("linear", "text")}
        with ThreadPoolExecutor(8) as threads:
            names = ["linear", "text", "text", "linear"] * 2
            found = list(threads.map(ask, names, [False, True] * 4))
        assert found == [alone[name] for name in names]
        with pytest.raises(openai.InternalServerError, match="'broken' could not be loaded"):
            ask("broken")
        assert ask("text") == alone["text"]
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        assert {each["id"]: each["loaded"] for each in listed} == {
            "linear": False,
            "text": True,
            "broken": False,
        }
        assert listed[0]["max_model_len"] is None and listed[1]["max_model_len"] > 0
        assert httpx.get(f"{url}/ready").json()["models"]["text"] == "loaded"
        metrics = httpx.get(f"{url}/metrics").text
        assert 'mvlm_model_loaded{model="linear"} 0.0' in metrics
        assert 'mvlm_requests_running{model="linear"}' not in metrics


@pytest.mark.chat
def test_unloading_frees_memory(artifact_cache: ArtifactCache) -> None:
    """A cache of 200 MB is touched again and again; it is not there twice."""
    first, second = artifact_cache.artifact("linear"), artifact_cache.artifact("text")
    options = ("--load-on-demand", "--max-loaded", "1", "--log-format", "none")
    with serving(f"a={first}", f"b={second}", *options, "--capacity", "400000") as (process, url):
        found = []
        for _ in range(5):
            for name in ("a", "b"):
                for begin in range(0, 60, 20):
                    prompts = [
                        [1, *((seed * 31 + at * seed) % 380 + 3 for at in range(1, 1500))]
                        for seed in range(begin + 1, begin + 21)
                    ]
                    body = {"model": name, "prompt": prompts, "max_tokens": 1}
                    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=300)
                    assert answer.status_code == 200, answer.text
                found.append(resident_bytes(process.pid))
        print([round(each / 1e6) for each in found])
        # The caches of both models together would add half to that.
        assert max(found[2:]) < 1.1 * min(found[2:])
