"""The steps of calibrated jobs: calibrated once, resumed after a failure, refused on other data."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvlm.compile.calibration import find
from mvlm.compile.jobs.execute import execute_step
from mvlm.compile.jobs.matrix import read_matrix
from mvlm.compile.jobs.messages import WEIGHTS, StepRequest, parse_step_request
from mvlm.compile.jobs.plan import Step, plan_matrix
from mvlm.compile.jobs.store import Store
from mvlm.compile.jobs.store.results import ArtifactResult
from mvlm.runtime.artifact import verify_artifact
from mvlm.runtime.errors import CheckpointError
from tests.reference import write_random_checkpoint

MATRIX = """
    models = ["model"]
    quantizations = [{ scheme = "q4a8", calibrate = "own.txt", calibration_tokens = 2048 }]
    targets = ["host", "portable"]
    logs = []
"""


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Step, ...]:
    """Weights of two layouts and their artifacts; the cache is empty."""
    monkeypatch.setenv("MVLM_CACHE", str(tmp_path / "cache"))
    write_random_checkpoint(tmp_path / "model", "text", seed=0)
    (tmp_path / "own.txt").write_text("A red circle is left of a blue square. " * 500)
    (tmp_path / "matrix.toml").write_text(MATRIX)
    return plan_matrix(read_matrix(tmp_path / "matrix.toml"), tmp_path / "logs").steps


def request(step: Step) -> StepRequest:
    """Return the request for a step, as it reaches a worker."""
    made = StepRequest(step.kind, step.key, step.name, step.weights, step.job, "store", "run")
    return parse_step_request(made.to_json())


def test_steps_of_all_layouts_calibrate_once_and_resume(
    steps: tuple[Step, ...], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, portable, *artifacts = steps
    assert [step.kind for step in steps[:2]] == [WEIGHTS, WEIGHTS]

    def die(step: str, done: int, total: int) -> None:
        if step == "calibrate" and done > total // 2:
            raise MemoryError

    with pytest.raises(MemoryError):
        execute_step(request(host), store, tmp_path / "first", die)
    kept = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "cache").rglob("calibrations/*/*.safetensors")
    }
    assert kept and store.weights(host.key) is None
    execute_step(request(host), store, tmp_path / "again", lambda step, done, total: None)
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())

    monkeypatch.setattr(find, "Calibration", None)
    execute_step(request(portable), store, tmp_path / "portable", lambda step, done, total: None)
    packed = [store.weights(step.key) for step in (host, portable)]
    assert packed[0] is not None and packed[1] is not None
    assert {each.sha256 for each in packed[0].files} != {each.sha256 for each in packed[1].files}
    # An artifact takes the packed weights: it needs no data any more.
    (tmp_path / "own.txt").unlink()
    made = execute_step(
        request(artifacts[0]), store, tmp_path / "artifact", lambda step, done, total: None
    )
    assert isinstance(made, ArtifactResult)
    verify_artifact(tmp_path / "artifact" / "artifact")


def test_workers_refuse_other_data(steps: tuple[Step, ...], store: Store, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("A blue square is right of a red circle. " * 500)
    with pytest.raises(CheckpointError, match="calibration data changed"):
        execute_step(request(steps[0]), store, tmp_path / "step", lambda step, done, total: None)
