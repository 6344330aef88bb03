"""Whatever ends a compilation early, no half of an artifact is taken for a whole one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mvlm.compile.cache import is_artifact
from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.runtime.artifact import staging, verify_artifact
from mvlm.runtime.artifact.layout import MANIFEST
from mvlm.runtime.errors import ArtifactError
from tests.reference import write_random_checkpoint

OLD = "an artifact that was there before"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer, which compiles in little more than a second."""
    folder = tmp_path_factory.mktemp("small") / "model"
    return write_random_checkpoint(folder, "text", seed=0, num_hidden_layers=1)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ended_early(checkpoint: Path, folder: Path, faults: list[str]) -> list[str]:
    """How compilations with these faults ended."""
    for index in range(len(faults)):
        old = folder / str(index) / "artifact"
        old.mkdir(parents=True)
        (old / MANIFEST).write_text(OLD)
    result = subprocess.run(
        [sys.executable, "-m", "tests.compile.interrupted", checkpoint, folder, *faults],
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    ends: list[str] = json.loads(result.stdout)
    return ends


def check(folder: Path, faults: list[str], ends: list[str]) -> None:
    """What was there before still is; leftovers are no artifacts, and the next one sweeps them."""
    for index, (fault, end) in enumerate(zip(faults, ends, strict=True)):
        parent = folder / str(index)
        destination = parent / "artifact"
        if end == "done":
            # TVM can lose a signal that comes inside one of its destructors.
            verify_artifact(destination)
            assert names(parent) == ["artifact"]
            continue
        assert (destination / MANIFEST).read_text() == OLD, fault
        leftovers = [path for path in parent.iterdir() if path != destination]
        assert len(leftovers) == (end == "kill"), fault
        for leftover in leftovers:
            assert leftover.name.startswith(".artifact.staging-")
            assert not is_artifact(leftover)
            with pytest.raises(ArtifactError):
                verify_artifact(leftover)
        with staging.atomic_directory(destination) as new:
            (new / MANIFEST).write_text("new")
        assert names(parent) == ["artifact"]


@pytest.mark.extended
def test_compile_ended_early(checkpoint: Path, tmp_path: Path) -> None:
    """By a kill, by Ctrl-C in one of our passes, by files that cannot grow as on a full disk."""
    faults = {
        "SIGKILL@compile: code": "kill",
        "SIGKILL@manifest": "kill",
        "SIGINT@compile: schedule": "interrupt",
        "LIMIT@1024": "ArtifactError: cannot write",
    }
    check_faults(checkpoint, tmp_path, faults)


def check_faults(checkpoint: Path, folder: Path, faults: dict[str, str]) -> None:
    ends = ended_early(checkpoint, folder, list(faults))
    for end, expected in zip(ends, faults.values(), strict=True):
        assert end.startswith(expected)
        assert "Error" not in end or "no space left" in end
    check(folder, list(faults), ends)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bits",
    [
        pytest.param((21, 6), id="what we write ourselves"),
        pytest.param((18, 14), id="object files"),
    ],
)
def test_compile_with_a_file_size_limit(
    checkpoint: Path, tmp_path: Path, bits: tuple[int, ...]
) -> None:
    faults = {f"LIMIT@{1 << limit}": "ArtifactError: cannot write" for limit in bits}
    check_faults(checkpoint, tmp_path, faults)


@pytest.mark.slow
@pytest.mark.parametrize("signal", ["SIGKILL", "SIGINT"])
def test_compile_ended_early_at_every_step(checkpoint: Path, tmp_path: Path, signal: str) -> None:
    steps = ["graph", "kernels", "fuse", "schedule", "lower", "code", "link"]
    faults = [f"{signal}@compile: {step}" for step in steps] + [f"{signal}@weights"]
    ends = ended_early(checkpoint, tmp_path, faults)
    assert set(ends) == {"kill" if signal == "SIGKILL" else "interrupt"}
    check(tmp_path, faults, ends)


@pytest.mark.slow
def test_compile_interrupted_at_any_time(checkpoint: Path, tmp_path: Path) -> None:
    """Also inside TVM, which runs our passes as callbacks of its own."""
    times = np.random.default_rng(0).uniform(0.05, 4, 16)
    faults = [f"SIG{'KILL' if i % 4 == 0 else 'INT'}@{time:.2f}" for i, time in enumerate(times)]
    ends = ended_early(checkpoint, tmp_path, faults)
    assert set(ends) <= {"kill", "interrupt", "done"}
    assert "interrupt" in ends
    check(tmp_path, faults, ends)


# --- a full disk --------------------------------------------------------------------------------


def test_compile_on_a_full_disk(checkpoint: Path, small_disk: Path) -> None:
    old = small_disk / "artifact"
    old.mkdir()
    (old / MANIFEST).write_text(OLD)
    with pytest.raises(ArtifactError, match=rf"cannot write {old}.*no space left.*Free some space"):
        compile_job(plan_job(checkpoint, quantization="q0f32"), old)
    assert (old / MANIFEST).read_text() == OLD
    assert names(small_disk) == ["artifact"]


# --- at once ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_compilations_to_one_folder(checkpoint: Path, tmp_path: Path) -> None:
    """Each is whole; the last one stays."""
    program = (
        "import sys; from pathlib import Path; from mvlm.compile.driver import compile_job; "
        "from mvlm.compile.job import plan_job; "
        "compile_job(plan_job(Path(sys.argv[1]), quantization=sys.argv[3]), Path(sys.argv[2]))"
    )
    schemes = ("q0f32", "q0f16")
    destination = tmp_path / "artifact"
    children = [
        subprocess.Popen([sys.executable, "-c", program, checkpoint, destination, scheme])
        for scheme in schemes
    ]
    assert [child.wait(300) for child in children] == [0, 0]
    assert verify_artifact(destination).quantization["language"] in schemes
    assert names(tmp_path) == ["artifact"]
