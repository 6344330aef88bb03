"""`--choice`, `--json-schema`, `--regex` and `--grammar`: of a model here, and of a server's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.artifacts import ArtifactCache
from tests.cli.command_line import mvlm
from tests.cli.test_serve import serving

SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["person", "animal"]}, "age": {"enum": [1, 2]}},
    "required": ["kind", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def artifact(artifact_cache: ArtifactCache) -> Path:
    return artifact_cache.artifact("linear")


@pytest.fixture
def forms(tmp_path: Path) -> dict[str, tuple[str, ...]]:
    """Options, by a pattern of what they ask for."""
    schema, grammar = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text(json.dumps(SCHEMA))
    grammar.write_text('start: "a" "b"? "c"\n')
    return {
        "red|dark green": ("--choice", "red, dark green"),
        r'\{"kind": "(person|animal)", "age": [12]\}': ("--json-schema", str(schema)),
        "[0-9]{3}": ("--regex", "[0-9]{3}"),
        "ab?c": ("--grammar", str(grammar)),
    }


def test_answers_of_a_form(artifact: Path, forms: dict[str, tuple[str, ...]]) -> None:
    for pattern, options in forms.items():
        found = mvlm("chat", artifact, "--prompt", "Which?", *options)
        assert found.exit_code == 0 and re.fullmatch(pattern + "\n", found.stdout), found


def test_a_server_is_asked_for_the_same(artifact: Path, forms: dict[str, tuple[str, ...]]) -> None:
    here = [mvlm("chat", artifact, "--prompt", "?", *each).stdout for each in forms.values()]
    with serving(f"small={artifact}") as (_, url):
        there = [mvlm("chat", url, "--prompt", "?", *each).stdout for each in forms.values()]
    assert there == here and all(here)


def test_each_answer_of_a_conversation_has_the_form(artifact: Path) -> None:
    asked = "Which?\n/retry\nAnd now?\n"
    found = mvlm("chat", artifact, "--lines", "--choice", "red,green", stdin=asked)
    assert found.exit_code == 0
    answers = found.stdout.split()
    assert len(answers) == 3 and set(answers) <= {"red", "green"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--choice", "a,b", "--regex", "a"), "--choice and --regex: expected one form"),
        (("--choice", "a,,b"), "choice: expected texts without white space"),
        (("--regex", "("), "invalid regex"),
        (("--json-schema", "missing.json"), "--json-schema: expected a readable text"),
        (("--json-schema", "wrong.json"), "json_schema: expected JSON"),
        (("--json-schema", "large.json"), "at most 65536 bytes"),
        (("--grammar", "wrong.json"), "grammar: found"),
    ],
)
def test_forms_that_are_refused(
    artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "wrong.json").write_text("{")
    (tmp_path / "large.json").write_text(" " * 70000)
    monkeypatch.chdir(tmp_path)
    found = mvlm("chat", artifact, "--prompt", "Which?", *options)
    assert found.exit_code == 2 and message in found.stderr and not found.stdout
    assert len(found.stderr.splitlines()) == 1
