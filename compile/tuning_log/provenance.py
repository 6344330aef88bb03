"""A log's provenance, ``provenance.json``: what it was measured on, and each task's result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mvlm.compile.provenance import package_versions
from mvlm.compile.tuning_log.paths import PROVENANCE_FILE
from mvlm.runtime.artifact.json_object import JsonObject, read_json_object
from mvlm.runtime.atomic_write import atomic_write
from mvlm.runtime.errors import ArtifactError

# Schema 1 had other names of knobs and operations, schema 2 other workloads of kernels, schema 3
# signatures that named no layout of weights.
SCHEMA = 4
_COMPILER = "apache-tvm"


@dataclass(frozen=True)
class TaskResult:
    """The result of tuning one task.

    Attributes:
        name: The function's name in the model that it was tuned for.
        operation: The kernel's operation; empty for an extracted task.
        workload: The task's line among the workloads.
        trials: Candidates measured, over all runs.
        default_seconds: The default's time in the last comparison.
        tuned_seconds: The best candidate's time in that comparison; None if there was none.
        gain: The best candidate's gain, relative to the default's time.
        noise: Smallest resolvable relative difference of that comparison.
        record: The winner's line among the records; None if the default is kept.
        error: The winner's largest error, in units of its tolerance.
        date: The comparison's date, in UTC.
    """

    name: str
    operation: str
    workload: int
    trials: int
    default_seconds: float
    tuned_seconds: float | None
    gain: float
    noise: float
    record: int | None
    error: float | None
    date: str


@dataclass(frozen=True)
class TuningRun:
    """One call of the tuner.

    Attributes:
        date: When it ended, in UTC.
        model: The model's name.
        trials: Candidates measured.
        seed: The seed of the search.
        cost_model: The cost model: ``xgboost``, or ``none``.
        seconds: Its duration.
        devices: The descriptions of the devices that measured, by address.
        retired: Why devices were retired, by address.
        is_complete: Whether the run was neither interrupted nor failed.
    """

    date: str
    model: str
    trials: int
    seed: int
    cost_model: str
    seconds: float
    devices: Mapping[str, Any]
    retired: Mapping[str, str]
    is_complete: bool


@dataclass(frozen=True)
class Provenance:
    """The content of ``provenance.json``.

    Attributes:
        target: The target's name.
        options: The whole TVM target.
        versions: Versions of the packages that made the kernels.
        device: The description of the device when the log was begun.
        runs: The tuner's runs, in order.
        results: By the task's digest.
    """

    target: str
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    device: Mapping[str, Any]
    runs: tuple[TuningRun, ...] = ()
    results: Mapping[str, TaskResult] = field(default_factory=dict)

    @property
    def is_emulated(self) -> bool:
        """Whether the times were measured on an emulator."""
        return bool(self.device["machine"].get("is_emulated", False))

    @property
    def threads(self) -> int:
        """Threads that kernels ran on."""
        return int(self.device["threads"])

    def to_json(self) -> dict[str, Any]:
        """Return the file's content."""
        return {
            "schema": SCHEMA,
            "target": {"name": self.target, "tvm": dict(self.options)},
            "versions": dict(self.versions),
            "device": dict(self.device),
            "runs": [asdict(run) for run in self.runs],
            "kernels": {key: asdict(self.results[key]) for key in sorted(self.results)},
        }

    def write(self, folder: Path) -> None:
        """Write the file atomically.

        Raises:
            OSError: The disk is full, or the folder cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n"
        with atomic_write(folder / PROVENANCE_FILE) as file:
            file.write(text.encode())


@dataclass(frozen=True)
class LogKey:
    """What a log has to match to be applied.

    Attributes:
        target: The target's name.
        options: The whole TVM target.
        threads: Threads that kernels run on; None when compiling for another device, whose number
            of threads is not known here.
        versions: Versions of the packages that make the kernels.
    """

    target: str
    options: Mapping[str, Any]
    threads: int | None
    versions: Mapping[str, str]

    @classmethod
    def for_target(cls, target: str, options: Mapping[str, Any], threads: int | None) -> LogKey:
        """Return the key of a target, with the installed versions."""
        return cls(target, dict(options), threads, package_versions())

    def mismatch(self, provenance: Provenance) -> str | None:
        """Return why a log does not match, or None if it does."""
        if provenance.is_emulated:
            return "its times are an emulator's"
        return self.kernel_mismatch(provenance)

    def kernel_mismatch(self, provenance: Provenance) -> str | None:
        """Return why a log's kernels are others, or None; an emulator's log may match."""
        for what, mine, theirs in (
            (_COMPILER, self.versions[_COMPILER], provenance.versions.get(_COMPILER)),
            ("target", self.target, provenance.target),
            ("threads", self.threads, provenance.threads),
        ):
            if mine is not None and mine != theirs:
                return f"it is for {what} {theirs}, not {mine}"
        if dict(provenance.options) != dict(self.options):
            theirs, mine = _named(provenance.options), _named(self.options)
            return f"it is for another CPU: {theirs}, not {mine}"
        return None


def _named(options: Mapping[str, Any]) -> str:
    features = [str(each) for each in options.get("mattr", ()) if str(each).startswith("+")]
    return f"{options.get('mcpu', 'unnamed')} with {len(features)} features"


def utc_now() -> str:
    """Return the date and time in UTC, as a log has them."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def read_provenance(folder: Path) -> Provenance:
    """Read a log's provenance.

    Raises:
        ArtifactError: The file is absent or damaged; names the key.
    """
    if not (folder / PROVENANCE_FILE).is_file():
        raise ArtifactError(
            f"{folder} is not a tuning log",
            expected=f"a folder with {PROVENANCE_FILE}",
            found="none in it" if folder.is_dir() else "no such folder",
            fix="`mvlm logs list` lists the logs.",
        )
    document = read_json_object(folder / PROVENANCE_FILE)
    if document.get("schema", int) != SCHEMA:
        raise ArtifactError(
            f"{document.where} is of another schema",
            expected=SCHEMA,
            found=document.get("schema", int),
            fix="Run `mvlm tune`: it quarantines this log and starts a new one.",
        )
    target, device = document.child("target"), document.child("device")
    check_device(device)
    kernels = document.child("kernels")
    return Provenance(
        target=target.get("name", str),
        options=target.get("tvm", dict),
        versions=document.get("versions", dict),
        device=device.values,
        runs=tuple(map(_run, document.children("runs"))),
        results={key: _outcome(kernels.child(key)) for key in kernels.values},
    )


