"""Tuning logs: failed writes lose no earlier line; damaged lines are quarantined."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.compile.tuning_log import (
    Database,
    LogKey,
    Provenance,
    TaskResult,
    TuningDatabase,
    TuningRecord,
    TuningRun,
    find_logs,
    log_name,
    logs_digest,
    read_log,
)
from mvlm.compile.tuning_log.curve import best_so_far, draw_curves, sparkline
from mvlm.compile.tuning_log.edit import merge_logs, prune_log
from mvlm.compile.tuning_log.paths import (
    PROVENANCE_FILE,
    QUARANTINE,
    RECORDS_FILE,
    WORKLOADS_FILE,
)
from mvlm.compile.tuning_log.trace import KNOB_PREFIX, read_config, try_read_config
from mvlm.runtime.errors import ArtifactError, UsageError

OPTIONS = {"kind": "llvm", "mcpu": "znver4", "mattr": ["+avx2"]}
VERSIONS = {"apache-tvm": "0.27.0", "mvlm": "1"}


def provenance(**changes: object) -> Provenance:
    device = {"machine": {"cpu": "a CPU", "is_emulated": False}, "threads": 2, "state": {}}
    return dataclasses.replace(Provenance("host", OPTIONS, VERSIONS, device), **changes)  # type: ignore[arg-type]


def trace_of(knobs: dict[str, tuple[tuple[int, ...], int]]) -> list[object]:
    """Return the trace that makes choices; :func:`read_config` reads it.

    Args:
        knobs: By name, what can be chosen, and what is.
    """
    instructions: list[object] = [["GetSBlock", [], ["root", "main"], ["b0"]]]
    decisions: list[object] = []
    for number, (name, (values, value)) in enumerate(knobs.items(), start=1):
        even = [1 / len(values)] * len(values)
        decisions.append([len(instructions), values.index(value)])
        instructions.append(["SampleCategorical", [], [list(values), even], [f"v{number}"]])
        instructions.append(["Annotate", ["b0", f"v{number}"], [KNOB_PREFIX + name], []])
    return [instructions, decisions]


def measured(workload: int, *seconds: float, rows: int = 4) -> TuningRecord:
    trace = trace_of({"tile_m": ((1, 2, 4, 8), rows)})
    return TuningRecord(workload, [trace, list(seconds), OPTIONS, None])


def task_result(workload: int, record: int | None = None, **changes: object) -> TaskResult:
    base = TaskResult(
        name=f"kernel{workload}",
        operation="linear",
        workload=workload,
        trials=3,
        default_seconds=2.0,
        tuned_seconds=1.0,
        gain=0.5,
        noise=0.01,
        record=record,
        error=0.1,
        date="2026-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def a_run(date: str = "2026-01-01T00:00:00+00:00") -> TuningRun:
    return TuningRun(date, "model", 3, 0, "xgboost", 1.5, {"this machine": {}}, {}, True)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of two tasks with three measurements."""
    folder = tmp_path / "logs" / "host"
    with TuningDatabase(folder) as writable:
        for name in ("first", "second"):
            writable.commit_workload(json.dumps([name, "e30="]))
        for record in (measured(0, 2.0), measured(0, 1.0, rows=8), measured(1, 3.0)):
            writable.commit_tuning_record(record)
        results = {"a": task_result(0, record=1), "b": task_result(1)}
        writable.write_provenance(provenance(runs=(a_run(),), results=results))
    return folder


def test_what_was_written_is_read(log: Path) -> None:
    found = read_log(log)
    assert found.provenance == provenance(
        runs=(a_run(),), results={"a": task_result(0, record=1), "b": task_result(1)}
    )
    assert [record.median for record in found.contents.records] == [2.0, 1.0, 3.0]
    assert read_config(found.contents.records[1].trace) == {"tile_m": 8}
    assert not found.damaged


