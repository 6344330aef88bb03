"""Where a log comes from, and what came of each task: ``provenance.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mvlm.compile.tuning.log.files import FILE
from mvlm.runtime.artifact.json_object import JsonObject, read_json_object
from mvlm.runtime.atomic_write import atomic_write
from mvlm.runtime.errors import ArtifactError

SCHEMA = 1


@dataclass(frozen=True)
class Outcome:
    """What came of one task.

    Attributes:
        name: The function's name in the model that it was tuned for.
        operation: What it computes; empty for a function without a kernel of ours.
        workload: The task's line among the workloads.
        trials: Measurements of it, over all runs.
        default_seconds: Of the default schedule, in the last comparison.
        tuned_seconds: Of the best other one in that comparison; None if there was none.
        gain: By how much that one was faster, as a share of the default's time.
        noise: What the comparison could not tell from nothing, as such a share.
        record: The winner's line among the records; None if the default stays.
        error: The winner's largest error, in units of what its oracle allows.
        date: Of the comparison.
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
class Run:
    """One call of the tuner.

    Attributes:
        date: When it ended, in UTC.
        model: What was tuned.
        trials: Measurements that it made.
        seed: Of what was drawn.
        cost_model: What ranked the candidates.
        seconds: How long it took.
        devices: Those that measured, with their state at the time.
        retired: Those that were retired, and why.
        is_complete: Whether it was neither stopped nor failed.
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
    """The whole of it.

    Attributes:
        target: The target's name.
        options: The whole TVM target.
        versions: Of what made the kernels.
        device: The device as it was found.
        runs: In their order.
        outcomes: By the task's digest.
    """

    target: str
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    device: Mapping[str, Any]
    runs: tuple[Run, ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    @property
    def is_emulated(self) -> bool:
        """Whether its times are an emulator's."""
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
            "kernels": {key: asdict(self.outcomes[key]) for key in sorted(self.outcomes)},
        }

    def write(self, folder: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: The disk is full, or the folder cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n"
        with atomic_write(folder / FILE) as file:
            file.write(text.encode())


def read_provenance(folder: Path) -> Provenance:
    """Read a log's provenance.

    Raises:
        ArtifactError: It is absent or damaged; says which key.
    """
    if not (folder / FILE).is_file():
        raise ArtifactError(
            f"{folder} is no tuning log",
            expected=f"a folder with {FILE}",
            found="none in it" if folder.is_dir() else "no such folder",
            fix="`mvlm logs list` shows those that there are.",
        )
    document = read_json_object(folder / FILE)
    if document.get("schema", int) != SCHEMA:
        raise ArtifactError(
            f"{document.where} is of another schema",
            expected=SCHEMA,
            found=document.get("schema", int),
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
        outcomes={key: _outcome(kernels.child(key)) for key in kernels.values},
    )


def check_device(device: JsonObject) -> None:
    """Check what a device says of itself, as far as anybody here reads it.

    Raises:
        ArtifactError: A key is missing, or of another type.
    """
    device.get("threads", int)
    machine = device.child("machine")
    machine.optional("cpu", str)
    machine.optional("is_emulated", bool)
    if device.optional("state", dict) and device.child("state").optional("cores", list):
        device.child("state").children("cores")


def _run(document: JsonObject) -> Run:
    return Run(
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


def _outcome(document: JsonObject) -> Outcome:
    return Outcome(
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
