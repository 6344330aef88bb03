"""Finding the artifact of a checkpoint, and compiling it in a child process if there is none."""

from __future__ import annotations

import errno
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from mvlm.compile import compiler_process
from mvlm.compile.cache import find_or_compile
from mvlm.compile.child_error import error_from_json, error_to_json
from mvlm.compile.compiler_process import CompileRequest, compile_in_child
from mvlm.runtime.artifact import verify_artifact
from mvlm.runtime.errors import CheckpointError, MvlmError, TargetError, UsageError
from mvlm.runtime.progress import no_progress
from tests.artifacts import ArtifactCache


@pytest.fixture
def request_(artifact_cache: ArtifactCache) -> CompileRequest:
    return CompileRequest(artifact_cache.checkpoint("text"), "q0f32")


def test_a_checkpoint_is_compiled_once(request_: CompileRequest, empty_cache: Path) -> None:
    begun, steps, warnings = list[tuple[str, Path]](), list[str](), list[str]()

    def find() -> Path:
        return find_or_compile(
            request_,
            begin=lambda job, artifact: begun.append((job.name, artifact)),
            progress=lambda step, done, total: steps.append(f"{step} {done}/{total}"),
            warn=warnings.append,
        )

    artifact = find()
    assert artifact.parent == empty_cache / "artifacts"
    verify_artifact(artifact)
    assert begun == [("text", artifact)]
    assert steps[0] == "compile: starting 0/1" and steps[-1] == "manifest 1/1"
    assert any(step.startswith("weights ") for step in steps)
    counted, written = len(steps), (artifact / "manifest.json").stat().st_mtime_ns
    assert find() == artifact
    assert (len(begun), len(steps), warnings) == (1, counted, [])
    assert (artifact / "manifest.json").stat().st_mtime_ns == written


def test_other_options_are_another_artifact(
    artifact_cache: ArtifactCache, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = list[CompileRequest]()
    monkeypatch.setattr(
        "mvlm.compile.cache.compile_in_child", lambda request, *_: compiled.append(request)
    )
    checkpoint = artifact_cache.checkpoint("linear")
    requests = [
        CompileRequest(checkpoint),
        CompileRequest(checkpoint, "q4a8", "q8a8"),
        CompileRequest(checkpoint, "q0f32"),
    ]
    assert len({find_or_compile(request) for request in requests}) == 3
    assert compiled == requests


@pytest.mark.usefixtures("empty_cache")
def test_an_unknown_scheme_starts_no_compiler(
    artifact_cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(subprocess, "Popen")
    with pytest.raises(UsageError, match="unknown quantization"):
        find_or_compile(CompileRequest(artifact_cache.checkpoint("text"), "q1"))


@pytest.mark.extended
def test_an_error_of_the_compiler_is_raised_here(request_: CompileRequest, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UsageError, match="is in the way") as caught:
        compile_in_child(request_, tmp_path, no_progress, lambda text: None)
    assert caught.value.exit_code == 2
    assert caught.value.expected == "nothing or an empty folder, or one to replace"
    # With --debug the command line shows where it was raised.
    shown = "".join(traceback.format_exception(caught.value))
    assert "in compile_job" in shown and "atomic_directory" in shown


def test_a_warning_of_the_compiler_is_passed_on(
    request_: CompileRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        compiler_process,
        "module_command",
        lambda module, descriptor: _says(descriptor, '["warning", "mind the gap"]'),
    )
    warnings = list[str]()
    compile_in_child(request_, tmp_path, no_progress, warnings.append)
    assert warnings == ["mind the gap"]


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("os.kill(os.getpid(), 9)", "found SIGKILL. The system does that where memory runs out"),
        ("sys.exit(7)", "found exit code 7"),
    ],
)
def test_a_compiler_that_was_killed(
    request_: CompileRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    words: str,
) -> None:
    """In the midst of a message, too."""
    monkeypatch.setattr(
        compiler_process,
        "module_command",
        lambda module, descriptor: _says(descriptor, '["progr', end="", then=ending),
    )
    with pytest.raises(TargetError, match=words):
        compile_in_child(request_, tmp_path, no_progress, lambda text: None)


def _says(descriptor: str, line: str, end: str = r"\n", then: str = "pass") -> list[str]:
    code = f"import os, sys; os.write({descriptor}, b'{line}{end}'); {then}"
    return [sys.executable, "-c", code]


@pytest.mark.extended
def test_an_interrupt_ends_the_compiler_and_leaves_nothing(
    request_: CompileRequest, tmp_path: Path
) -> None:
    """What a signal raises here is raised wherever this process is, as in a callback."""
    seen = list[Path]()

    def progress(step: str, done: int, total: int) -> None:
        if step == "compile: fuse":
            seen.extend(tmp_path.glob(".artifact.staging-*"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_in_child(request_, tmp_path / "artifact", progress, lambda text: None)
    assert len(seen) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        CheckpointError("the weights", expected=("a", 1), found=None, fix="Mend them."),
        UsageError("--quant"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "somewhere"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        ModuleNotFoundError("No module named 'tvm'", name="tvm"),
        MemoryError(),
        RuntimeError("can't start new thread"),
    ],
)
def test_errors_cross_processes(error: Exception) -> None:
    made = error_from_json(*error_to_json(error))
    assert type(made) is type(error) and str(made) == str(error)
    for name in ("fix", "errno", "filename", "name"):
        assert getattr(made, name, None) == getattr(error, name, None)


def test_other_errors_cross_processes_with_their_name() -> None:
    made = error_from_json(*error_to_json(ZeroDivisionError("by zero")))
    assert not isinstance(made, MvlmError)
    assert str(made) == "ZeroDivisionError: by zero"
