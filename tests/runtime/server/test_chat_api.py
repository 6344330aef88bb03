"""``/v1/chat/completions`` by OpenAI's own client: answers are those of the chat in Python."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from mvlm.runtime.chat import Chat
from mvlm.runtime.image import load_image, preprocess
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from tests.runtime.server.conftest import NAME, Running, Serve

QUESTION = "What is this?"


def picture(seed: int = 0) -> bytes:
    """A small image's file."""
    values = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def shown(*files: bytes) -> list[dict[str, Any]]:
    urls = [f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in files]
    return [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls]


@pytest.fixture(scope="module")
def model(server: Running) -> Model:
    """The served artifact, loaded once more."""
    return Model(server.served.model.folder, 2)


def expected(model: Model, question: str = QUESTION, *files: bytes, **params: Any) -> str:
    spec = model.settings.image
    assert spec is not None
    pixels = [preprocess(load_image(file), spec) for file in files]
    options = {"max_tokens": 20} | params
    return Chat(model).generate(question, pixels, SamplingParams(**options)).completion.text


def ask(server: Running, messages: Any = QUESTION, **options: Any) -> Any:
    if not isinstance(messages, list):
        messages = [{"role": "user", "content": messages}]
    options = {"temperature": 0, "max_tokens": 20} | options
    return server.openai().chat.completions.create(model=NAME, messages=messages, **options)


def test_an_answer_is_the_chats(server: Running, model: Model) -> None:
    found = ask(server)
    assert found.choices[0].message.content == expected(model)
    assert found.choices[0].finish_reason == "length"
    assert found.object == "chat.completion" and found.model == NAME
    assert found.usage.completion_tokens == 20
    assert found.usage.total_tokens == found.usage.prompt_tokens + 20
    assert ask(server).usage.prompt_tokens_details.cached_tokens > 0


def test_a_stream_has_the_same_text(server: Running, model: Model) -> None:
    chunks = list(ask(server, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == expected(model)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks[:-1]].count("length") == 1
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 20
    assert all(c.usage is None for c in ask(server, stream=True))


def test_images(server: Running, model: Model) -> None:
    files = picture(1), picture(2)
    for content in (
        [*shown(*files), {"type": "text", "text": QUESTION}],
        [{"type": "text", "text": QUESTION}, *shown(*files)],
    ):
        found = ask(server, [{"role": "user", "content": content}])
        assert found.choices[0].message.content == expected(model, QUESTION, *files)
    one, two = shown(*files)
    texts = [{"type": "text", "text": text} for text in ("This: ", " and this: ", "?")]
    content = [texts[0], one, texts[1], two, texts[2]]
    found = ask(server, [{"role": "user", "content": content}])
    between = "This: <image> and this: <image>?"
    assert found.choices[0].message.content == expected(model, between, *files)


def test_a_conversation_goes_on(server: Running, model: Model) -> None:
    chat, params = Chat(model), SamplingParams(max_tokens=12)
    first = chat.generate(QUESTION, params=params).completion.text
    second = chat.generate("And then?", params=params).completion.text
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And then?"},
    ]
    assert ask(server, messages, max_tokens=12).choices[0].message.content == second
    other = [{"role": "system", "content": "Be brief."}, *messages]
    prompt = ask(server, other, max_tokens=1).usage.prompt_tokens
    assert prompt != ask(server, messages, max_tokens=1).usage.prompt_tokens


def test_several_seeded_answers(server: Running, model: Model) -> None:
    found = ask(server, n=3, temperature=1.0, seed=7)
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    for number, choice in enumerate(found.choices):
        text = expected(model, temperature=1.0, seed=7 + number)
        assert choice.message.content == text
    assert found.usage.completion_tokens <= 60


def test_a_stop_string_ends_the_answer(server: Running, model: Model) -> None:
    text = expected(model)
    stop = text[len(text) // 2 :][:2]
    found = ask(server, stop=[stop]).choices[0]
    assert found.finish_reason == "stop"
    assert found.message.content == expected(model, stop=(stop,))
    assert stop not in found.message.content


def test_probabilities(server: Running) -> None:
    whole = ask(server, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert len(whole) == 20
    for each in whole:
        assert each.logprob == each.top_logprobs[0].logprob  # decoded greedily
        assert len(each.top_logprobs) == 3
        assert bytes(each.bytes).decode("utf-8", "replace") == each.token
    parts = list(ask(server, logprobs=True, top_logprobs=3, stream=True))
    told = [p.choices[0].logprobs.content for p in parts if p.choices[0].logprobs]
    assert [each.token for part in told for each in part] == [each.token for each in whole]
    assert ask(server).choices[0].logprobs is None


def test_biases_and_penalties(server: Running) -> None:
    tokenizer = server.served.tokenizer
    (token,) = [each for each in range(tokenizer.vocab_size) if tokenizer.piece(each) == "<0x41>"]
    found = ask(server, logit_bias={str(token): 100}, max_tokens=5)
    assert found.choices[0].message.content == "AAAAA"
    with_penalty = ask(server, logprobs=True, frequency_penalty=2, presence_penalty=2)
    plain = ask(server, logprobs=True)
    kinds = [
        len({each.token for each in answer.choices[0].logprobs.content})
        for answer in (plain, with_penalty)
    ]
    assert kinds[0] <= kinds[1]


def test_many_clients_get_their_own_answers(server: Running, model: Model) -> None:
    questions = [f"{QUESTION} {number}" for number in range(12)]
    wanted = [expected(model, question) for question in questions]

    def one(question: str) -> str:
        return "".join(
            chunk.choices[0].delta.content or "" for chunk in ask(server, question, stream=True)
        )

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(one, questions)) == wanted
    server.wait_until_idle()


def test_leaving_a_stream_ends_the_answer(server: Running) -> None:
    stream = ask(server, stream=True, max_tokens=1500, extra_body={"ignore_eos": True})
    for _ in range(3):
        next(iter(stream))
    stream.close()
    server.wait_until_idle()
    assert server.served.engine._answers == []


def test_a_client_that_goes_while_it_waits(server: Running) -> None:
    client = server.openai(timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=1500,
            extra_body={"ignore_eos": True},
        )
    server.wait_until_idle()


def test_too_many_answers(serve: Serve) -> None:
    with serve(max_answers=2) as server:
        stream = ask(server, stream=True, max_tokens=1500, extra_body={"ignore_eos": True})
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as caught:
            ask(server, n=2)
        assert caught.value.response.headers["retry-after"] == "1"
        assert ask(server).choices[0].finish_reason == "length"
        stream.close()
        server.wait_until_idle()
        assert len(ask(server, n=2).choices) == 2


def test_an_answer_that_takes_too_long(serve: Serve) -> None:
    with serve(answer_seconds=0.05) as server:
        with pytest.raises(openai.InternalServerError, match="took too long"):
            ask(server, max_tokens=1900, extra_body={"ignore_eos": True})
        with pytest.raises(openai.APIError, match="took too long"):
            list(ask(server, stream=True, max_tokens=1900, extra_body={"ignore_eos": True}))
