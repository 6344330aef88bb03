"""``/v1/responses`` by OpenAI's own client: its answers are those of the chat."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import openai
import pytest

from tests.runtime.server.conftest import NAME, Running, Serve
from tests.runtime.server.test_chat_api import QUESTION, picture
from tests.runtime.server.test_chat_api import ask as chat

LONG = {"max_output_tokens": 1500, "temperature": 1.9}


def ask(server: Running, given: Any = QUESTION, **options: Any) -> Any:
    options = {"temperature": 0, "max_output_tokens": 20} | options
    return server.openai().responses.create(model=NAME, input=given, **options)


def text_of(server: Running, messages: Any = QUESTION, **options: Any) -> Any:
    return chat(server, messages, **options).choices[0].message.content


def test_a_text(server: Running) -> None:
    found = ask(server, metadata={"a": "b"}, store=True)
    assert found.output_text == text_of(server)
    assert (found.object, found.model, found.metadata) == ("response", NAME, {"a": "b"})
    assert found.status == "incomplete" and found.store is False
    assert found.incomplete_details.reason == "max_output_tokens"
    (message,) = found.output
    assert (message.role, message.status) == ("assistant", "incomplete")
    assert found.usage.output_tokens == 20
    assert found.usage.total_tokens == found.usage.input_tokens + 20
    assert ask(server).usage.input_tokens_details.cached_tokens > 0


def test_images_and_instructions(server: Running) -> None:
    url = "data:image/png;base64," + base64.b64encode(picture(1)).decode()
    parts = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": QUESTION}]
    found = ask(server, [{"role": "user", "content": parts}], instructions="Be brief.")
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": QUESTION},
            ],
        },
    ]
    assert found.output_text == text_of(server, messages)
    assert found.instructions == "Be brief."


def test_an_output_is_an_input(server: Running) -> None:
    """As the client's documentation has it: a conversation goes on with what was answered."""
    first = ask(server)
    more = {"role": "user", "content": "And then?", "type": "message"}
    history = [{"role": "user", "content": QUESTION}, *first.output, more]
    given = [each if isinstance(each, dict) else each.model_dump() for each in history]
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And then?"},
    ]
    assert ask(server, given).output_text == text_of(server, messages)


def test_events(server: Running) -> None:
    events = list(ask(server, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    deltas = events[4:-4]
    assert {event.type for event in deltas} == {"response.output_text.delta"}
    text = "".join(event.delta for event in deltas)
    assert text == events[-4].text == events[-1].response.output_text == text_of(server)
    assert events[0].response.status == "in_progress" and events[0].response.output == []
    assert events[-1].response.usage.output_tokens == 20
    assert len({event.item_id for event in deltas}) == 1


def test_an_end_of_sequence_completes_the_answer(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = chat(server, logprobs=True).choices[0].logprobs.content
    (token,) = server.served.tokenizer.encode(tokens[5].token, bos=False)[-1:]
    settings = replace(server.served.model.settings, eos=(token,))
    monkeypatch.setattr(server.served.model, "settings", settings)
    found = ask(server)
    assert found.status == "completed" and found.incomplete_details is None
    assert found.output[0].status == "completed" and found.usage.output_tokens <= 6
    assert list(ask(server, stream=True))[-1].type == "response.completed"


def test_the_client_s_own_stream(server: Running) -> None:
    stream = server.openai().responses.stream(
        model=NAME, input=QUESTION, temperature=0, max_output_tokens=20
    )
    with stream as events:
        text = "".join(each.delta for each in events if each.type == "response.output_text.delta")
    assert text == text_of(server)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id: 'resp_1' is not supported"),
        ({"tools": [{"type": "web_search"}]}, "tools: "),
        ({"background": True}, "background: True is not supported"),
        ({"include": ["message.output_text.logprobs"]}, "include: "),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type: Input should be 'text'"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format: json_schema: expected"),
        ({"truncation": "auto"}, "truncation: "),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0: type 'item_reference'"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input.0.content.0"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input.0.content.0",
        ),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input: expected the user's"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"wisdom": 5}, "wisdom: no such field"),
        ({"input": "x " * 3000}, "fit into the context"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_fields(server: Running, fields: Any, message: str, stream: bool) -> None:
    found = server.post(
        "/v1/responses", json={"model": NAME, "input": QUESTION, "stream": stream} | fields
    )
    assert found.status_code == 400, found.text
    assert message in found.json()["error"]["message"]


def test_an_answer_that_takes_too_long(serve: Serve) -> None:
    with serve(answer_seconds=1e-6) as server:
        with pytest.raises(openai.InternalServerError, match="took too long"):
            ask(server, **LONG)
        last = list(ask(server, **LONG, stream=True))[-1]
        assert last.type == "response.failed" and last.response.status == "failed"
        assert "took too long" in last.response.error.message


def test_leaving_a_stream_ends_the_answer(server: Running) -> None:
    stream = ask(server, **LONG, stream=True)
    for _ in range(6):
        next(iter(stream))
    stream.close()
    server.wait_until_idle()
    assert server.served.engine._engine.load.running == 0
