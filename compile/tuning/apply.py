"""Applies tuning logs while a model is compiled.

A log is applied only if its target, thread count and TVM version match. A record is applied only if
its task's digest is that of the function being compiled, its task has a winner, and the kernel
supports the winner's knobs. Every other function keeps its default. A warning names each log and
record that is not applied, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvlm.compile.provenance import files_digest
from mvlm.compile.tuning_log import (
    Log,
    LogKey,
    TaskResult,
    find_logs,
    read_log,
    shipped_logs_folder,
)
from mvlm.compile.tuning_log.paths import LOG_FILES
from mvlm.compile.tuning_log.trace import try_read_config
from mvlm.runtime.errors import ArtifactError

if TYPE_CHECKING:
    from tvm import tirx

    from mvlm.schedules.config_space import Config
    from mvlm.schedules.kernel_set import KernelSet


@dataclass(frozen=True)
class ApplicableLogs:
    """The logs whose key matches a target.

    Attributes:
        logs: In order of precedence.
        warnings: Which other logs and lines are not used, and why.
    """

    logs: tuple[Log, ...] = ()
    warnings: tuple[str, ...] = ()

    def winner(self, key: str) -> tuple[Log, TaskResult] | None:
        """Return the log and the result of a task whose tuned schedule beat the default."""
        for log in self.logs:
            result = log.contents.results.get(key)
            if result is not None:
                return (log, result) if result.record is not None else None
        return None


def find_applicable_logs(key: LogKey, folders: Sequence[Path]) -> ApplicableLogs:
    """Find the logs that match a target.

    Args:
        key: The target, options, threads and versions that a log has to match.
        folders: Folders of logs.
    """
    logs, warnings, shipped = [], [], shipped_logs_folder()
    for folder in find_logs(folders):
        try:
            log = read_log(folder)
        except ArtifactError as error:
            warnings.append(f"the tuning log {folder} is not used: {error}")
            continue
        if log.provenance.target != key.target:
            continue
        mismatch = key.mismatch(log.provenance)
        if mismatch is not None:
            if folder.parent == shipped:
                continue  # mvlm ships logs of many devices
            warnings.append(f"the tuning log {folder} is not used: {mismatch}")
            continue
        for where, what in log.damaged.items():
            warnings.append(f"{folder}: {where} is not used: {what}")
        logs.append(log)
    return ApplicableLogs(tuple(logs), tuple(warnings))


@dataclass
class TunedConfigs:
    """The tuned schedules of logs, as a `mvlm.compile.pipeline.TuningLookup`.

    Attributes:
        found: The logs.
        tuned: By log, the functions that it was applied to; filled while a model is compiled.
        warnings: Which records were not used, and why.
    """

    found: ApplicableLogs
    tuned: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def kernel(self, definition: tirx.PrimFunc, kernels: KernelSet) -> Config:
        """Return the tuned knobs of a definition's kernel; the defaults where it was not tuned."""
        from mvlm.compile.tuning.workload import kernel_workload, workload_key
        from mvlm.models.ops.signatures import read_signature
        from mvlm.schedules.config_space import FixedConfig, default_config

        signature = read_signature(definition)
        if not self.found.logs or signature is None:
            return default_config
        winner = self.found.winner(workload_key(kernel_workload(signature)))
        if winner is None:
            return default_config
        log, result = winner
        assert result.record is not None
        config = try_read_config(log.contents.records[result.record].trace)
        knobs = {knob.name: knob.values for knob in kernels.space(signature) or ()}
        if config is None or any(v not in knobs.get(name, ()) for name, v in config.items()):
            self._warn_unused(log, result, "its kernel does not support the record's knobs")
            return default_config
        self._count_applied(log, result)
        return FixedConfig(config)

    def schedule(self, function: tirx.PrimFunc, kernels: KernelSet) -> tirx.PrimFunc | None:
        """Return a function that no kernel serves with its tuned schedule, or None without one."""
        from mvlm.compile.tuning.measure_candidate import replay_trace
        from mvlm.compile.tuning.task import is_static
        from mvlm.compile.tuning.workload import function_workload, workload_key

        if not self.found.logs or not is_static(function):
            return None
        workload = function_workload(function)
        winner = self.found.winner(workload_key(workload))
        if winner is None:
            return None
        log, result = winner
        assert result.record is not None
        try:
            scheduled = replay_trace(workload, log.contents.records[result.record].trace).function
        except Exception as error:  # TVM's error for a trace that does not fit
            self._warn_unused(log, result, str(error).strip().splitlines()[-1][:120])
            return None
        self._count_applied(log, result)
        return kernels.finish(scheduled, function).without_attr("global_symbol")

    def report(self, total: int) -> dict[str, Any]:
        """Return the entry ``tuning`` of the artifact's manifest.

        Args:
            total: The number of kernels in the artifact.
        """
        count = sum(map(len, self.tuned.values()))
        return {
            "tuned": count,
            "default": total - count,
            "logs": [
                _log_entry(log, self.tuned[str(log.folder)])
                for log in self.found.logs
                if str(log.folder) in self.tuned
            ],
        }

    def _count_applied(self, log: Log, result: TaskResult) -> None:
        self.tuned.setdefault(str(log.folder), []).append(result.name)

    def _warn_unused(self, log: Log, result: TaskResult, why: str) -> None:
        self.warnings.append(f"{log.folder}: the record of {result.name} is not used: {why}")


def _log_entry(log: Log, functions: list[str]) -> dict[str, Any]:
    provenance = log.provenance
    return {
        "name": log.folder.name,
        "sha256": files_digest(log.folder / name for name in LOG_FILES),
        "functions": len(functions),
        "device": provenance.device["machine"].get("cpu", ""),
        "threads": provenance.threads,
        "tvm": provenance.versions.get("apache-tvm", ""),
        "date": provenance.runs[-1].date if provenance.runs else "",
        "trials": sum(run.trials for run in provenance.runs),
    }