@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=5),
        st.lists(st.integers(0, 999), min_size=1, max_size=5, unique=True),
        max_size=4,
    ),
    st.randoms(),
)
def test_choices_are_read_from_their_trace(knobs: dict[str, list[int]], random: object) -> None:
    chosen = {name: random.choice(values) for name, values in knobs.items()}  # type: ignore[attr-defined]
    trace = trace_of({name: (tuple(values), chosen[name]) for name, values in knobs.items()})
    assert read_config(json.loads(json.dumps(trace))) == chosen


@pytest.mark.parametrize(
    "trace",
    [
        [],
        [[], [[]]],
        [[["Parallel", ["l1"], [], []]], []],
        [[["SampleCategorical", [], [[1, 2], [0.5, 0.5]], ["v1"]]], []],
        [[["SampleCategorical", [], [[1, 2], [0.5, 0.5]], ["v1"]]], [[0, 7]]],
        [[["Annotate", ["b0", "v9"], ["mvlm.tile_m"], []]], []],
        [[["SampleCategorical", [], [], []]], [[0, 0]]],
    ],
)
def test_a_trace_that_chooses_nothing(trace: list[object]) -> None:
    assert try_read_config(trace) is None


@pytest.mark.parametrize(
    ("file", "number", "line"),
    [
        (RECORDS_FILE, 2, "not JSON"),
        (RECORDS_FILE, 2, "[0, [[[], []], [1.0], {}"),
        (RECORDS_FILE, 2, "[9, [[[], []], [1.0], {}, null]]"),
        (RECORDS_FILE, 2, "[0, [[[], []], [], {}, null]]"),
        (RECORDS_FILE, 2, "[0, [[[], []], [-1.0], {}, null]]"),
        (RECORDS_FILE, 2, "[0, [[[], []], [NaN], {}, null]]"),
        (RECORDS_FILE, 2, "[true, [[[], []], [1.0], {}, null]]"),
        (RECORDS_FILE, 2, "[" * 100_000),
        (WORKLOADS_FILE, 2, '["second"]'),
        (WORKLOADS_FILE, 2, "\x00\xff"),
    ],
)
def test_damaged_lines(log: Path, file: str, number: int, line: str) -> None:
    """They are left out, and the others keep their meaning; the next writer keeps a copy."""
    lines = (log / file).read_text().splitlines()
    lines[number - 1] = line
    (log / file).write_text("".join(f"{each}\n" for each in lines), encoding="latin-1")
    before = {
        name: (log / name).read_bytes() for name in (PROVENANCE_FILE, WORKLOADS_FILE, RECORDS_FILE)
    }
    found = read_log(log)
    assert f"{file}, line {number}" in found.damaged
    # The winner of `a` was on line 2 of the records; `b` rests on line 2 of the workloads.
    lost = {RECORDS_FILE: "a", WORKLOADS_FILE: "b"}[file]
    assert set(found.contents.results) == {"a", "b"} - {lost}
    with TuningDatabase(log) as writable:
        quarantined = writable.resume(found)
        assert quarantined is not None and quarantined.parent == log / QUARANTINE
        assert {name: (quarantined / name).read_bytes() for name in before} == before
        assert f"{file}, line {number}" in (quarantined / "damage.txt").read_text()
        writable.commit_tuning_record(measured(0, 0.5))
    again = read_log(log)
    assert not again.damaged
    assert again.contents.records[-1].median == 0.5
    assert again.contents.results == found.contents.results


def test_a_line_that_a_crash_has_cut(log: Path) -> None:
    whole = (log / RECORDS_FILE).read_bytes()
    (log / RECORDS_FILE).write_bytes(whole[:-20])
    found = read_log(log)
    assert len(found.contents.records) == 2 and len(found.damaged) == 1
    with TuningDatabase(log) as writable:
        writable.resume(found)
        writable.commit_tuning_record(measured(1, 4.0))
    assert [record.median for record in read_log(log).contents.records] == [2.0, 1.0, 4.0]


