"""`generate` and `agenerate`: answers are the chat's, whichever way an image is given."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image

from mvlm.runtime import (
    AsyncEngine,
    Chat,
    Completion,
    Constraint,
    Engine,
    EngineSettings,
    Model,
    SamplingParams,
    agenerate,
    generate,
)
from mvlm.runtime.errors import ImageError, PromptError, UsageError
from mvlm.runtime.image import load_image, preprocess
from mvlm.runtime.processor import Processor
from mvlm.runtime.structured_output.token_matcher import ConstraintError
from tests.artifacts import ArtifactCache

QUESTION = "What is this?"
PARAMS = SamplingParams(max_tokens=12, temperature=0.8, seed=3)
T = TypeVar("T")


@pytest.fixture(scope="module")
def model(artifact_cache: ArtifactCache) -> Model:
    return Model(artifact_cache.artifact("linear"))


@pytest.fixture(scope="module")
def photo() -> bytes:
    file = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def expected(model: Model, photo: bytes) -> Completion:
    """The chat's answer."""
    assert model.settings.image is not None
    pixels = preprocess(load_image(photo), model.settings.image)
    return Chat(model).generate(QUESTION, [pixels], PARAMS).completion


def run(work: Awaitable[T]) -> T:
    async def waited() -> T:
        return await asyncio.wait_for(work, 60)

    return asyncio.run(waited())


def check(found: Completion, expected: Completion) -> None:
    assert found.text == expected.text and found.token_ids == expected.token_ids
    assert found.finish_reason == expected.finish_reason and found.usage == expected.usage


def test_an_answer_is_the_chats(
    model: Model, photo: bytes, expected: Completion, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(photo)
    assert model.settings.image is not None
    pixels = preprocess(load_image(photo), model.settings.image)
    engine = Engine(model)
    for image in (path, str(path), photo, pixels):
        generation = generate(engine, QUESTION, [image], PARAMS)
        assert "".join(generation) == expected.text
        check(generation.completion, expected)


def test_many_at_once_are_those_alone(model: Model, photo: bytes, expected: Completion) -> None:
    async def ask() -> None:
        async with AsyncEngine(model, EngineSettings(capacity=8192)) as engine:
            asked = [agenerate(engine, QUESTION, [photo], PARAMS) for _ in range(6)]
            asked += [agenerate(engine, f"{n}?", params=PARAMS) for n in range(6)]
            found = await asyncio.gather(*(each.completion() for each in asked))
        for each in found[:6]:
            check(each, expected)
        texts = {each.text for each in found[6:]}
        assert len(texts) > 1
        alone = [generate(Engine(model), f"{n}?", params=PARAMS).completion for n in range(6)]
        assert [each.text for each in alone] == [each.text for each in found[6:]]

    run(ask())


def test_a_form(model: Model) -> None:
    form = Constraint.choice(["red", "green"])

    async def ask() -> Completion:
        async with AsyncEngine(model) as engine:
            return await agenerate(engine, QUESTION, constraint=form).completion()

    found = run(ask())
    alone = generate(Engine(model), QUESTION, constraint=form).completion
    assert found.text == alone.text in ("red", "green")
    assert found.finish_reason == alone.finish_reason == "stop"


def test_a_cancelled_answer(model: Model) -> None:
    long = SamplingParams(max_tokens=500)

    async def ask() -> None:
        async with AsyncEngine(model) as engine:
            generation = agenerate(engine, QUESTION, params=long)
            async for _ in generation:
                generation.cancel()
            found = await generation.completion()
            assert found.finish_reason == "cancelled"
            assert 0 < found.usage.completion_tokens < 500
            never = agenerate(engine, QUESTION, params=long)
            never.cancel()
            assert (await never.completion()).finish_reason == "cancelled"

    run(ask())


def test_leaving_an_answer_cancels_it(model: Model) -> None:
    async def ask() -> None:
        async with AsyncEngine(model) as engine:
            generation = agenerate(engine, QUESTION, params=SamplingParams(max_tokens=500))
            parts = aiter(generation)
            await anext(parts)
            await parts.aclose()
            with pytest.raises(PromptError, match="interrupted"):
                await generation.completion()
            # The engine has nothing else to do, and goes on with the next one at once.
            assert (await agenerate(engine, QUESTION, params=PARAMS).completion()).text

    run(ask())


def test_what_is_wrong_is_told(model: Model, artifact_cache: ArtifactCache) -> None:
    engine = Engine(model)
    with pytest.raises(PromptError, match="empty"):
        generate(engine, " ")
    with pytest.raises(ImageError):
        generate(engine, QUESTION, [b"no image"])
    with pytest.raises(ConstraintError, match="invalid regex"):
        generate(engine, QUESTION, constraint=Constraint.regex("("))
    with pytest.raises(UsageError, match="template"):
        Processor(model, "unknown")
    text = Engine(Model(artifact_cache.artifact("text")))
    with pytest.raises(PromptError, match="reads text only"):
        generate(text, QUESTION, [b""])

    async def ask() -> None:
        async with AsyncEngine(model) as engine:
            with pytest.raises(ImageError):
                await agenerate(engine, QUESTION, [b"no image"]).completion()
            with pytest.raises(PromptError, match="empty"):
                await agenerate(engine, "").completion()

    run(ask())


def test_unknown_names_are_none() -> None:
    import mvlm.runtime

    with pytest.raises(AttributeError, match="has no attribute 'Wisdom'"):
        mvlm.runtime.Wisdom  # noqa: B018
    for name in mvlm.runtime.__all__:
        assert getattr(mvlm.runtime, name).__doc__
