"""Answers of a given form in the engine; that they do not depend on their company, mixes show."""

from __future__ import annotations

import json
import threading

import pytest

from mvlm.runtime.artifact.layout import TOKENIZER
from mvlm.runtime.chat import Chat
from mvlm.runtime.engine import Engine, EngineSettings, Request
from mvlm.runtime.engine.speculation import SPECULATIONS, Speculation
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.structured_output import Constraint, ConstraintCompiler, TokenMatcher
from mvlm.runtime.structured_output.token_matcher import ConstraintError
from mvlm.runtime.tokenizer import Tokenizer
from tests.runtime.engine.asking import ask, prompt

PERSON = Constraint.json_schema(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="module")
def tokenizer(model: Model) -> Tokenizer:
    return Tokenizer(model.folder / TOKENIZER, legacy=model.settings.legacy_tokenizer)


@pytest.fixture(scope="module")
def compiler(model: Model, tokenizer: Tokenizer) -> ConstraintCompiler:
    return ConstraintCompiler(tokenizer, model.settings.vocabulary, model.settings.eos)


def test_several_answers_of_a_form(
    model: Model, tokenizer: Tokenizer, compiler: ConstraintCompiler
) -> None:
    params = SamplingParams(temperature=1.0, seed=1, max_tokens=40)
    request = Request(prompt(9), params=params, matcher=compiler.compile(PERSON))
    engine = Engine(model)
    # The request can be submitted again: its matcher stays at the beginning.
    for _ in range(2):
        answers = engine.submit(request, 3)
        texts = [tokenizer.decode(list(engine.tokens(answer))) for answer in answers]
        for answer, text in zip(answers, texts, strict=True):
            if answer.finish_reason == "stop":
                assert set(json.loads(text)) == {"name", "age"}
            else:
                assert answer.finish_reason == "length" and text.lstrip().startswith('{"name": "')
        assert len(set(texts)) > 1


@pytest.mark.parametrize("speculate", SPECULATIONS)
def test_forced_tokens_are_drafted(
    model: Model, compiler: ConstraintCompiler, speculate: Speculation
) -> None:
    text = "a form without any choice, from its beginning to its end"
    matcher = compiler.compile(Constraint.choice([text]), after_text=True)
    engine = Engine(model, EngineSettings(speculate=speculate))
    answer = ask(engine, prompt(9), tokens=100, matcher=matcher)
    assert answer.finish_reason == "stop" and answer.error is None
    assert answer.stats.accepted == answer.stats.drafted
    assert (answer.stats.drafted > 0) == (speculate != "off")
    # The last draft may be the answer's end, with no token behind it.
    assert answer.stats.steps + answer.stats.accepted - len(answer.tokens) in (0, 1)


def test_masks_are_computed_in_a_thread_of_their_own(
    model: Model, compiler: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, masks = list[str](), TokenMatcher.masks

    def noted(matcher: TokenMatcher, *drafts: tuple[int, ...]) -> object:
        names.append(threading.current_thread().name)
        return masks(matcher, *drafts)

    matcher = compiler.compile(PERSON)
    monkeypatch.setattr(TokenMatcher, "masks", noted)
    answer = ask(Engine(model), prompt(9), tokens=12, matcher=matcher)
    assert len(names) == answer.stats.steps > 0
    assert all(name.startswith("mvlm-masks") for name in names)


def test_a_form_that_fails_ends_its_answer_alone(
    model: Model, compiler: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, broken = Engine(model), compiler.compile(PERSON)
    copy = broken.copy

    def failing() -> TokenMatcher:
        copied = copy()

        def masks(*_: object) -> None:
            raise ConstraintError("the answer's form", found="too complex")

        monkeypatch.setattr(copied, "masks", masks)
        return copied

    monkeypatch.setattr(broken, "copy", failing)
    params = SamplingParams(max_tokens=8)
    (failed,) = engine.submit(Request(prompt(9), params=params, matcher=broken))
    (other,) = engine.submit(Request(prompt(12, seed=1), params=params))
    assert len(list(engine.tokens(other))) == 8
    assert failed.finish_reason == "error" and isinstance(failed.error, ConstraintError)
    assert engine.is_idle and not failed.tokens


def test_a_chat_goes_on_from_an_answer_of_a_form(model: Model) -> None:
    chat = Chat(model)
    form = Constraint.choice(["red", "green", "blue"])
    found = chat.generate("Which colour?", params=SamplingParams(max_tokens=9), constraint=form)
    assert found.completion.text in ("red", "green", "blue")
    assert found.completion.finish_reason == "stop"
    assert chat.turns[0].answer == found.completion.text
    following = chat.generate("Why?", params=SamplingParams(max_tokens=5)).completion
    assert following.usage.completion_tokens == 5
    with pytest.raises(ConstraintError, match="invalid regex"):
        chat.generate("Which?", constraint=Constraint.regex("("))
