"""No verb imports a module from the current folder, which may be an untrusted checkpoint's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mvlm.runtime.start_module import module_command
from tests.cli.every_verb import COMMANDS, Workspace, all_verbs, run_verb
from tests.reference import write_random_checkpoint

ROOT = Path(__file__).parents[2]
PACKAGES = ("bench", "cli", "compile", "distribution", "models", "runtime", "schedules", "training")
PLANTED = """\
import sys
with open({log!r}, "a") as file:
    print({name!r}, "in", sys.argv, file=file)
raise SystemExit("the current folder's {name} was imported")
"""


def importable_names() -> set[str]:
    """Every top-level module of the standard library and of the installed packages."""
    names = {*sys.stdlib_module_names, "mvlm", "sitecustomize", "usercustomize"}
    for distribution in metadata.distributions():
        for file in distribution.files or ():
            top = file.parts[0]
            if len(file.parts) == 1 and top.endswith(".py"):
                names.add(top.removesuffix(".py"))
            elif len(file.parts) == 2 and file.parts[1] == "__init__.py":
                names.add(top)
    return {name for name in names if name.isidentifier()}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A checkpoint with a module planted in it for every name that could be imported."""
    folder = tmp_path_factory.mktemp("untrusted")
    checkpoint = write_random_checkpoint(folder / "model", "text", seed=0, num_hidden_layers=1)
    log = os.fspath(folder / "planted.log")
    for name in importable_names():
        (checkpoint / f"{name}.py").write_text(PLANTED.format(log=log, name=name))
    return Workspace(checkpoint, folder / "artifact", folder)


@pytest.fixture(scope="module")
def environment(workspace: Workspace) -> dict[str, str]:
    """A cache and logs of the test's own."""
    return os.environ | {
        "MVLM_CACHE": os.fspath(workspace.output / "cache"),
        "MVLM_TUNING_LOGS": os.fspath(workspace.output / "user-logs"),
    }


@pytest.fixture(scope="module")
def artifact(workspace: Workspace, environment: dict[str, str]) -> Workspace:
    """The same with its artifact, which the first verb compiles there."""
    check("compile", workspace, environment)
    (workspace.output / "a").rename(workspace.artifact)
    return workspace


def check(verb: str, workspace: Workspace, environment: dict[str, str]) -> None:
    if verb == "demo":  # its model takes long to compile, and the user's cache has it
        environment = {**environment}
        del environment["MVLM_CACHE"]
    done = run_verb(verb, workspace, folder=workspace.checkpoint, environment=environment)
    log = workspace.output / "planted.log"
    assert not log.exists(), log.read_text()
    assert done.returncode == COMMANDS[verb][1], done.stderr.decode()


def test_planted_module_would_run(workspace: Workspace) -> None:
    """Otherwise the tests below would show nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "mvlm.cli", "--version"],
        cwd=workspace.checkpoint,
        capture_output=True,
    )
    assert b"was imported" in done.stderr
    (workspace.output / "planted.log").unlink()


# One that starts no process, one that reads a checkpoint, and one that starts processes.
DEFAULT_VERBS = {"bench", "convert", "inspect"}


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(verb, marks=() if verb in DEFAULT_VERBS else pytest.mark.extended)
        for verb in all_verbs()
        if verb != "compile"
    ],
)
def test_no_verb_imports_a_planted_module(
    verb: str, artifact: Workspace, environment: dict[str, str]
) -> None:
    check(verb, artifact, environment)


def test_untrusted_folder_with_an_empty_pythonpath_entry(tmp_path: Path) -> None:
    """As ``PYTHONPATH=$PYTHONPATH:/opt/lib`` makes it."""
    named, current = tmp_path / "named", tmp_path / "current"
    named.mkdir()
    current.mkdir()
    (named / "mvlm_probe.py").write_text("import sys; print(sys.path, sys.argv[1:]); import wave")
    (current / "wave.py").write_text("raise SystemExit('the current folder was searched')")
    environment = os.environ | {"PYTHONPATH": f":{named}:.:../current"}
    command = module_command("mvlm_probe", "an argument")
    done = subprocess.run(command, cwd=current, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert os.fspath(named) in done.stdout and os.fspath(current) not in done.stdout
    assert done.stdout.endswith("['an argument']\n")


def test_current_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", line, "sh", gone, *module_command("mvlm.cli", "--version")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_python_process_is_started_in_one_way() -> None:
    """By `module_command` alone; what starts others, or tells people what to type, is listed."""
    pattern = re.compile(r"sys\.executable|[\"']-m[\"']")
    found = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    }
    # The peer's converter has an option of its own that is called -m, and advice names the Python
    # that a person is to run.
    assert found == {
        "runtime/start_module.py",
        "bench/peers/ort_genai.py",
        "compile/toolchain/runtime_library.py",
    }


def test_launchers_start_no_module_by_name() -> None:
    launchers = list((ROOT / "distribution/bundle/launchers").glob("*.sh"))
    assert launchers
    for launcher in launchers:
        lines = launcher.read_text(encoding="utf-8").splitlines()
        code = [line for line in lines if not line.lstrip().startswith("#")]
        assert not [line for line in code if " -m " in line], launcher
