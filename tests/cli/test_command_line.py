"""What all verbs have in common: help, errors, exit codes, clean streams, a quick start."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from mvlm.bench.quality.bundled_model import BUNDLED
from mvlm.cli import inspect as inspect_verb
from mvlm.cli.app import VERBS
from mvlm.cli.reference import reference
from tests.artifacts import ArtifactCache
from tests.cli.command_line import finish, mvlm, start
from tests.cli.every_verb import COMMANDS, SERVERS, all_verbs

ROOT = Path(__file__).parents[2]
# Verbs that are packages of verbs.
GROUPS = sorted({verb.split()[0] for verb in all_verbs() if " " in verb})


def test_docs_commands_are_current() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == reference(), "run `make docs`"


@pytest.mark.parametrize("package", ["mvlm.cli", *(f"mvlm.cli.{name}" for name in GROUPS)])
def test_every_module_with_a_command_is_a_verb(package: str) -> None:
    listed = VERBS if package == "mvlm.cli" else import_module(package).VERBS
    (folder,) = import_module(package).__path__
    commands = {
        path.stem
        for path in Path(folder).glob("*.py")
        if not path.stem.startswith("__")
        and hasattr(import_module(f"{package}.{path.stem}"), "command")
    }
    missing = commands - {name.replace("-", "_") for name in listed}
    assert commands and not missing, f"add {missing} to VERBS of {package}"


def test_every_verb_has_a_command_line_in_tests() -> None:
    message = "COMMANDS of tests/cli/every_verb.py has a command line of every verb"
    assert sorted(COMMANDS) == sorted(all_verbs()), message


@pytest.mark.parametrize("verb", all_verbs())
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    result = mvlm(*verb.split(), "--help")
    assert result.exit_code == 0
    assert f"Usage: mvlm {verb}" in result.stdout
    assert f"mvlm {verb}" in result.stdout.partition("Examples:")[2]
    assert "--debug" in result.stdout
    assert ("--json" in result.stdout) == (verb not in SERVERS)


def test_help_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = mvlm("chat", "--help")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert mvlm("chat", "--help") == narrow


def test_without_a_verb_there_is_help() -> None:
    assert mvlm() == mvlm("--help")


def test_version() -> None:
    result = mvlm("--version")
    assert (result.exit_code, result.stdout.split()[0]) == (0, "mvlm")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "nope"),
        (["chat"], "ARTIFACT|MODEL"),
        (["chat", "x", "--nope"], "--nope"),
        (["chat", "x", "--threads", "0"], "--threads"),
        (["chat", "x", "--max-tokens", "many"], "--max-tokens"),
        (["chat", "x", "--prompt", "a", "--top-p", "2"], "top_p"),
        (["chat", "x", "--lines", "--json"], "--prompt"),
        (["chat", "x", "--lines", "--dump", "a.npz"], "--prompt"),
        (["chat", "x", "--prompt", "a", "--dump", "no/such/folder/a.npz"], "no/such/folder"),
        (["chat", "no-such-place", "--prompt", "a"], "no such folder"),
        (["bench", "no-such-place"], "no such folder"),
        (["bench", "no-such-place", "--runs", "0"], "--runs"),
        (["compile", "no-such-place"], "not a folder"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments: list[str], words: str) -> None:
    result = mvlm(*arguments)
    assert (result.exit_code, result.stdout.startswith("{")) == (2, "--json" in arguments)
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert words in result.stderr


def test_a_failure_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    result = mvlm("inspect", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert "mvlm compile" in result.stderr


def test_a_failure_with_json_is_one_document_too(tmp_path: Path) -> None:
    result = mvlm("verify", tmp_path, "--json")
    assert result.exit_code == 1
    assert result.json["error"]["kind"] == "ArtifactError"
    assert result.json["error"]["found"] == "none in it"
    assert result.stderr.startswith("error: ")


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    result = mvlm("inspect", tmp_path / "\x1b[2Jname")
    assert "\x1b" not in result.stderr and "name" in result.stderr


def _raise(error: Exception) -> None:
    raise error


def test_internal_error_names_the_debug_option(
    monkeypatch: pytest.MonkeyPatch, artifact_cache: ArtifactCache
) -> None:
    artifact = artifact_cache.artifact("text")
    monkeypatch.setattr(inspect_verb, "show_table", lambda rows: _raise(KeyError("lost")))
    result = mvlm("inspect", artifact)
    assert result.exit_code == 1
    assert result.stderr.startswith("internal error: KeyError: 'lost'; run again with --debug")
    assert result.stderr.count("\n") == 1
    debugged = mvlm("inspect", artifact, "--debug")
    assert debugged.exit_code == 1
    assert debugged.stderr.startswith("Traceback") and "internal error" in debugged.stderr


def test_an_error_of_the_system_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    error = PermissionError(13, "Permission denied", "secret")
    monkeypatch.setattr("mvlm.runtime.artifact.read_manifest", lambda folder: _raise(error))
    result = mvlm("inspect", "anything")
    assert (result.exit_code, result.stderr) == (1, "error: secret: Permission denied\n")


def test_without_the_compiler_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['tvm'] = None; from mvlm.cli import main; main()"
    result = finish(start("compile", BUNDLED, code=code))
    assert result.exit_code == 1
    assert "pip install 'mvlm[compile]'" in result.stderr and result.stderr.count("\n") == 1


def test_a_closed_pipe_is_silent(artifact_cache: ArtifactCache) -> None:
    artifact = artifact_cache.artifact("text")
    for arguments in (
        ("inspect", artifact, "--kernels"),
        ("chat", artifact, "--prompt", "Hello", "--max-tokens", "500", "--temperature", "1"),
    ):
        process = start(*arguments)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait(60)) == ("", 141)
        process.stderr.close()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mvlm.cli.app import run; run(['--help']);"
        "heavy = {'numpy', 'PIL', 'rich', 'tvm_ffi', 'tvm', 'torch'};"
        "print(heavy & {*sys.modules}); print(len(sys.modules))"
    )
    *_, heavy, count = finish(start(code=code)).stdout.splitlines()
    assert heavy == "set()"
    assert int(count) < 300
