"""``/v1/completions``: texts and ids that go on, with the probabilities that evaluation needs."""

from __future__ import annotations

import time
from typing import Any

import httpx
import numpy as np
import pytest

from mvlm.runtime.engine import Engine, EngineSettings, Request
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams, log_probabilities
from mvlm.runtime.text_stream import TextStream
from mvlm.runtime.tokenizer import Tokenizer
from tests.runtime.server.conftest import NAME, Running, Serve

TEXT = "A red circle and"


@pytest.fixture(scope="module")
def model(server: Running) -> Model:
    return Model(server.served.model.folder, 2)


def ask(server: Running, prompt: Any = TEXT, **options: Any) -> Any:
    options = {"temperature": 0, "max_tokens": 10} | options
    return server.openai().completions.create(model=NAME, prompt=prompt, **options)


def continued(model: Model, tokenizer: Tokenizer, ids: list[int], tokens: int = 10) -> str:
    engine = Engine(model, EngineSettings(speculate="off"))
    eos = frozenset(model.settings.eos)
    (answer,) = engine.submit(Request(ids, params=SamplingParams(max_tokens=tokens), eos=eos))
    stream = TextStream(tokenizer, verbatim=True)
    return "".join(map(stream.push, engine.tokens(answer))) + stream.finish()


def test_a_text_goes_on(server: Running, model: Model) -> None:
    tokenizer = server.served.tokenizer
    ids = tokenizer.encode(TEXT, bos=True)
    wanted = continued(model, tokenizer, ids)
    found = ask(server)
    assert found.object == "text_completion"
    assert found.choices[0].text == wanted
    assert found.usage.prompt_tokens == len(ids)
    assert ask(server, ids).choices[0].text == wanted
    assert "".join(chunk.choices[0].text for chunk in ask(server, stream=True)) == wanted


def test_several_prompts(server: Running, model: Model) -> None:
    tokenizer = server.served.tokenizer
    prompts = [tokenizer.encode(text, bos=True) for text in ("One", "Two", "Three")]
    wanted = [continued(model, tokenizer, ids) for ids in prompts for _ in range(2)]
    for given in (prompts, ["One", "Two", "Three"]):
        found = ask(server, given, n=2)
        assert [choice.index for choice in found.choices] == list(range(6))
        assert [choice.text for choice in found.choices] == wanted
        assert found.usage.prompt_tokens == sum(map(len, prompts))


@pytest.mark.parametrize("stream", [False, True])
def test_the_prompt_with_its_probabilities(server: Running, model: Model, stream: bool) -> None:
    """As evaluation asks for it: the prompt's own probabilities, and whether each was the best."""
    tokenizer = server.served.tokenizer
    ids = tokenizer.encode(TEXT, bos=True)
    logits = Engine(model).logits(ids)
    options = {"echo": True, "max_tokens": 1, "logprobs": 2}
    if stream:
        parts = [part.choices[0] for part in ask(server, ids, stream=True, **options)]
        told: dict[str, list[Any]] = {}
        for part in parts:
            for key, values in dict(part.logprobs or {}).items():
                told.setdefault(key, []).extend(values or [])
        text = "".join(part.text for part in parts)
    else:
        choice = ask(server, ids, **options).choices[0]
        told, text = dict(choice.logprobs), choice.text
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(ids) + 1
    assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
    for at, (token, before) in enumerate(zip(ids[1:], logits, strict=False), 1):
        expected = log_probabilities(before)
        assert told["token_logprobs"][at] == pytest.approx(expected[token], abs=1e-9)
        best = max(told["top_logprobs"][at].values())
        assert best == pytest.approx(expected.max(), abs=1e-9)
        assert told["tokens"][at] == tokenizer.token_bytes(token).decode("utf-8", "replace")
    assert told["token_logprobs"][-1] == pytest.approx(log_probabilities(logits[-1]).max())
    lengths = np.cumsum([0, *map(len, told["tokens"])])
    assert told["text_offset"] == lengths[:-1].tolist()
    assert text.startswith(TEXT)


def test_probabilities_without_the_prompt(server: Running) -> None:
    logprobs = ask(server, logprobs=0).choices[0].logprobs
    assert len(logprobs.token_logprobs) == 10 and logprobs.top_logprobs is None
    assert ask(server).choices[0].logprobs is None


def test_tokens_of_a_text(server: Running) -> None:
    ids = server.served.tokenizer.encode(TEXT, bos=True)
    found = server.post("/tokenize", json={"model": NAME, "prompt": TEXT}).json()
    assert found == {"count": len(ids), "max_model_len": 2048, "tokens": ids}
    body = {"model": NAME, "prompt": TEXT, "add_special_tokens": False}
    assert server.post("/tokenize", json=body).json()["tokens"] == ids[1:]
    body = {"model": NAME, "tokens": [*ids, 10**9]}
    assert server.post("/detokenize", json=body).json() == {"prompt": TEXT}


def test_tokens_without_a_models_name(server: Running) -> None:
    """As evaluation harnesses ask, where one model alone is served."""
    tokenizer = server.served.tokenizer
    found = server.post("/tokenize", json={"prompt": TEXT}).json()
    assert found["tokens"] == tokenizer.encode(TEXT, bos=True)
    info = httpx.get(f"{server.url}/tokenizer_info").json()
    assert info["bos_token"] == "<s>" and info["eos_token"] == "</s>"
    for text, token in (("<s>", tokenizer.bos_id), ("</s>", tokenizer.eos_id)):
        assert server.post("/tokenize", json={"prompt": text}).json()["tokens"] == [token]
    # Within a text, they are letters.
    inside = server.post("/tokenize", json={"prompt": "a</s>", "add_special_tokens": False}).json()
    assert tokenizer.eos_id not in inside["tokens"]
    assert server.post("/detokenize", json={"tokens": inside["tokens"]}).json() == {
        "prompt": "a</s>"
    }
    unknown = httpx.get(f"{server.url}/tokenizer_info", params={"model": "unknown"})
    assert unknown.status_code == 404


def test_leaving_before_the_first_token(serve: Serve) -> None:
    """A client that waits for its turn, and goes, is not answered when it comes."""
    with serve(EngineSettings(max_running=1)) as server:
        engine = server.served.engine._engine
        body = {
            "model": NAME,
            "prompt": TEXT,
            "max_tokens": 1500,
            "ignore_eos": True,
            "stream": True,
        }
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as first:
            lines = first.iter_lines()
            assert next(lines).startswith("data: ")
            (running,) = engine._scheduler._running
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{server.url}/v1/completions", json=body, timeout=0.2)
            end = time.monotonic() + 20
            while engine._scheduler._waiting:
                assert time.monotonic() < end
                time.sleep(0.01)
            assert not running.answer.is_finished
        server.wait_until_idle()