@pytest.mark.parametrize("room", [0, 1, 40, 200])
def test_a_full_disk_loses_only_what_is_written(log: Path, room: int) -> None:
    before = (log / RECORDS_FILE).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with TuningDatabase(log) as writable:
        writable.resume(read_log(log))
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, limits[1]))
        try:
            with pytest.raises(ArtifactError, match="No earlier line is lost"):
                for _ in range(10):
                    writable.commit_tuning_record(measured(0, 0.25))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (log / RECORDS_FILE).read_bytes().startswith(before)
    assert not read_log(log).damaged


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(log: Path) -> None:
    log.chmod(0o500)
    try:
        with pytest.raises(ArtifactError, match="cannot write the log"):
            TuningDatabase(log)
    finally:
        log.chmod(0o700)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot write the log"):
        TuningDatabase(tmp_path / "file" / "host")


def test_one_writer_at_a_time(log: Path) -> None:
    with TuningDatabase(log), pytest.raises(UsageError, match="another process writes"):
        TuningDatabase(log)
    TuningDatabase(log).close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"versions": {"apache-tvm": "0.26.0"}}, "apache-tvm 0.26.0, not 0.27.0"),
        ({"options": {**OPTIONS, "mcpu": "haswell"}}, "another CPU: haswell"),
        ({"options": {**OPTIONS, "mattr": ["-avx2"]}}, "another CPU"),
        ({"target": "phone"}, "target phone, not host"),
        ({"device": {"machine": {}, "threads": 4}}, "threads 4, not 2"),
        ({"device": {"machine": {"is_emulated": True}, "threads": 2}}, "an emulator's"),
    ],
)
def test_logs_of_something_else(changes: dict[str, object], reason: str) -> None:
    key = LogKey("host", OPTIONS, 2, VERSIONS)
    assert key.mismatch(provenance()) is None
    assert reason in (key.mismatch(provenance(**changes)) or "")


def test_provenance_that_is_damaged(log: Path) -> None:
    document = json.loads((log / PROVENANCE_FILE).read_text())
    device = document["device"]
    for key, value in (
        ("kernels", []),
        ("schema", 9),
        ("runs", [{}]),
        ("device", {}),
        ("device", {**device, "machine": {"cpu": 3}}),
        ("device", {**device, "state": {"cores": [1]}}),
    ):
        (log / PROVENANCE_FILE).write_text(json.dumps({**document, key: value}))
        with pytest.raises(ArtifactError):
            read_log(log)
    (log / PROVENANCE_FILE).write_text("{")
    with pytest.raises(ArtifactError, match="not valid JSON"):
        read_log(log)
    (log / PROVENANCE_FILE).unlink()
    with pytest.raises(ArtifactError, match=r"is not a tuning log: expected .*, found none in it"):
        read_log(log)


def test_a_log_of_an_older_schema_is_refused(log: Path) -> None:
    """Its knobs and workloads have names that no kernel has today."""
    document = json.loads((log / PROVENANCE_FILE).read_text())
    (log / PROVENANCE_FILE).write_text(json.dumps({**document, "schema": 3}))
    with pytest.raises(
        ArtifactError, match=r"another schema: expected 4, found 3. Run `mvlm tune`"
    ):
        read_log(log)


def test_outcomes_whose_lines_are_not_there(log: Path) -> None:
    document = json.loads((log / PROVENANCE_FILE).read_text())
    document["kernels"]["a"]["record"] = 77
    document["kernels"]["b"]["workload"] = -1
    (log / PROVENANCE_FILE).write_text(json.dumps(document))
    assert set(read_log(log).contents.results) == set()


databases = st.builds(
    lambda names, picks: Database(
        tuple(json.dumps([name, "e30="]) for name in names),
        tuple(measured(pick % len(names), 1.0 + pick) for pick in picks),
        {
            name: task_result(
                place,
                record=next(
                    (number for number, pick in enumerate(picks) if pick % len(names) == place),
                    None,
                ),
                date=f"2026-01-{1 + len(picks):02}",
            )
            for place, name in enumerate(names)
        },
    ),
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 40), max_size=8, unique=True),
)


