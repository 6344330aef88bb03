"""Answers of a given form through the API: `response_format`, and vLLM's fields."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pydantic
import pytest

from tests.runtime.server.conftest import NAME, Running

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
NAMED = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}


class Person(pydantic.BaseModel):
    """As OpenAI's client makes a schema of it."""

    model_config = pydantic.ConfigDict(extra="forbid")
    kind: Literal["person", "animal"]
    age: Literal[1, 2, 3]


def ask(server: Running, **options: Any) -> Any:
    """Ask for a chat's answer as the official client does; `extra` are fields it does not know."""
    fields = {"temperature": 0, "max_tokens": 60, "messages": [{"role": "user", "content": "?"}]}
    options["extra_body"] = options.pop("extra", None)
    return server.openai().chat.completions.create(model=NAME, **(fields | options))


def text_of(found: Any) -> str:
    (choice,) = found.choices
    assert choice.finish_reason == "stop"
    return str(choice.message.content)


def check_person(text: str) -> None:
    found = json.loads(text)
    assert set(found) == {"name", "age"} and 0 <= found["age"] <= 99


def test_a_schema_by_response_format(server: Running) -> None:
    check_person(text_of(ask(server, response_format=NAMED)))


def test_a_stream_of_a_schema_has_the_same_text(server: Running) -> None:
    whole = text_of(ask(server, response_format=NAMED))
    chunks = list(ask(server, response_format=NAMED, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_clients_own_parsing(server: Running) -> None:
    found = server.openai().chat.completions.parse(
        model=NAME,
        messages=[{"role": "user", "content": "?"}],
        response_format=Person,
        max_tokens=60,
    )
    parsed = found.choices[0].message.parsed
    assert isinstance(parsed, Person)


def test_a_schema_in_responses(server: Running) -> None:
    named = {"type": "json_schema", "name": "person", "schema": SCHEMA, "strict": True}
    client = server.openai()
    found = client.responses.create(
        model=NAME, input="?", temperature=0, text={"format": named}, max_output_tokens=60
    )
    check_person(found.output_text)
    assert found.status == "completed" and found.text.format.name == "person"
    with client.responses.stream(
        model=NAME, input="?", temperature=0, text={"format": named}, max_output_tokens=60
    ) as stream:
        stream.until_done()
        assert stream.get_final_response().output_text == found.output_text
    parsed = client.responses.parse(model=NAME, input="?", text_format=Person)
    assert isinstance(parsed.output_parsed, Person)


def test_any_object(server: Running) -> None:
    """A random model's object may have no end; its beginning is JSON's."""
    (choice,) = ask(server, response_format={"type": "json_object"}, max_tokens=12).choices
    assert choice.message.content.startswith("{")


@pytest.mark.parametrize(
    ("extra", "pattern"),
    [
        ({"structured_outputs": {"choice": ["red", "green"]}}, "red|green"),
        ({"structured_outputs": {"regex": "[0-9]{3}-[a-c]"}}, "[0-9]{3}-[a-c]"),
        ({"structured_outputs": {"json": SCHEMA}}, r'\{"name": ".*", "age": [0-9]+\}'),
        ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, r'\{"name": ".*", "age": [0-9]+\}'),
        ({"structured_outputs": {"grammar": 'root ::= "a" "b"? "c"'}}, "ab?c"),
        ({"guided_choice": ["red", "green"]}, "red|green"),
        ({"guided_regex": "[0-9]{3}"}, "[0-9]{3}"),
        ({"guided_json": SCHEMA}, r'\{"name": ".*", "age": [0-9]+\}'),
        ({"guided_grammar": 'start: "a" "b"? "c"'}, "ab?c"),
    ],
)
def test_forms_as_vllm_spells_them(server: Running, extra: dict[str, Any], pattern: str) -> None:
    assert re.fullmatch(pattern, text_of(ask(server, extra=extra)))


def test_completions_of_a_form(server: Running) -> None:
    """The form begins right behind the prompt, with no space of its own."""
    found = server.openai().completions.create(
        model=NAME,
        prompt=["Is it red or green? ", "Answer: "],
        max_tokens=20,
        n=2,
        temperature=1,
        seed=1,
        extra_body={"guided_choice": ["red", "green"]},
    )
    assert len(found.choices) == 4
    for choice in found.choices:
        assert choice.text in ("red", "green") and choice.finish_reason == "stop"


def test_forms_at_once_are_those_alone(server: Running) -> None:
    """Many clients, each with a form of its own, one of them without any."""
    asked: list[dict[str, Any]] = [{}, {"guided_choice": ["x", "y"]}, {"guided_json": SCHEMA}]
    asked += [{"guided_regex": f"{number}[0-9]{{4}}"} for number in range(9)]

    def answer(extra: dict[str, Any]) -> str:
        found = ask(server, extra=extra, temperature=0.9, seed=4, max_tokens=40)
        return str(found.choices[0].message.content)

    alone = [answer(extra) for extra in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        assert list(pool.map(answer, asked)) == alone
    server.wait_until_idle()


def test_an_answer_that_is_cut_is_no_error(server: Running) -> None:
    (choice,) = ask(server, response_format=NAMED, max_tokens=3).choices
    assert choice.finish_reason == "length" and choice.message.content.startswith("{")


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type", "text"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format",
            "schema",
        ),
        ({"response_format": {"type": "text", "more": 1}}, "response_format.more", "no such field"),
        ({"guided_json": {"type": "strin"}}, None, "Invalid type"),
        ({"guided_json": {"not": {}}}, None, "Unimplemented keys"),
        ({"guided_json": "["}, "guided_json", "JSON"),
        ({"guided_regex": "("}, None, "invalid regex"),
        ({"guided_choice": []}, "guided_choice", "one text or more"),
        ({"guided_choice": ["a "]}, "guided_choice", "white space"),
        ({"guided_grammar": "hello"}, None, "::="),
        ({"guided_regex": "a" * 70000}, "guided_regex", "65536 bytes"),
        (
            {"guided_regex": "a", "guided_choice": ["a"]},
            "guided_regex",
            "found guided_regex, guided",
        ),
        (
            {"response_format": NAMED, "structured_outputs": {"regex": "a"}},
            "response_format",
            "structured_outputs.regex",
        ),
        ({"structured_outputs": {"xml": "a"}}, "structured_outputs.xml", "no such field"),
    ],
)
def test_forms_that_are_refused(
    server: Running, fields: dict[str, Any], param: str | None, message: str
) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": "?"}]} | fields
    answer = server.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and message in error["message"]
    assert param is None or error["param"] == param
