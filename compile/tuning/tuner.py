"""Tunes a model for a device, into the target's log."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mvlm.compile.compile_target import CompileTarget, prepare_target
from mvlm.compile.job import CompileJob
from mvlm.compile.tuning.builder import Builder
from mvlm.compile.tuning.device_match import mismatch, native_cpu
from mvlm.compile.tuning.devices import DevicePool, DeviceProvider, LocalProvider, SelfTest
from mvlm.compile.tuning.log import LogKey, Provenance, TuningDatabase, log_name, read_log
from mvlm.compile.tuning.log.files import PROVENANCE_FILE
from mvlm.compile.tuning.measure_candidate import make_candidate
from mvlm.compile.tuning.options import TuningOptions
from mvlm.compile.tuning.progress import Observer, Silent
from mvlm.compile.tuning.runner import Runner, make_self_test
from mvlm.compile.tuning.task import Task, extract_tasks
from mvlm.compile.tuning.task_scheduler import TaskScheduler
from mvlm.runtime.errors import ArtifactError, UsageError
from mvlm.schedules.signature import extents, parameter_types


@dataclass(frozen=True)
class TuningResult:
    """What came of it.

    Attributes:
        log: The target's log.
        provenance: Its provenance, as it is now.
        keys: The digests of the model's tasks.
        trials: Measurements of candidates that were made.
    """

    log: Path
    provenance: Provenance
    keys: tuple[str, ...]
    trials: int


def tune(
    job: CompileJob,
    plan: TuningOptions,
    provider: DeviceProvider | None = None,
    observer: Observer | None = None,
) -> TuningResult:
    """Tune a model for its target.

    Args:
        job: The model, how it is stored, and the target; its weights are not read.
        plan: What to do.
        provider: The devices; this machine alone if None.
        observer: Watches.

    Returns:
        What came of it. The log has everything that was measured at any moment: a Ctrl-C, a device
        that dies and a full disk lose no more than the measurement that is being made.

    Raises:
        UsageError: Nothing is to be tuned, or another process writes the log.
        TargetError: The target cannot be compiled for here, or no tracker answers.
        NoDeviceError: No device is left.
        ArtifactError: The log cannot be written.
    """
    watcher = observer or Silent()
    target = prepare_target(job.target, job.platform)
    tasks = _wanted(extract_tasks(job, target), plan.functions)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mvlm-tune-")))
        library = folder / "runtime.so"
        library.write_bytes(target.runtime_library)
        builder = Builder(target, folder, workers=len(os.sched_getaffinity(0)))
        stack.callback(builder.close)
        pool = stack.enter_context(
            DevicePool(
                provider or LocalProvider(library),
                _self_test(tasks, builder, folder),
                lambda description: mismatch(target, job.target, description),
                watcher.note,
                connect_timeout=max(60.0, plan.timeout),
            )
        )
        device = pool.wait_until_ready()
        log = stack.enter_context(_open_log(plan.logs, job, target, device, watcher))
        stand = Runner(pool, folder, plan.timeout)
        run = TaskScheduler(job.name, plan, target, tasks, builder, pool, stand, log, watcher)
        run.run()
        assert log.provenance is not None
        keys = tuple(task.key for task in tasks)
        return TuningResult(log.folder, log.provenance, keys, run.trials)


def _wanted(tasks: Sequence[Task], functions: Sequence[str]) -> list[Task]:
    wanted = [
        task for task in tasks if not functions or any(part in task.name for part in functions)
    ]
    if not wanted:
        raise UsageError(
            "there is nothing to tune",
            expected=f"a part of {', '.join(task.name for task in tasks[:8])}, for instance",
            found=", ".join(functions) or "a model without kernels",
        )
    return wanted


def _self_test(tasks: Sequence[Task], builder: Builder, folder: Path) -> SelfTest | None:
    """Make the smallest kernel into what a device has to show that it can compute."""
    kernels = [task for task in tasks if task.operation]
    if not kernels:
        return None
    task = min(kernels, key=_elements)
    module = make_candidate(task.module, task.knobs, task.default_config).schedule.mod
    (built,) = builder.build([module])
    if built.path is None:
        raise UsageError("the default kernels cannot be built", found=built.error)
    return make_self_test(task, built.path, folder)


def _elements(task: Task) -> int:
    return sum(prod(extents(each)) for each in parameter_types(task.function))


def _open_log(
    logs: Path,
    job: CompileJob,
    target: CompileTarget,
    device: Mapping[str, Any],
    watcher: Observer,
) -> TuningDatabase:
    """Open the target's log, and quarantine what does not match the target."""
    emulated = bool(device["machine"].get("is_emulated"))
    cpu = native_cpu(target) if job.target.cpu.is_native else None
    log = TuningDatabase(logs / log_name(job.target.name, cpu, emulated))
    try:
        key = LogKey.for_target(job.target.name, target.options, device["threads"])
        _prepare(log, key, watcher)
        if log.provenance is None:
            log.write_provenance(Provenance(key.target, key.options, key.versions, device))
    except BaseException:
        log.close()
        raise
    return log


def _prepare(log: TuningDatabase, key: LogKey, watcher: Observer) -> None:
    """Append to an existing log if it matches the key; quarantine it if it does not."""
    if not (log.folder / PROVENANCE_FILE).exists():
        quarantined = log.quarantine()  # databases without provenance
        if quarantined is not None:
            watcher.note(f"a log without {PROVENANCE_FILE} is quarantined in {quarantined}")
        return
    try:
        known = read_log(log.folder)
        reason = key.kernel_mismatch(known.provenance)
    except ArtifactError as error:
        known, reason = None, str(error)
    if known is None or reason is not None:
        watcher.note(f"the log {log.folder.name} is quarantined in {log.quarantine()}: {reason}")
        return
    copy = log.resume(known)
    if copy is not None:
        watcher.note(f"{len(known.damaged)} damaged lines are removed; {copy} has the log before")
