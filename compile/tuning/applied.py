"""What a log has tuned, put into what is compiled.

A log is used only if it is about this very target, thread count and TVM; of its tasks those whose
digest is a kernel's own, that have won, and whose choices the kernel can make. All else is as by
default, and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvlm.compile.provenance import files_digest
from mvlm.compile.tuning.log import Log, Outcome, Subject, find_logs, read_log, shipped_logs
from mvlm.compile.tuning.log.files import FILES
from mvlm.compile.tuning.log.lines import try_choices
from mvlm.runtime.errors import ArtifactError

if TYPE_CHECKING:
    from tvm import tirx

    from mvlm.schedules.choice import Choose
    from mvlm.schedules.kernel_set import KernelSet


@dataclass(frozen=True)
class Tuning:
    """The logs that are about a target.

    Attributes:
        logs: Those, the first one asked first.
        warnings: What is not used, and why.
    """

    logs: tuple[Log, ...] = ()
    warnings: tuple[str, ...] = ()

    def won(self, key: str) -> tuple[Log, Outcome] | None:
        """Return the log and the outcome of a task that won."""
        for log in self.logs:
            outcome = log.tables.outcomes.get(key)
            if outcome is not None:
                return (log, outcome) if outcome.record is not None else None
        return None


def find_tuning(subject: Subject, places: Sequence[Path]) -> Tuning:
    """Look for the logs that are about something.

    Args:
        subject: What is to be compiled.
        places: Folders of logs.
    """
    logs, warnings, shipped = [], [], shipped_logs()
    for folder in find_logs(places):
        try:
            log = read_log(folder)
        except ArtifactError as error:
            warnings.append(f"the tuning log {folder} is not used: {error}")
            continue
        if log.provenance.target != subject.target:
            continue
        difference = subject.difference(log.provenance)
        if difference is not None:
            if folder.parent == shipped:
                continue  # mvlm brings logs of many devices
            warnings.append(f"the tuning log {folder} is not used: {difference}")
            continue
        for where, what in log.damaged.items():
            warnings.append(f"{folder}: {where} is not used: {what}")
        logs.append(log)
    return Tuning(tuple(logs), tuple(warnings))


@dataclass
class TunedChoices:
    """Chooses what was tuned; see `mvlm.compile.pipeline.Choices`.

    Attributes:
        tuning: The logs.
        tuned: By log, the functions that came from it; filled while something is compiled.
        warnings: What was not used, and why.
    """

    tuning: Tuning
    tuned: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def kernel(self, definition: tirx.PrimFunc, kernels: KernelSet) -> Choose:
        """Return what chooses for a definition's kernel."""
        from mvlm.compile.tuning.task import workload_key
        from mvlm.compile.tuning.workload import module_of, workload_of
        from mvlm.schedules.choice import Chosen, by_default
        from mvlm.schedules.kernel_set import OP_ATTRIBUTE

        if not self.tuning.logs or OP_ATTRIBUTE not in definition.attrs:
            return by_default
        found = self.tuning.won(workload_key(module_of(workload_of(definition))))
        if found is None:
            return by_default
        log, outcome = found
        assert outcome.record is not None
        choices = try_choices(log.tables.records[outcome.record].trace)
        knobs = {knob.name: knob.values for knob in kernels.space(definition) or ()}
        if choices is None or any(v not in knobs.get(name, ()) for name, v in choices.items()):
            self._refuse(log, outcome, "its kernel cannot do what the record chooses")
            return by_default
        self._count(log, outcome)
        return Chosen(choices)

    def schedule(self, function: tirx.PrimFunc, kernels: KernelSet) -> tirx.PrimFunc | None:
        """Return a function without a kernel as it was tuned, or None if it was not."""
        from mvlm.compile.tuning.candidate import replayed
        from mvlm.compile.tuning.task import is_static, workload_key
        from mvlm.compile.tuning.workload import module_of
        from mvlm.schedules.choice import by_default

        if not self.tuning.logs or not is_static(function):
            return None
        named = function.with_attr("global_symbol", "main")
        workload = module_of(named)
        found = self.tuning.won(workload_key(workload))
        if found is None:
            return None
        log, outcome = found
        assert outcome.record is not None
        try:
            scheduled = replayed(workload, log.tables.records[outcome.record].trace).function
        except Exception as error:  # whatever TVM makes of a trace that does not fit
            self._refuse(log, outcome, str(error).strip().splitlines()[-1][:120])
            return None
        self._count(log, outcome)
        finished = kernels.finish(scheduled, function, by_default)
        return finished.with_attr("tirx.is_scheduled", True).without_attr("global_symbol")

    def report(self, total: int) -> dict[str, Any]:
        """Return what the artifact's manifest says of it.

        Args:
            total: Functions that were compiled.
        """
        count = sum(map(len, self.tuned.values()))
        return {
            "tuned": count,
            "default": total - count,
            "logs": [
                _about(log, self.tuned[str(log.folder)])
                for log in self.tuning.logs
                if str(log.folder) in self.tuned
            ],
        }

    def _count(self, log: Log, outcome: Outcome) -> None:
        self.tuned.setdefault(str(log.folder), []).append(outcome.name)

    def _refuse(self, log: Log, outcome: Outcome, why: str) -> None:
        self.warnings.append(f"{log.folder}: the record of {outcome.name} is not used: {why}")


def _about(log: Log, functions: list[str]) -> dict[str, Any]:
    provenance = log.provenance
    return {
        "name": log.folder.name,
        "sha256": files_digest(log.folder / name for name in FILES),
        "functions": len(functions),
        "device": provenance.device["machine"].get("cpu", ""),
        "threads": provenance.threads,
        "tvm": provenance.versions.get("apache-tvm", ""),
        "date": provenance.runs[-1].date if provenance.runs else "",
        "trials": sum(run.trials for run in provenance.runs),
    }
