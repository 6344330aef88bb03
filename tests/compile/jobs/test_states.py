"""The documents of runs and steps, which any machine may read and anybody may have written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.compile.jobs.process import this_process
from mvlm.compile.jobs.states import (
    MAX_STATE_BYTES,
    STATES,
    MatrixRun,
    StepEntry,
    StepState,
    parse_run,
    parse_state,
)
from mvlm.compile.jobs.store import open_store
from mvlm.compile.jobs.store.runs import new_run_id
from mvlm.runtime.errors import ArtifactError, UsageError
from tests.compile.jobs.fakes import key_of

RUN = MatrixRun(
    id="20261126-041232-00ffee",
    matrix="matrix.toml",
    engine="local",
    owner=this_process(),
    started=1.5,
    state="running",
    steps=(StepEntry(key_of("a"), "artifact", "a", {"model": "m", "target": "host"}),),
)


@given(
    st.builds(
        StepState,
        state=st.sampled_from(STATES),
        attempts=st.integers(0, 9),
        worker=st.text(max_size=50),
        started=st.none() | st.floats(0, 1e10),
        seconds=st.none() | st.floats(0, 1e6),
        peak_bytes=st.none() | st.integers(0, 1 << 50),
        result_bytes=st.none() | st.integers(0, 1 << 50),
        note=st.text(max_size=50),
    )
)
def test_step_state_round_trip(state: StepState) -> None:
    assert parse_state(state.to_bytes(), "here") == state


def test_long_step_notes_are_cut() -> None:
    data = StepState(note="x" * 1_000_000).to_bytes()
    assert len(data) < MAX_STATE_BYTES
    assert len(parse_state(data, "here").note) == 2_000


def test_matrix_run_round_trip() -> None:
    assert parse_run(RUN.to_bytes(), "here") == RUN
    ended = replace(RUN, state="done", ended=2.5)
    assert parse_run(ended.to_bytes(), "here") == ended


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../../etc"},
        {"state": "strange"},
        {"schema": 3},
        {"started": "now"},
        {"owner": {}},
        {"steps": [{}]},
        {"steps": [{"key": "../x", "kind": "artifact", "name": "a", "labels": {}}]},
        {"steps": [{"key": "0" * 64, "kind": "other", "name": "a", "labels": {}}]},
        {"steps": [{"key": "0" * 64, "kind": "artifact", "name": "a", "labels": {"model": 1}}]},
    ],
)
def test_malformed_runs(changes: dict[str, Any]) -> None:
    data = json.dumps(json.loads(RUN.to_bytes()) | changes).encode()
    with pytest.raises(ArtifactError):
        parse_run(data, "here")


def test_runs_of_another_version_are_refused_with_what_to_do(tmp_path: Path) -> None:
    """Version 1 called labels a place, and a process's PID namespace its space."""
    values = json.loads(RUN.to_bytes())
    owner, steps = values["owner"], values["steps"]
    owner["space"] = owner.pop("pid_namespace")
    old = values | {"schema": 1, "steps": [{**step, "place": step.pop("labels")} for step in steps]}
    folder = tmp_path / "runs" / RUN.id
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(old))
    with pytest.raises(ArtifactError, match="Run the matrix again with this version") as caught:
        open_store(str(tmp_path)).runs.find(None)
    assert "was written by another version of mvlm: expected schema 2, found schema 1" in str(
        caught.value
    )


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_any_run_or_state_content_is_refused(data: bytes) -> None:
    for parse in (parse_run, parse_state):
        with pytest.raises(ArtifactError):
            parse(data, "here")


def test_find_runs_by_name(tmp_path: Path) -> None:
    runs = open_store(str(tmp_path)).runs
    with pytest.raises(UsageError, match="none yet"):
        runs.find(None)
    other = replace(RUN, id="20261126-051232-00ffee")
    for run in (other, RUN):
        runs.write(run)
    assert runs.find(None) == other  # the latest by its name
    assert runs.find("20261126-0412") == RUN
    for name in ("20261126", "2025", "../.."):
        with pytest.raises(UsageError, match=r"expected one of 20261126-041232-00ffee"):
            runs.find(name)
    (tmp_path / "runs" / "..not a run").mkdir()
    assert runs.find(None) == other


def test_run_ids_sort_by_time() -> None:
    assert new_run_id() > RUN.id
    assert new_run_id() != new_run_id()
