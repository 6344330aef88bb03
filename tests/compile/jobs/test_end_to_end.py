"""Real models, compiled by real workers, from a matrix to a chat."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from mvlm.compile.driver import compile_job, pack_job
from mvlm.compile.job import plan_job
from mvlm.compile.jobs.store import Store, open_store
from mvlm.compile.packing import PackedWeights
from mvlm.models.quantization import plan_quantization
from mvlm.runtime.artifact import layout, verify_artifact
from mvlm.runtime.artifact.weights import read_weights_index
from mvlm.runtime.errors import ArtifactError
from tests.cli.command_line import finish, mvlm, start
from tests.compile.jobs.boards import write_board
from tests.no_code import generate_no_code
from tests.reference import write_random_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matrix of one small model, one scheme and two devices."""
    folder = tmp_path_factory.mktemp("matrix")
    write_random_checkpoint(folder / "model", "text", seed=0, num_hidden_layers=1)
    write_board(folder / "board.toml")
    (folder / "matrix.toml").write_text(
        'store = "store"\nmodels = ["model"]\nquantizations = ["q0f32"]\n'
        'targets = ["host", "board.toml"]\n'
    )
    return folder


def store_of(folder: Path) -> Store:
    return open_store(str(folder / "store"))


def wait_for(folder: Path, name: str, text: str, seconds: float = 300) -> None:
    """Wait until a log of the latest run says something."""
    store, deadline = store_of(folder), time.monotonic() + seconds
    while time.monotonic() < deadline:
        runs = store.files.names("runs")
        if runs:
            run = store.runs.find(None)
            step = next(step for step in run.steps if step.name == name)
            if text in store.runs.log(run.id, step.key):
                return
        time.sleep(0.02)
    raise AssertionError(f"{name} never said {text!r}")


@pytest.mark.extended
def test_killed_run_is_resumed_and_fetched(folder: Path) -> None:
    """The coordinator is killed in the middle; the next run finishes, and nothing is done twice."""
    first = start("jobs", "run", folder / "matrix.toml", "--workers", "1")
    wait_for(folder, "model/q0f32/host", "compile: code")
    os.kill(first.pid, signal.SIGKILL)
    finish(first)
    store = store_of(folder)
    assert len(store.files.names("weights")) == 1
    assert store.files.names("artifacts") == []
    killed = store.runs.find(None)
    status = mvlm("jobs", "status", "--store", folder / "store", "--json").json
    assert (status["run"], status["state"]) == (killed.id, "lost")

    second = mvlm("jobs", "run", folder / "matrix.toml", "--json")
    assert second.exit_code == 0, second.stderr
    document = second.json
    assert document["state"] == "done" and document["counts"]["done"] == 2
    assert [step["state"] for step in document["weights"]] == ["reused"]
    assert len(store.files.names("artifacts")) == 2
    assert store.files.names("leases") == [] and store.files.names("tmp") == []
    report = json.loads(Path(document["reports"]["json"].removeprefix("file://")).read_text())
    assert report["run"] == document["run"]

    third = mvlm("jobs", "run", folder / "matrix.toml", "--json", "--verify")
    assert third.json["counts"] == second.json["counts"] | {"done": 0, "reused": 2}

    fetched = mvlm("jobs", "fetch", "--store", folder / "store", "-o", folder / "out", "--json")
    assert fetched.exit_code == 0, fetched.stderr
    places = [Path(each["artifact"]) for each in fetched.json["artifacts"]]
    assert [place.name for place in places] == ["model-q0f32-host", "model-q0f32-board"]
    manifests = [verify_artifact(place) for place in places]
    assert [manifest.target.name for manifest in manifests] == ["host", "board"]
    index = [manifest.file(layout.WEIGHTS_INDEX).sha256 for manifest in manifests]
    assert index[0] == index[1]  # weights are stored once
    answer = mvlm("chat", places[0], "--prompt", "Hello", "--max-tokens", "3", "--json")
    assert answer.json["usage"]["completion_tokens"] <= 3

    # What a matrix compiles is what `mvlm compile` compiles.
    alone = compile_job(plan_job(folder / "model", quantization="q0f32"), folder / "alone")
    assert {e.path: e.sha256 for e in alone.files} == {e.path: e.sha256 for e in manifests[0].files}
    assert alone.provenance == manifests[0].provenance

    one = mvlm(
        "jobs", "fetch", "model/q0f32/board", "--store", folder / "store", "-o", folder / "b"
    )
    assert one.exit_code == 0 and verify_artifact(folder / "b") == manifests[1]
    logs = mvlm("jobs", "logs", document["run"], "model/q0f32/board", "--store", folder / "store")
    assert "compile: code" in logs.stdout and "done in" in logs.stdout


