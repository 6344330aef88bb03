"""Tuning from the model to the artifact, on this machine, with a small random model."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm.s_tir import meta_schedule as ms

from mvlm.compile.compile_target import prepare_target
from mvlm.compile.driver import compile_job
from mvlm.compile.job import CompileJob, plan_job
from mvlm.compile.jobs.execute import execute_step
from mvlm.compile.jobs.matrix import read_matrix
from mvlm.compile.jobs.messages import StepRequest
from mvlm.compile.jobs.plan import plan_matrix
from mvlm.compile.jobs.store import open_store
from mvlm.compile.tuning import tuner, validate
from mvlm.compile.tuning.apply import TunedConfigs, find_applicable_logs
from mvlm.compile.tuning.builder import Builder, BuilderResult
from mvlm.compile.tuning.options import TuningOptions
from mvlm.compile.tuning.progress import Progress
from mvlm.compile.tuning.runner import Runner
from mvlm.compile.tuning.search_strategy import EvolutionarySearch
from mvlm.compile.tuning.significance import Comparison
from mvlm.compile.tuning.task import extract_tasks
from mvlm.compile.tuning.task_scheduler import relative_to_default
from mvlm.compile.tuning.tuner import TuningResult, tune
from mvlm.compile.tuning_log import LogKey, read_log
from mvlm.compile.tuning_log.paths import PROVENANCE_FILE, RECORDS_FILE, WORKLOADS_FILE
from mvlm.runtime.errors import ArtifactError, UsageError
from mvlm.runtime.model import Model
from mvlm.schedules.cpu.kernels import KERNELS
from tests.artifacts import ArtifactCache
from tests.cli.command_line import Terminal, finish, start
from tests.forward import Forward

FAMILY = "text"
# Enough for two winners at the least.
TRIALS = 20
ONLY = ("linear_48", "cached_attention", "quantize_rms")


@dataclass
class Watcher:
    """Records progress and notes; raises KeyboardInterrupt after a number of trials."""

    stop_after: int | None = None
    steps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def progress(self, progress: Progress) -> None:
        self.steps.append(progress.step)
        is_search = progress.step == "search"
        if is_search and self.stop_after is not None and progress.done >= self.stop_after:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def checkpoint(artifact_cache: ArtifactCache) -> Path:
    return artifact_cache.checkpoint(FAMILY)


def job(checkpoint: Path, *logs: Path) -> CompileJob:
    return plan_job(checkpoint, quantization="q4a8", logs=logs)


def comparison_is(monkeypatch: pytest.MonkeyPatch, comparisons: Iterator[Comparison]) -> None:
    monkeypatch.setattr(validate, "compare", lambda default, tried, again: next(comparisons))


def everything_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "PROMISING_RATIO", 100.0)
    comparison_is(monkeypatch, repeat(Comparison(2.0, 1.0, 0.5, 0.1)))


@pytest.fixture(scope="module")
def tuned(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> TuningResult:
    """A log in which some kernels have another schedule than their default."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        everything_wins(monkeypatch)
        logs = tmp_path_factory.mktemp("logs")
        return tune(job(checkpoint), TuningOptions(TRIALS, logs, functions=ONLY))


def test_the_log_has_every_measurement(tuned: TuningResult) -> None:
    log = read_log(tuned.log)
    assert not log.damaged and tuned.trials <= TRIALS
    (run,) = log.provenance.runs
    assert run.is_complete and run.trials == tuned.trials and run.cost_model == "xgboost"
    assert log.provenance.device["machine"]["features"]
    winners = [each for each in log.provenance.results.values() if each.record is not None]
    assert winners and all(0 <= (winner.error or 0) <= 1 for winner in winners)


def test_metaschedule_reads_the_log(tuned: TuningResult) -> None:
    """The files are its own database's; applying a record's trace makes what was measured."""
    database = ms.database.JSONDatabase(work_dir=str(tuned.log), allow_missing=False)
    records = database.get_all_tuning_records()
    assert len(records) == len(read_log(tuned.log).contents.records)
    candidate = next(r for r in records if "mvlm" in str(r.trace)).as_measure_candidate()
    assert any(
        str(key).startswith("mvlm.") for key in candidate.sch.mod["main"].body.block.annotations
    )