def check_device(device: JsonObject) -> None:
    """Check the keys of a device's description that this program reads.

    Raises:
        ArtifactError: A key is missing, or of another type.
    """
    device.get("threads", int)
    machine = device.child("machine")
    machine.optional("cpu", str)
    machine.optional("is_emulated", bool)
    if device.optional("state", dict) and device.child("state").optional("cores", list):
        device.child("state").children("cores")


def _run(document: JsonObject) -> TuningRun:
    return TuningRun(
        date=document.get("date", str),
        model=document.get("model", str),
        trials=document.get("trials", int),
        seed=document.get("seed", int),
        cost_model=document.get("cost_model", str),
        seconds=document.get("seconds", float),
        devices=document.get("devices", dict),
        retired=document.get("retired", dict),
        is_complete=document.get("is_complete", bool),
    )


def _outcome(document: JsonObject) -> TaskResult:
    return TaskResult(
        name=document.get("name", str),
        operation=document.get("operation", str),
        workload=document.get("workload", int),
        trials=document.get("trials", int),
        default_seconds=document.get("default_seconds", float),
        tuned_seconds=document.optional("tuned_seconds", float),
        gain=document.get("gain", float),
        noise=document.get("noise", float),
        record=document.optional("record", int),
        error=document.optional("error", float),
        date=document.get("date", str),
    )