def test_packed_weights_of_another_layout_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_no_code(monkeypatch)
    job, other = (
        plan_job(folder / "model", quantization="q8a8", target=target)
        for target in ("host", "portable")
    )
    assert job.weights_key() != other.weights_key()
    pack_job(other, tmp_path / "packed")
    assert read_weights_index(tmp_path / "packed").layout == "rows"
    packed = PackedWeights(tmp_path / "packed", "0" * 64)
    with pytest.raises(
        ArtifactError, match=r"another layout.*expected panels16, found rows\. Pack"
    ):
        compile_job(job, tmp_path / "out", weights=packed)
    assert not (tmp_path / "out").exists()
    compile_job(other, tmp_path / "out", weights=packed)
    assert read_weights_index(tmp_path / "out").layout == "rows"


def test_packed_weights_of_another_model_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_no_code(monkeypatch)
    job = plan_job(folder / "model", quantization="q0f32")
    other = plan_job(folder / "model", quantization=plan_quantization("q0f16"))
    pack_job(other, tmp_path / "packed")
    assert (tmp_path / "packed" / layout.TOKENIZER).is_file()
    with pytest.raises(ArtifactError, match="are not this model's"):
        compile_job(job, tmp_path / "out", weights=PackedWeights(tmp_path / "packed", "0" * 64))
    assert not (tmp_path / "out").exists()


# --- the command line ---------------------------------------------------------------------------


def test_matrix_errors_start_nothing(folder: Path, tmp_path: Path) -> None:
    matrix = tmp_path / "matrix.toml"
    for text, words in (
        ('models = ["nowhere"]', "no store is named"),
        (f'models = ["{folder}/model"]\nstore = "store"\ntargets = ["hots"]', "unknown target"),
        ('models = ["a"]\nstoer = "x"', "expected store, found no such key"),
        ('include = ["matrix.toml"]', "matrix.toml includes matrix.toml"),
    ):
        matrix.write_text(text)
        result = mvlm("jobs", "run", matrix)
        assert result.exit_code == 2, result.stderr
        assert words in result.stderr and result.stderr.count("\n") == 1
    result = mvlm("jobs", "run", matrix, "--engine", "rey")
    assert result.exit_code == 2
    assert not (tmp_path / "store").exists()


def test_verbs_refuse_a_store_without_runs(tmp_path: Path) -> None:
    for verb in ("status", "logs", "cancel"):
        result = mvlm("jobs", verb, "--store", tmp_path)
        assert result.exit_code == 2 and "none yet" in result.stderr


@pytest.mark.extended
def test_failed_job_exit_code_and_log(tmp_path: Path) -> None:
    """It is reported with its log."""
    model = write_random_checkpoint(tmp_path / "model", "text", seed=0, num_hidden_layers=1)
    board = write_board(tmp_path / "board.toml")
    board.write_text(board.read_text() + '\n[toolchain]\nlinker = "false"\n')
    matrix = tmp_path / "matrix.toml"
    matrix.write_text(f'models = ["{model}"]\nquantizations = ["q0f32"]\ntargets = ["board.toml"]')
    store = tmp_path / "store"
    result = mvlm("jobs", "run", matrix, "--store", store)
    assert result.exit_code == 1
    assert "failed: model/q0f32/board: compiling thread_pool.c with false failed" in result.stderr
    assert "mvlm jobs logs" in result.stderr
    assert "1 failed" in result.stdout
    logs = mvlm("jobs", "logs", "--store", store)
    assert "--- model/q0f32/board" in logs.stdout and "compiling thread_pool.c" in logs.stdout
    cancelled = mvlm("jobs", "cancel", "--store", store)
    assert "has ended: failed" in cancelled.stdout


def test_ctrl_c_kills_workers(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = start("jobs", "run", folder / "matrix.toml", "--store", store, "--json")
    wait_for(tmp_path, "model/q0f32 weights (panels16)", "weights")
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert result.exit_code == 130 and "interrupted" in result.stderr
    opened = open_store(str(store))
    assert opened.runs.find(None).state == "cancelled"
    assert opened.files.names("leases") == [] and opened.files.names("tmp") == []