@settings(max_examples=200)
@given(databases, st.sets(st.integers(0, 8)), st.sets(st.integers(0, 4)))
def test_lines_keep_their_meaning_when_others_go(
    whole: Database, records: set[int], workloads: set[int]
) -> None:
    left = whole.select(lambda place: place not in workloads, lambda place: place not in records)
    for key, found in left.results.items():
        was = whole.results[key]
        assert left.workloads[found.workload] == whole.workloads[was.workload]
        if found.record is not None and was.record is not None:
            assert left.records[found.record].payload == whole.records[was.record].payload
            assert left.records[found.record].workload == found.workload


@settings(max_examples=200)
@given(databases, databases)
def test_joining(one: Database, other: Database) -> None:
    both = one.merge(other)
    assert one.merge(one) == one
    assert both.merge(other) == both
    for key in {*one.results, *other.results}:
        dates = [each.results[key].date for each in (one, other) if key in each.results]
        assert both.results[key].date == max(dates)
        record = both.results[key].record
        if record is not None:
            assert both.records[record].workload == both.results[key].workload


def test_merging_on_the_disk(log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with TuningDatabase(other) as writable:
        writable.commit_workload(json.dumps(["second", "e30="]))
        writable.commit_tuning_record(measured(0, 0.5))
        later = "2026-02-02T00:00:00+00:00"
        results = {"b": task_result(0, record=0, date=later)}
        writable.write_provenance(provenance(runs=(a_run(later),), results=results))
    output = tmp_path / "both"
    merged = merge_logs([log, other], output)
    assert len(merged.contents.records) == 4 and len(merged.provenance.runs) == 2
    assert merged.contents.records[merged.contents.results["b"].record or 0].median == 0.5
    # Again, and into one of them: nothing is there twice.
    assert merge_logs([log, other, output], log).contents == merged.contents
    with TuningDatabase(other) as writable:
        writable.write_provenance(provenance(target="phone"))
    with pytest.raises(UsageError, match="they differ in target"):
        merge_logs([log, other], output)
    with pytest.raises(UsageError, match="in the way"):
        merge_logs([log], tmp_path)


def test_pruning(log: Path) -> None:
    with TuningDatabase(log) as writable:
        writable.resume(read_log(log))
        for place in range(10):
            writable.commit_tuning_record(measured(0, 1.5 + place))
    assert prune_log(log, keep=2) == (13, 4)  # the default, the two best, and the other task's
    left = read_log(log)
    assert left.contents.records[left.contents.results["a"].record or 0].median == 1.0
    assert left.contents.records[0].median == 2.0


def test_curves(log: Path, tmp_path: Path) -> None:
    found = read_log(log)
    curve = best_so_far(found.contents, "a")
    assert curve == [2.0, 1.0]
    assert sparkline(curve)[0] == "█" and sparkline(curve)[-1] == "▁"
    assert sparkline([1.0]) == "" and set(sparkline([1.0, 1.0])) == {"█"}
    draw_curves({"kernel": curve}, tmp_path / "curve.svg", "a title")
    assert "best so far" in (tmp_path / "curve.svg").read_text()
    with pytest.raises(UsageError, match=r"\.svg or \.png"):
        draw_curves({"kernel": curve}, tmp_path / "curve.txt", "")
    with pytest.raises(UsageError, match="nothing to draw"):
        draw_curves({}, tmp_path / "curve.svg", "")


def test_where_logs_are(log: Path) -> None:
    assert find_logs([log.parent]) == find_logs([log]) == [log]
    assert find_logs([log / "nowhere"]) == []
    digest = logs_digest("host", [log])
    assert digest != logs_digest("phone", [log]) == logs_digest("host", [])
    with (log / RECORDS_FILE).open("a") as file:
        file.write("\n")
    assert logs_digest("host", [log]) != digest
    assert log_name("my board/2", "cortex-a76", True) == "my-board-2-cortex-a76-emulated"
