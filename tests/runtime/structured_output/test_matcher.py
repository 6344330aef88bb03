"""Forms of answers: masks against a search of the whole vocabulary, and forms that are refused."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mvlm.runtime.artifact.layout import TOKENIZER
from mvlm.runtime.errors import UsageError
from mvlm.runtime.model import Model
from mvlm.runtime.structured_output import Constraint, ConstraintCompiler, TokenMatcher
from mvlm.runtime.structured_output.constraint import MAX_BYTES
from mvlm.runtime.structured_output.token_matcher import ConstraintError
from mvlm.runtime.structured_output.vocabulary import _Vocabulary
from mvlm.runtime.tokenizer import Tokenizer
from tests.artifacts import ArtifactCache

FAMILY = "linear"
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["person", "animal"]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
Walk = Callable[[TokenMatcher, int], list[int]]


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "not legacy"])
def tokenizer(artifact_cache: ArtifactCache, request: pytest.FixtureRequest) -> Tokenizer:
    folder = Model(artifact_cache.artifact(FAMILY)).folder
    return Tokenizer(folder / TOKENIZER, legacy=request.param)


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> ConstraintCompiler:
    # Three more tokens than the tokenizer knows, as training may add.
    return ConstraintCompiler(tokenizer, tokenizer.vocab_size + 3, [tokenizer.eos_id])


@pytest.fixture(scope="module")
def walk(tokenizer: Tokenizer) -> Walk:
    """Choose tokens at random until the end."""

    def chosen(matcher: TokenMatcher, seed: int) -> list[int]:
        draw, tokens = random.Random(seed), list[int]()
        while not matcher.is_complete:
            (mask,) = matcher.masks()
            token = draw.choice(mask.nonzero()[0].tolist())
            matcher.consume(token)
            if token == tokenizer.eos_id:
                break
            tokens.append(token)
            assert len(tokens) < 3000
        return tokens

    return chosen


def spelled(tokenizer: Tokenizer, tokens: Sequence[int]) -> bytes:
    return b"".join(map(tokenizer.token_bytes, tokens))


def without_space(text: bytes) -> bytes:
    """The space that may come first is no part of the answer."""
    return text[1:] if text.startswith(b" ") else text


CHOICES = ["red", "reddish", "green", "a b", 'quo"te', "back\\slash", "grün", "日本", "line\nbreak"]


def test_masks_of_a_choice_are_those_of_a_search(
    tokenizer: Tokenizer, compiler: ConstraintCompiler
) -> None:
    """At each place a token fits if, and only if, a choice begins with what it makes."""
    wanted = [space + text.encode() for text in CHOICES for space in (b"", b" ")]
    texts = {token: tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)}
    seen, left = set[bytes](), [(compiler.compile(Constraint.choice(CHOICES)), b"")]
    while left:
        matcher, before = left.pop()
        found = set(matcher.masks()[0].nonzero()[0].tolist())
        fitting = {
            token
            for token, text in texts.items()
            if text and any(each.startswith(before + text) for each in wanted)
        }
        is_whole = before in wanted
        # The library spells what is forced by the tokens that the tokenizer would take.
        forced = matcher.forced(9)
        assert found == fitting | ({tokenizer.eos_id} if is_whole else set()) or (
            forced and found <= fitting and forced[0] in found
        )
        for token in fitting & found:
            after = before + texts[token]
            if after not in seen:
                seen.add(after)
                follower = matcher.copy()
                follower.consume(token)
                left.append((follower, after))
    assert set(wanted) <= seen


@pytest.mark.parametrize("seed", range(5))
def test_any_walk_ends_in_the_form(
    tokenizer: Tokenizer, compiler: ConstraintCompiler, walk: Walk, seed: int
) -> None:
    text = without_space(
        spelled(tokenizer, walk(compiler.compile(Constraint.choice(CHOICES)), seed))
    )
    assert text.decode() in CHOICES

    pattern = r"[0-9]{2,3}/(ab|c)+-é"
    text = without_space(
        spelled(tokenizer, walk(compiler.compile(Constraint.regex(pattern)), seed))
    )
    assert re.fullmatch(pattern, text.decode())

    person = json.loads(
        spelled(tokenizer, walk(compiler.compile(Constraint.json_schema(PERSON)), seed))
    )
    assert isinstance(person["name"], str) and len(person["name"]) <= 8
    assert 0 <= person["age"] <= 150 and isinstance(person["age"], int)
    assert set(person) <= {"name", "age", "kind"}
    assert person.get("kind", "person") in ("person", "animal")


def test_text_behind_a_prompt_has_no_space_of_its_own(
    tokenizer: Tokenizer, compiler: ConstraintCompiler, walk: Walk
) -> None:
    for seed in range(5):
        tokens = walk(compiler.compile(Constraint.choice(CHOICES), after_text=True), seed)
        assert spelled(tokenizer, tokens).decode() in CHOICES


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('root ::= "yes" | "no" [0-9]+', id="GBNF"),
        pytest.param('start: "yes" | "no" /[0-9]+/', id="Lark"),
    ],
)
def test_grammars(
    tokenizer: Tokenizer, compiler: ConstraintCompiler, walk: Walk, text: str
) -> None:
    for seed in range(5):
        found = spelled(tokenizer, walk(compiler.compile(Constraint.grammar(text)), seed))
        assert re.fullmatch(r" ?(yes|no[0-9]+)", found.decode())


def test_masks_behind_drafts_are_those_of_each_place(
    tokenizer: Tokenizer, compiler: ConstraintCompiler, walk: Walk
) -> None:
    constraint = Constraint.json_schema(PERSON)
    for seed in range(5):
        tokens = walk(compiler.compile(constraint), seed)
        matcher, stepwise = compiler.compile(constraint), compiler.compile(constraint)
        together = matcher.masks(tokens)
        assert len(together) >= len(tokens)
        for token, mask in zip(tokens, together, strict=False):
            assert (stepwise.masks()[0] == mask).all()
            stepwise.consume(token)
        # The matcher is where it was.
        assert (matcher.masks()[0] == together[0]).all()
        assert matcher.fitting(tokens) == len(tokens)
        unfit = next(token for token, fits in enumerate(together[3]) if not fits)
        assert len(matcher.masks([*tokens[:3], unfit, *tokens[3:]])) == 4
        assert matcher.fitting([*tokens[:3], unfit, *tokens[3:]]) == 3


def test_forced_tokens_are_the_only_ones_that_fit(
    tokenizer: Tokenizer, compiler: ConstraintCompiler
) -> None:
    matcher = compiler.compile(Constraint.json_schema(PERSON), after_text=True)
    forced = matcher.forced(100)
    assert spelled(tokenizer, forced) == b'{"name": "'
    assert matcher.forced(2) == forced[:2]
    for token in forced:
        assert matcher.masks()[0][token]
        matcher.consume(token)


def test_a_token_that_does_not_fit_is_an_error(compiler: ConstraintCompiler) -> None:
    matcher = compiler.compile(Constraint.choice(["red"]))
    unfit = next(token for token, fits in enumerate(matcher.masks()[0]) if not fits)
    with pytest.raises(ConstraintError, match="the answer's form"):
        matcher.consume(unfit)
    with pytest.raises(ConstraintError):
        matcher.masks()
    # Another answer of the same form is not concerned.
    assert compiler.compile(Constraint.choice(["red"])).masks()[0].any()


def test_text_is_spelled_as_behind_another_text(tokenizer: Tokenizer) -> None:
    vocabulary = _Vocabulary(tokenizer, tokenizer.vocab_size, [tokenizer.eos_id])
    for text in ['{"name": "', ">=", "=", " a", "  b", "日本", "\n\nfoo", "<unk>", "</s>", "ﬁ", ""]:
        ids = vocabulary(text)
        assert spelled(tokenizer, ids) == text.encode() and vocabulary(text.encode()) == ids
        assert not set(ids) & set(vocabulary.special_token_ids)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constraint.json_schema({"type": "strin"}), "Invalid type"),
        (lambda: Constraint.json_schema({"not": {"type": "string"}}), "Unimplemented keys"),
        (lambda: Constraint.json_schema({"$ref": "http://127.0.0.1:1/x"}), "not fetch"),
        (lambda: Constraint.json_schema({"allOf": [{"type": "string"}, {"type": "null"}]}), "json"),
        (lambda: Constraint.regex("(a"), "invalid regex"),
        (lambda: Constraint.regex("(?=a)b"), "invalid regex"),
        (lambda: Constraint.grammar("start: unknown"), "unknown name"),
        (lambda: Constraint.grammar("hello"), "Expected ::="),
        (lambda: Constraint.grammar("root ::= " + "(" * 5000), "recursion"),
    ],
)
def test_forms_that_are_not_understood(
    compiler: ConstraintCompiler, make: Callable[[], Constraint], message: str
) -> None:
    with pytest.raises(ConstraintError, match=message) as raised:
        compiler.compile(make())
    assert "\n" not in str(raised.value)


def nested(depth: int) -> str:
    return '{"type":"array","items":' * depth + "{}" + "}" * depth


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constraint.json_schema({"enum": ["x" * 100 + str(n) for n in range(10_000)]}),
        lambda: Constraint.json_schema(nested(100_000)),
        lambda: Constraint.json_schema("[]"),
        lambda: Constraint.json_schema("{"),
        lambda: Constraint.json_schema({"x-guidance": {"lenient": True}}),
        lambda: Constraint.json_schema({"const": object()}),
        lambda: Constraint.regex(""),
        lambda: Constraint.regex("a" * (MAX_BYTES + 1)),
        lambda: Constraint.choice([]),
        lambda: Constraint.choice(["a", ""]),
        lambda: Constraint.choice([" a"]),
        lambda: Constraint.choice([1]),  # type: ignore[list-item]
        lambda: Constraint.grammar(""),
    ],
)
def test_forms_that_are_none(make: Callable[[], Constraint]) -> None:
    with pytest.raises(UsageError):
        make()


# Each is short, and would be large if it were written out.
EXPLODING = {
    "deep": lambda: Constraint.json_schema(nested(900)),
    "least items": lambda: Constraint.json_schema({"type": "array", "minItems": 10**6}),
    "least length": lambda: Constraint.json_schema({"type": "string", "minLength": 10**7}),
    "products": lambda: Constraint.json_schema(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"{i}_{j}": {"type": "string"}}} for j in range(8)]}
                for i in range(8)
            ]
        }
    ),
    "itself": lambda: Constraint.json_schema({"$ref": "#"}),
    "twice itself": lambda: Constraint.json_schema(
        {"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]}
    ),
    "counted groups": lambda: Constraint.regex("((a{1,100}){1,100}){1,100}"),
    "optional parts": lambda: Constraint.regex("(a?){5000}a{5000}"),
    "powers of two": lambda: Constraint.grammar(
        "start: x0\n" + "".join(f"x{n}: x{n + 1} x{n + 1}\n" for n in range(60)) + 'x60: "a"\n'
    ),
    "many properties": lambda: Constraint.json_schema(
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(2000)}}
    ),
}


@pytest.mark.parametrize("name", EXPLODING)
def test_forms_that_explode_are_refused_or_bounded(compiler: ConstraintCompiler, name: str) -> None:
    """They end in an error, or go on token by token."""
    try:
        matcher, steps = compiler.compile(EXPLODING[name]()), 0
        for _ in range(20):
            token = int(matcher.masks()[0].nonzero()[0][-1])
            matcher.consume(token)
            steps += 1
            if matcher.is_complete:
                break
    except ConstraintError as error:
        assert "\n" not in str(error)
    else:
        assert steps > 0


def test_threads_share_a_compiler(compiler: ConstraintCompiler, walk: Walk) -> None:
    """More forms than are kept, in eight threads."""
    found = list[tuple[int, list[int]]]()

    def work(number: int) -> None:
        for each in range(12):
            form = Constraint.choice([f"form {number} {each % 6}"])
            found.append((number, walk(compiler.compile(form, after_text=True), 0)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 96 and len(compiler._compiled) == 32
    for number, tokens in found:
        text = spelled(compiler._tokenizer, tokens).decode()
        assert text.startswith(f"form {number} ")
