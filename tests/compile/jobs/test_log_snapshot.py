"""Tuning logs that travel with jobs: what was planned with is what is applied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvlm.compile.job import plan_job
from mvlm.compile.jobs.log_snapshot import snapshot_folders, snapshot_logs
from mvlm.compile.jobs.matrix import MatrixError, read_matrix
from mvlm.compile.jobs.messages import ARTIFACT, WEIGHTS, StepRequest, parse_step_request
from mvlm.compile.jobs.plan import MatrixPlan, plan_matrix
from mvlm.compile.tuning_log import read_log_files
from mvlm.compile.tuning_log.paths import (
    LOGS_VARIABLE,
    PROVENANCE_FILE,
    RECORDS_FILE,
    WORKLOADS_FILE,
)
from mvlm.runtime.errors import ArtifactError
from tests.reference import write_random_checkpoint


def write_log(folder: Path, text: str, target: str = "host") -> Path:
    """Write what looks like a log: only its target's name is ever read here."""
    folder.mkdir(parents=True)
    (folder / PROVENANCE_FILE).write_text(json.dumps({"target": {"name": target}}))
    (folder / WORKLOADS_FILE).write_text("")
    (folder / RECORDS_FILE).write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and a user's folder of logs."""
    monkeypatch.setenv(LOGS_VARIABLE, str(tmp_path / "user"))
    write_log(tmp_path / "user" / "mine", "the user's")
    write_random_checkpoint(tmp_path / "text", "text", seed=0, num_hidden_layers=1)
    return tmp_path


def plan(folder: Path, keys: str) -> MatrixPlan:
    path = folder / "matrix.toml"
    path.write_text(f'models = ["text"]\n{keys}', encoding="utf-8")
    return plan_matrix(read_matrix(path), folder / "copies")


def test_log_snapshot_copies_logs_of_the_target_once(tmp_path: Path) -> None:
    first = write_log(tmp_path / "a" / "host-x", "first")
    second = write_log(tmp_path / "b" / "host-x", "second")
    again = write_log(tmp_path / "c" / "host-x", "first")
    write_log(tmp_path / "a" / "phone", "other", target="phone")
    (write_log(tmp_path / "a" / "bad", "") / PROVENANCE_FILE).write_text("{")
    places = [tmp_path / "b", first, again, tmp_path / "a"]
    entries = snapshot_logs("host", places, tmp_path / "copies")
    found = snapshot_folders(entries, tmp_path / "copies")
    assert [place.name for place in found] == ["host-x", "host-x"]
    assert list(map(read_log_files, found)) == [read_log_files(second), read_log_files(first)]
    assert snapshot_logs("board", places, tmp_path / "copies") == ()


def test_matrix_plan_keeps_its_log_snapshot(folder: Path) -> None:
    made = plan(folder, "")
    weights, artifact = made.steps
    assert weights.job.logs == () and artifact.job.logs
    # Somebody tunes on, and another machine has other logs.
    (folder / "user" / "mine" / RECORDS_FILE).write_text("more")
    asked = StepRequest(ARTIFACT, artifact.key, "", "", artifact.job, "store", "run")
    again = parse_step_request(asked.to_json())
    assert again == asked
    assert again.job.plan(made.logs).key(again.job.digest) == artifact.key
    assert plan(folder, "").artifacts[0].key != artifact.key
    assert plan(folder, "logs = []").artifacts[0].job.logs == ()


def test_log_snapshot_of_a_matrix_that_names_logs(folder: Path) -> None:
    write_log(folder / "ours" / "board", "ours")
    (step,) = plan(folder, 'logs = ["ours"]').artifacts
    assert [Path(entry.path).parts[1:] for entry in step.job.logs] == [
        ("board", name) for name in (PROVENANCE_FILE, WORKLOADS_FILE, RECORDS_FILE)
    ]
    key = plan_job(folder / "text", logs=[folder / "ours"]).key()
    assert step.key == key  # as of `mvlm compile --logs ours`
    weights = [each for each in plan(folder, "").steps if each.kind == WEIGHTS]
    assert step.weights == weights[0].key


def test_missing_logs_are_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(
        MatrixError, match=r"matrix\.toml: logs: there is no tuning log in .*/nowhere: expected"
    ):
        plan(folder, 'logs = ["nowhere"]')
    with pytest.raises(MatrixError, match=r"empty: expected .*found neither"):
        plan(folder, 'logs = ["empty"]\ntargets = ["host", "snapdragon-888-cpu"]')
    with pytest.raises(MatrixError, match=r"key 'logs' is wrong: expected a list"):
        plan(folder, 'logs = "ours"')


def test_step_request_with_log_paths_outside_is_refused(folder: Path) -> None:
    (step,) = plan(folder, "").artifacts
    request = json.loads(StepRequest(ARTIFACT, step.key, "", "", step.job, "s", "r").to_json())
    for path in ("/etc/passwd", "../../x", ""):
        request["job"]["logs"][0]["path"] = path
        with pytest.raises(ArtifactError, match="leads out"):
            parse_step_request(json.dumps(request))
