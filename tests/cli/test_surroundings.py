"""Every verb where something that programs take for granted is missing.

The whole walk over the verbs is slow; by default it is taken by those that compile, run and store.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mvlm.runtime.start_module import module_command
from tests.artifacts import ArtifactCache
from tests.cli.every_verb import COMMANDS, PROGRAM, SERVERS, Workspace, all_verbs, run_verb
from tests.reference import write_random_checkpoint

QUICK = ("chat", "targets", "inspect", "logs list", "jobs status")
VERBS = [
    pytest.param(verb, marks=[] if verb in QUICK else pytest.mark.slow) for verb in all_verbs()
]
COMPILES = pytest.param("chat", marks=pytest.mark.extended)
VERBS_BY_COST = [COMPILES, *(each for each in VERBS if each.values != ("chat",))]
# A user whom the system's user database does not know.
NOBODY = 54321
# They keep what they compile in the cache; without one they say so.
NEED_A_CACHE = ("chat", "demo")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that every user may enter and write to, unlike pytest's."""
    made = Path(tempfile.mkdtemp(prefix="mvlm-surroundings-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def workspace(folder: Path) -> Workspace:
    """A checkpoint, its artifact, and a cache that holds it too."""
    checkpoint = write_random_checkpoint(folder / "model", "text", seed=0, num_hidden_layers=1)
    made = Workspace(checkpoint, folder / "artifact", folder / "output")
    made.output.mkdir()
    cache = os.environ | {"MVLM_CACHE": os.fspath(folder / "cache")}
    chat = [PROGRAM, "chat", *COMMANDS["chat"][0](made)]
    subprocess.run(chat, env=cache, check=True, capture_output=True)
    (compiled,) = (folder / "cache" / "artifacts").glob("model-*")
    shutil.copytree(compiled, made.artifact)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    return made


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "MVLM_CACHE": os.fspath(folder / "cache"),
        "MVLM_TUNING_LOGS": os.fspath(folder / "logs"),
    }


def check_sentence(done: subprocess.CompletedProcess[bytes]) -> str:
    """What was said on standard error is for people."""
    said = done.stderr.decode()
    assert "Traceback" not in said and "internal error" not in said, said
    assert "Exception ignored" not in said, said
    return said


def tidy(workspace: Workspace) -> None:
    shutil.rmtree(workspace.output)
    workspace.output.mkdir()
    workspace.output.chmod(0o777)


# --- standard streams -----------------------------------------------------------------------------


@pytest.mark.extended
@pytest.mark.parametrize("verb", VERBS)
def test_closed_streams(verb: str, workspace: Workspace, environment: dict[str, str]) -> None:
    """Nothing is printed into a file that got a closed stream's number; failure is told by code."""
    done = run_verb(verb, workspace, environment=environment, streams="<&- >&- 2>&-")
    expected = COMMANDS[verb][1]
    assert done.returncode == (expected if expected or verb in SERVERS else 1)
    assert (done.stdout, done.stderr) == (b"", b"")
    tidy(workspace)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("streams", "words"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
)
def test_full_standard_output(
    verb: str, streams: str, words: str, workspace: Workspace, environment: dict[str, str]
) -> None:
    done = run_verb(verb, workspace, environment=environment, streams=streams)
    said, expected = check_sentence(done), COMMANDS[verb][1]
    if expected == 0:
        assert done.returncode == 1
        assert f"error: standard output cannot be written: found {words}" in said
    else:
        assert done.returncode == expected
    tidy(workspace)


@pytest.mark.parametrize("verb", VERBS)
def test_full_standard_error(verb: str, workspace: Workspace, environment: dict[str, str]) -> None:
    done = run_verb(verb, workspace, environment=environment, streams="2>/dev/full")
    assert done.returncode == COMMANDS[verb][1]
    tidy(workspace)


@pytest.mark.parametrize("prompt", [["--prompt", "-"], []])
def test_closed_standard_input(workspace: Workspace, prompt: list[str]) -> None:
    line = [PROGRAM, "chat", workspace.artifact, *prompt]
    done = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *line], capture_output=True)
    said = check_sentence(done)
    assert said == "error: standard input cannot be read: found Bad file descriptor\n"
    assert done.returncode == 1


