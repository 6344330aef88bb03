"""Tunes a model for a target: sets up tasks, devices and log, and runs the scheduler."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path

from mvlm.compile.compile_target import prepare_target
from mvlm.compile.job import CompileJob
from mvlm.compile.toolchain.runtime_library import LIBRARY
from mvlm.compile.tuning.builder import Builder
from mvlm.compile.tuning.device_match import mismatch, native_cpu
from mvlm.compile.tuning.devices import DevicePool, DeviceProvider, LocalProvider, SelfTest
from mvlm.compile.tuning.measure_candidate import make_candidate
from mvlm.compile.tuning.options import TuningOptions
from mvlm.compile.tuning.progress import Observer, Silent
from mvlm.compile.tuning.runner import Runner, make_self_test
from mvlm.compile.tuning.task import Task, extract_tasks
from mvlm.compile.tuning.task_scheduler import TaskScheduler
from mvlm.compile.tuning_log import LogKey, Provenance, log_name, open_database
from mvlm.runtime.errors import UsageError


@dataclass(frozen=True)
class TuningResult:
    """The result of a run.

    Attributes:
        log: The log's folder.
        provenance: The log's provenance after the run.
        keys: The keys of the tasks.
        trials: Candidates measured.
    """

    log: Path
    provenance: Provenance
    keys: tuple[str, ...]
    trials: int


def tune(
    job: CompileJob,
    options: TuningOptions,
    provider: DeviceProvider | None = None,
    observer: Observer | None = None,
) -> TuningResult:
    """Tune a model for its target.

    Args:
        job: The model, how it is stored, and the target; its weights are not read.
        options: The run's options.
        provider: Lists the devices; this machine alone if None.
        observer: Watches the run.

    Returns:
        The result. Each measurement is in the log as soon as it is made: a Ctrl-C, a device that
        dies or a full disk loses the measurement in progress and nothing else.

    Raises:
        UsageError: There is no task to tune, or another process writes the log.
        TargetError: The target's toolchain is missing, or no tracker answers.
        NoDeviceError: No device is left.
        ArtifactError: The log cannot be written.
    """
    observer = observer or Silent()
    if provider is not None:
        provider.addresses()  # fails before the model is lowered, which takes minutes
    target = prepare_target(job.target, job.platform)
    tasks = _wanted(extract_tasks(job, target), options.functions)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mvlm-tune-")))
        library = folder / "runtime.so"
        library.write_bytes(target.runtime_libraries[LIBRARY])
        builder = Builder(target, folder, workers=len(os.sched_getaffinity(0)))
        stack.callback(builder.close)
        pool = stack.enter_context(
            DevicePool(
                provider or LocalProvider(library),
                _self_test(tasks, builder, folder),
                lambda description: mismatch(target, job.target, description),
                observer.note,
                connect_timeout=max(60.0, options.timeout),
            )
        )
        device = pool.wait_until_ready()
        cpu = native_cpu(target) if job.target.cpu.is_native else None
        is_emulated = bool(device["machine"].get("is_emulated"))
        path = options.logs / log_name(job.target.name, cpu, is_emulated)
        key = LogKey.for_target(job.target.name, target.options, device["threads"])
        database = stack.enter_context(open_database(path, key, device, observer.note))
        runner = Runner(pool, folder, options.timeout)
        scheduler = TaskScheduler(
            job.name, options, target, tasks, builder, runner, database, observer
        )
        scheduler.run()
        assert database.provenance is not None
        keys = tuple(task.key for task in tasks)
        return TuningResult(database.folder, database.provenance, keys, scheduler.trials)


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
    """Return the self test of devices: the smallest kernel's default."""
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
    return sum(prod(shape) for shape, _ in task.arrays)