def test_compiling_applies_it_and_computes_the_same(
    tuned: TuningResult, checkpoint: Path, tmp_path: Path
) -> None:
    default = compile_job(job(checkpoint), tmp_path / "default")
    manifest = compile_job(job(checkpoint, tuned.log.parent), tmp_path / "tuned")
    assert default.provenance["tuning"]["tuned"] == 0
    tuning = manifest.provenance["tuning"]
    winners = sum(each.record is not None for each in tuned.provenance.results.values())
    assert tuning["tuned"] == winners > 0
    assert tuning["tuned"] + tuning["default"] == default.provenance["tuning"]["default"]
    assert tuning["logs"][0]["name"] == tuned.log.name and tuning["logs"][0]["trials"] > 0
    found = []
    for name in ("default", "tuned"):
        forward = Forward(Model(tmp_path / name))
        forward.prefill([1, *range(5, 40)])
        found.append(np.stack([forward.decode(token) for token in (7, 8, 9)]))
    np.testing.assert_allclose(found[0], found[1], atol=2e-3 * np.abs(found[0]).max())


@pytest.mark.extended
def test_workers_of_a_matrix_apply_the_logs_that_it_was_planned_with(
    tuned: TuningResult, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "matrix.toml").write_text(
        f'models = ["{checkpoint}"]\nlogs = ["{tuned.log.parent}"]\n'
    )
    plan = plan_matrix(read_matrix(tmp_path / "matrix.toml"), tmp_path / "copies")
    store = open_store(str(tmp_path / "store"))
    for entry in plan.artifacts[0].job.logs:
        store.blobs.put(plan.logs / entry.path, entry)
    for step in plan.steps:
        request = StepRequest(
            step.kind, step.key, step.name, step.weights, step.job, store.files.url, "run"
        )
        (tmp_path / step.kind).mkdir()
        execute_step(request, store, tmp_path / step.kind, lambda *_: None)
    made = store.artifact(plan.artifacts[0].key)
    assert made is not None
    (used,) = made.manifest.provenance["tuning"]["logs"]
    winners = sum(each.record is not None for each in tuned.provenance.results.values())
    assert used["name"] == tuned.log.name and used["functions"] == winners


def test_keys_tell_logs_apart(tuned: TuningResult, checkpoint: Path, tmp_path: Path) -> None:
    with_logs, without = job(checkpoint, tuned.log), job(checkpoint)
    assert with_logs.key() != without.key()
    shutil.copytree(tuned.log, tmp_path / "elsewhere" / "log")
    assert job(checkpoint, tmp_path / "elsewhere").key() == with_logs.key()


def copied(tuned: TuningResult, tmp_path: Path) -> Path:
    return shutil.copytree(tuned.log, tmp_path / "logs" / tuned.log.name)


@contextmanager
def changed_record(log: Path, line: int) -> Iterator[list[Any]]:
    """Yield trace, times, target and arguments of a record; what becomes of them is written."""
    lines = (log / RECORDS_FILE).read_text().splitlines()
    workload, payload = json.loads(lines[line])
    yield payload
    lines[line] = json.dumps([workload, payload])
    (log / RECORDS_FILE).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["versions"].update({"apache-tvm": "0.1"}), "apache-tvm 0.1, not"),
        (lambda d: d["target"]["tvm"].update(mcpu="i386"), "another CPU: i386"),
        (lambda d: d["device"].update(threads=99), "threads 99, not"),
        (lambda d: d["device"]["machine"].update(is_emulated=True), "an emulator's"),
        (lambda d: d.pop("kernels"), "key 'kernels' is wrong"),
    ],
)
def test_logs_that_do_not_match_are_not_applied(
    tuned: TuningResult, tmp_path: Path, change: object, words: str
) -> None:
    log = copied(tuned, tmp_path)
    key = LogKey.for_target("host", tuned.provenance.options, tuned.provenance.threads)
    assert find_applicable_logs(key, [log]).logs
    document = json.loads((log / PROVENANCE_FILE).read_text())
    change(document)  # type: ignore[operator]
    (log / PROVENANCE_FILE).write_text(json.dumps(document))
    before = {path.name: path.read_bytes() for path in log.iterdir()}
    found = find_applicable_logs(key, [log])
    assert not found.logs and words in found.warnings[0]
    assert {path.name: path.read_bytes() for path in log.iterdir()} == before