# --- homes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OtherUser:
    """A user other than this one, whom the user database does not know.

    Attributes:
        program: What starts mvlm for this user.
        environment: The variables that it takes.
    """

    program: Sequence[str]
    environment: Mapping[str, str]

    def run(
        self, *arguments: str | Path, before: Sequence[str] = (), **variables: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*before, *self.program, *arguments],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            env={**self.environment, **variables},
            capture_output=True,
        )

    def run_verb(
        self, verb: str, workspace: Workspace, before: Sequence[str] = (), **variables: str
    ) -> subprocess.CompletedProcess[bytes]:
        ended = ["timeout", "--signal=TERM", "--preserve-status", "4"] if verb in SERVERS else []
        arguments = [*verb.split(), *COMMANDS[verb][0](workspace)]
        return self.run(*arguments, before=[*ended, *before], **variables)


@pytest.fixture(scope="module")
def other_user(folder: Path) -> OtherUser:
    """Where this user's Python is private, the system's takes the same packages."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    start = folder / "start"
    start.mkdir()
    (start / "sitecustomize.py").write_text(f"import site\nsite.addsitedir({packages!r})\n")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (start, *start.iterdir()):
        path.chmod(0o755)
    for python in (sys.executable, f"/usr/bin/{version}"):
        program = [python, *module_command("mvlm.cli")[1:]]
        user = OtherUser(program, {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(start)})
        with suppress(PermissionError, FileNotFoundError):
            if user.run("--version").returncode == 0:
                return user
    pytest.skip("no other user can run the program; only root can become one")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("home", ["none", "another user's"])
def test_no_home_folder(
    verb: str, home: str, workspace: Workspace, folder: Path, other_user: OtherUser
) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700, exist_ok=True)
    variables = {} if home == "none" else {"HOME": os.fspath(private)}
    done = other_user.run_verb(verb, workspace, **variables)
    said = check_sentence(done)
    if verb in NEED_A_CACHE:
        assert done.returncode == 2
        assert "et MVLM_CACHE to a folder that you can write to." in said
    else:
        assert done.returncode == COMMANDS[verb][1], said
    tidy(workspace)


# --- paths ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strange_workspace(workspace: Workspace, folder: Path) -> Workspace:
    """The same below a folder whose name is no UTF-8."""
    strange = Path(os.fsdecode(os.fsencode(folder) + b"/mod\xe9l"))
    strange.mkdir()
    shutil.copytree(workspace.checkpoint, strange / "ch\udce9ckpoint")
    shutil.copytree(workspace.artifact, strange / "\udcff")
    (strange / "output").mkdir()
    return Workspace(strange / "ch\udce9ckpoint", strange / "\udcff", strange / "output")


@pytest.mark.parametrize("verb", VERBS_BY_COST)
def test_paths_that_are_not_utf8(verb: str, strange_workspace: Workspace) -> None:
    """Also the cache's, and the current folder's."""
    environment = os.environ | {
        "MVLM_CACHE": os.fspath(strange_workspace.output / "cache"),
        "MVLM_TUNING_LOGS": os.fspath(strange_workspace.output / "logs"),
    }
    if verb == "demo":  # its model takes long to compile
        del environment["MVLM_CACHE"]
    done = run_verb(
        verb, strange_workspace, folder=strange_workspace.output, environment=environment
    )
    assert done.returncode == COMMANDS[verb][1], check_sentence(done)
    check_sentence(done)
    tidy(strange_workspace)


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGHUP, 129, marks=pytest.mark.extended)],
)
def test_signal_ends_the_compiling_child(
    number: signal.Signals, code: int, artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    """No process, no staging folder and no half of an artifact is left."""
    line = [
        PROGRAM,
        "chat",
        artifact_cache.checkpoint("text"),
        "--quant",
        "q0f16",
        "--prompt",
        "Hello",
    ]
    environment = os.environ | {"MVLM_CACHE": os.fspath(tmp_path)}
    chat = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE)
    try:
        wait_for_staging(tmp_path, chat)
        children = psutil.Process(chat.pid).children(recursive=True)
        assert children
        chat.send_signal(number)
        _, said = chat.communicate(timeout=100)
    finally:
        chat.kill()
    assert chat.returncode == code
    note, line = said.decode().splitlines()
    assert note.startswith("compiling ") and line == f"terminated by {number.name}"
    assert not [child for child in children if child.is_running()]
    assert not list((tmp_path / "artifacts").iterdir())


def wait_for_staging(cache: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 100
    while not list(cache.glob("artifacts/.*.staging-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.extended
def test_signal_ignored_by_the_caller(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    """As nohup does, so that a compilation outlives its terminal."""
    line = [
        PROGRAM,
        "compile",
        artifact_cache.checkpoint("text"),
        "--quant",
        "q0f16",
        "-o",
        tmp_path / "a",
    ]
    compiling = subprocess.Popen(
        ["nohup", *line], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not list(tmp_path.glob(".a.staging-*")):
        assert compiling.poll() is None
        time.sleep(0.02)
    compiling.send_signal(signal.SIGHUP)
    _, said = compiling.communicate(timeout=100)
    assert compiling.returncode == 0, said


# --- limits ---------------------------------------------------------------------------------------


def limited(option: str, number: int, *line: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = ["sh", "-c", f'ulimit {option} {number} && exec "$@"', "sh", *line]
    return subprocess.run(command, capture_output=True)


@pytest.mark.extended
def test_too_many_open_files(workspace: Workspace) -> None:
    done = limited("-n", 6, PROGRAM, "compile", workspace.checkpoint, "-o", workspace.output / "a")
    assert done.returncode == 1
    assert "Too many open files" in check_sentence(done)


@pytest.mark.parametrize("verb", ["compile", "chat", "bench"])
def test_process_limit(verb: str, workspace: Workspace, other_user: OtherUser) -> None:
    """Root has no such limit."""
    limit = ["bash", "-c", 'ulimit -u 1 && exec "$@"', "bash"]
    cache = os.fspath(workspace.output / "cache")
    done = other_user.run_verb(verb, workspace, before=limit, MVLM_CACHE=cache)
    assert done.returncode == 1
    assert "`ulimit -u` shows how many processes" in check_sentence(done)
    tidy(workspace)


def test_noexec_disk(workspace: Workspace, folder: Path) -> None:
    mounted = folder / "noexec"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "noexec,size=64m", "tmpfs", mounted]
    try:
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("may not mount a disk")
    except OSError:
        pytest.skip("there is no mount")
    try:
        shutil.copytree(workspace.artifact, mounted / "a")
        line = [PROGRAM, "chat", mounted / "a", "--prompt", "Hello"]
        done = subprocess.run(line, capture_output=True)
        assert done.returncode == 1
        assert "found one that is mounted with `noexec`" in check_sentence(done)
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.mark.parametrize("number", ["0", "-1", "1025", "1000000000000", "two"])
def test_bad_thread_numbers(number: str, workspace: Workspace) -> None:
    for verb in ("chat", "bench", "device-check"):
        done = subprocess.run(
            [PROGRAM, verb, workspace.artifact, "--threads", number], capture_output=True
        )
        assert done.returncode == 2
        assert b"--threads" in done.stderr


@pytest.mark.extended
def test_an_unbalanced_quote_in_cc(workspace: Workspace) -> None:
    line = [PROGRAM, "compile", workspace.checkpoint, "-o", workspace.output / "a"]
    done = subprocess.run(line, env=os.environ | {"CC": 'gcc "-O2'}, capture_output=True)
    assert done.returncode == 1
    assert "$CC is not a command line" in check_sentence(done)


# --- the cache ------------------------------------------------------------------------------------


@pytest.mark.extended
def test_a_cache_entry_without_a_manifest(
    workspace: Workspace, environment: dict[str, str]
) -> None:
    """A cleaner of old files took it; the entry is made again."""
    line = [PROGRAM, "chat", workspace.checkpoint, "--quant", "q0f32", "--prompt", "Hello"]
    subprocess.run(line, env=environment, capture_output=True, check=True)
    (entry,) = Path(environment["MVLM_CACHE"], "artifacts").iterdir()
    (entry / "manifest.json").unlink()
    done = subprocess.run(line, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]


@pytest.mark.extended
def test_a_printed_path_is_the_bytes_that_it_is(strange_workspace: Workspace) -> None:
    """So that a script can go on with it."""
    line = [PROGRAM, "compile", strange_workspace.checkpoint, "--quant", "q0f32"]
    environment = os.environ | {"MVLM_CACHE": os.fspath(strange_workspace.output / "cache")}
    done = subprocess.run(line, env=environment, capture_output=True, check=True)
    printed = Path(os.fsdecode(done.stdout.splitlines()[0]))
    assert (printed / "manifest.json").is_file()
    tidy(strange_workspace)