@pytest.mark.extended
def test_a_damaged_line_and_a_record_that_fits_no_kernel(
    tuned: TuningResult, checkpoint: Path, tmp_path: Path
) -> None:
    log, warnings = copied(tuned, tmp_path), []
    lines = (log / RECORDS_FILE).read_text().splitlines()
    found = read_log(log)
    winners = [each for each in found.contents.results.values() if each.record is not None]
    first, second = winners[0].record or 0, winners[1].record or 0
    lines[first] = lines[first][:50]
    record = json.loads(lines[second])
    for instruction in record[1][0][0]:
        if instruction[0] == "SampleCategorical":
            instruction[2][0] = [77] * len(instruction[2][0])
    lines[second] = json.dumps(record)
    (log / RECORDS_FILE).write_text("\n".join(lines) + "\n")
    manifest = compile_job(job(checkpoint, log), tmp_path / "artifact", warn=warnings.append)
    assert manifest.provenance["tuning"]["tuned"] == len(winners) - 2
    assert any(f"line {first + 1}" in warning for warning in warnings)
    assert any("does not support the record's knobs" in warning for warning in warnings)


@pytest.mark.extended
def test_ctrl_c_keeps_everything_and_a_second_run_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    plan = TuningOptions(16, tmp_path, functions=ONLY)
    with pytest.raises(KeyboardInterrupt):
        tune(job(checkpoint), plan, observer=Watcher(stop_after=8))
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    stopped = read_log(folder)
    assert not stopped.provenance.runs[-1].is_complete
    measured = len(stopped.contents.records)
    assert measured >= 4
    result = tune(job(checkpoint), plan, observer=Watcher())
    again = read_log(result.log)
    assert again.contents.records[:measured] == stopped.contents.records
    assert [run.is_complete for run in again.provenance.runs] == [False, True]
    # Nothing was measured twice, the defaults neither.
    lines = [(r.workload, json.dumps(r.trace)) for r in again.contents.records]
    assert len(lines) == len(set(lines))


def test_times_relative_to_the_default_cancel_drift() -> None:
    fresh = relative_to_default([2.0, 2.0], [1.0, 1.0], reference=2.0)
    warm = relative_to_default([3.0, 4.0], [1.5, 2.0], reference=2.0)
    assert fresh == warm == [1.0, 1.0]


@pytest.mark.slow
def test_extracted_tasks(
    artifact_cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MetaSchedule's own space, measured, kept, and applied by compiling."""
    everything_wins(monkeypatch)
    checkpoint = artifact_cache.checkpoint("ldpnetv2")
    planned = plan_job(checkpoint, quantization="q4a8", logs=())
    tasks = extract_tasks(planned, prepare_target(planned.target))
    names = {task.name for task in tasks if not task.operation}
    assert {"pool", "depthwise_convolution"} <= names
    monkeypatch.setattr(tuner, "extract_tasks", lambda *_: tasks)  # which takes its time
    watcher = Watcher()
    plan = TuningOptions(4, tmp_path / "logs", functions=("depthwise_convolution",))
    result = tune(planned, plan, observer=watcher)
    (task_result,) = result.provenance.results.values()
    assert task_result.record is not None and task_result.error is not None, watcher.notes
    applied = plan_job(checkpoint, quantization="q4a8", logs=[result.log])
    warnings: list[str] = []
    manifest = compile_job(applied, tmp_path / "artifact", warn=warnings.append)
    assert manifest.provenance["tuning"]["tuned"] == 1, warnings
    # A second run without new candidates keeps the incumbent of the log.
    monkeypatch.setattr(EvolutionarySearch, "generate_measure_candidates", lambda *_: [])
    again = tune(planned, plan, observer=watcher)
    (kept,) = again.provenance.results.values()
    assert kept.record == task_result.record and kept.trials == task_result.trials, watcher.notes
    # A trace may only schedule: what an annotation names reaches the compiler.
    with changed_record(result.log, task_result.record) as (trace, *_):
        loops = next(step for step in trace[0] if step[0] == "GetLoops")
        trace[0].append(["Annotate", [loops[3][0], '"code.ll"'], ["pragma_import_llvm"], []])
    key = LogKey.for_target("host", result.provenance.options, result.provenance.threads)
    configs = TunedConfigs(find_applicable_logs(key, [result.log]))
    (task,) = (task for task in tasks if task.key in result.keys)
    assert configs.schedule(task.function, KERNELS) is None
    assert "the annotation 'pragma_import_llvm' is not one of" in configs.warnings[-1]


@pytest.mark.slow
def test_a_faster_kernel_that_is_wrong_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything_wins(monkeypatch)
    monkeypatch.setattr(Runner, "error", lambda *_: 1.5)
    watcher = Watcher()
    result = tune(job(checkpoint), TuningOptions(8, tmp_path, functions=ONLY), observer=watcher)
    assert all(each.record is None for each in result.provenance.results.values())
    assert any("computes a wrong result" in note for note in watcher.notes)


@pytest.mark.slow
def test_candidates_that_cannot_be_built_or_run_are_skipped(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Builder.build
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")

    def half(self: object, modules: list[object], as_defined: bool = False) -> list[object]:
        found = build(self, modules, as_defined)
        return [
            each
            if place % 3 == 0 or len(modules) < 5
            else type(each)(*((None, "no") if place % 3 == 1 else (broken, "")))
            for place, each in enumerate(found)
        ]

    plan = TuningOptions(16, tmp_path / "logs", functions=("quantize_rms", "cached_attention"))
    tune(job(checkpoint), plan)  # the defaults are in the log, and not built by `half` then
    monkeypatch.setattr(Builder, "build", half)
    result = tune(job(checkpoint), plan)
    assert result.provenance.runs[-1].is_complete


@pytest.mark.slow
def test_a_default_from_the_log_that_cannot_be_built(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = TuningOptions(4, tmp_path, functions=("quantize_rms",))
    first = tune(job(checkpoint), plan)
    build, calls = Builder.build, count()

    def broken(
        self: Builder, modules: list[object], as_defined: bool = False
    ) -> list[BuilderResult]:
        if next(calls) == 0:  # the self test of devices
            return build(self, modules, as_defined)  # type: ignore[arg-type]
        return [BuilderResult(None, "no room") for _ in modules]

    monkeypatch.setattr(Builder, "build", broken)
    watcher = Watcher()
    again = tune(job(checkpoint), plan, observer=watcher)
    assert any("is not tuned: its default cannot be built" in note for note in watcher.notes)
    assert again.provenance.results == first.provenance.results
    assert again.trials == 0


@pytest.mark.slow
def test_the_incumbent_is_validated_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many other candidates look faster in the search."""
    plan = TuningOptions(12, tmp_path, functions=("quantize_rms",))
    with monkeypatch.context() as context:
        everything_wins(context)
        first = tune(job(checkpoint), plan)
    (key, task_result), *_ = (
        o for o in first.provenance.results.items() if o[1].record is not None
    )
    with changed_record(first.log, task_result.record or 0) as payload:
        payload[1] = [9.0]  # it looks slow
    # Of the finalists, the last one, the incumbent, has the largest gain.
    monkeypatch.setattr(validate, "PROMISING_RATIO", 1.0)
    comparison_is(monkeypatch, (Comparison(2.0, 1.0, float(gain), 0.1) for gain in count(1)))
    again = tune(job(checkpoint), plan)
    assert again.provenance.results[key].record == task_result.record


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "stays"), [(0.0, True), (-0.09, True), (-0.11, False)])
def test_the_incumbent_is_kept_unless_it_is_slower(
    tuned: TuningResult,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gain: float,
    stays: bool,
) -> None:
    """A busy machine hides its gain, which is no reason to drop it."""
    log = copied(tuned, tmp_path)
    comparison_is(monkeypatch, repeat(Comparison(2.0, 2.0, gain, 0.1)))
    before = tuned.provenance.results
    key = next(key for key, task_result in before.items() if task_result.record is not None)
    plan = TuningOptions(1, log.parent, functions=(before[key].name,))
    after = tune(job(checkpoint), plan).provenance.results[key]
    assert after.record == (before[key].record if stays else None)
    assert after.date == before[key].date or not stays


@pytest.mark.slow
def test_another_tvm_s_log_is_quarantined_and_not_lost(
    tuned: TuningResult, checkpoint: Path, tmp_path: Path
) -> None:
    log, watcher = copied(tuned, tmp_path), Watcher()
    document = json.loads((log / PROVENANCE_FILE).read_text())
    document["versions"]["apache-tvm"] = "0.1"
    (log / PROVENANCE_FILE).write_text(json.dumps(document))
    before = {
        name: (log / name).read_bytes() for name in (PROVENANCE_FILE, RECORDS_FILE, WORKLOADS_FILE)
    }
    plan = TuningOptions(1, log.parent, functions=("quantize_rms",))
    result = tune(job(checkpoint), plan, observer=watcher)
    assert result.log == log and "is quarantined in" in watcher.notes[0]
    quarantined = log / "quarantine" / "1"
    assert {name: (quarantined / name).read_bytes() for name in before} == before
    assert len(result.provenance.runs) == 1


@pytest.mark.extended
def test_invalid_options(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--trials: expected 1 or more, found 0"):
        TuningOptions(0, tmp_path)
    with pytest.raises(UsageError, match="there is nothing to tune"):
        tune(job(checkpoint), TuningOptions(1, tmp_path, functions=("nothing",)))
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot write the log"):
        tune(job(checkpoint), TuningOptions(1, tmp_path / "file", functions=ONLY))


@pytest.mark.extended
def test_ctrl_c_on_a_terminal(checkpoint: Path, tmp_path: Path) -> None:
    """It reaches the processes that build as well; what was measured is kept."""
    arguments = ["tune", checkpoint, "--only", "linear_", "--logs", tmp_path, "--trials", "4000"]
    terminal = Terminal(*arguments)
    # Extracting tasks takes a minute where other tests share the cores.
    terminal.wait_for(r"searching: [1-9]\d* of 4000, .* left", timeout=240)
    terminal.type("\x03")
    assert terminal.leave() == 130
    assert terminal.seen.rstrip().endswith("interrupted") and "Traceback" not in terminal.seen
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    log = read_log(folder)
    assert log.contents.records and not log.damaged and not log.provenance.runs[-1].is_complete


@pytest.mark.slow
def test_the_command_line(checkpoint: Path, tmp_path: Path) -> None:
    """Ctrl-C ends it at once, with nothing left running."""
    command = ["tune", checkpoint, "--only", "linear_", "--logs", tmp_path, "--trials", "4000"]
    process = start(*command)
    assert process.stderr is not None
    while "searching" not in (line := process.stderr.readline()):
        assert line, "it ended too early"
    process.send_signal(signal.SIGINT)
    result = finish(process, timeout=60)
    assert result.exit_code == 130 and "Traceback" not in result.stderr
    few = ["--only", "quantize_rms", "--logs", tmp_path, "--trials", "4", "--json"]
    done = finish(start("tune", checkpoint, *few))
    assert done.exit_code == 0, done.stderr
    assert done.json["run"]["is_complete"] and done.json["trials"] <= 4
    shown = finish(start("logs", "show", done.json["log"], "--json"))
    assert len(shown.json["runs"]) == 2
