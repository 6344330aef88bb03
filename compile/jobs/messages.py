"""Messages between a run and its workers: the request for a step, and its outcome, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mvlm.compile.bits.plan_file import parse_plan
from mvlm.compile.job import CompileJob, plan_job
from mvlm.compile.jobs.calibration import CalibrationSpec, read_calibration
from mvlm.compile.jobs.log_snapshot import snapshot_folders
from mvlm.models.quantization import BitPlan, plan_quantization
from mvlm.runtime.artifact.json_object import JsonObject, build, parse_json_object
from mvlm.runtime.artifact.manifest import FileEntry, parse_entries
from mvlm.runtime.errors import TargetError
from mvlm.runtime.targets import TargetDescription
from mvlm.runtime.toml_file import TomlFile

WEIGHTS, ARTIFACT = "weights", "artifact"


@dataclass(frozen=True)
class JobSpec:
    """A job in plain values, from which any machine that sees the checkpoint plans it again.

    Attributes:
        checkpoint: The checkpoint's folder.
        vision_tower: The folder of its CLIP, where it would not be found.
        adapter: The folder of its LoRA adapter.
        quantization: Arguments of :func:`plan_quantization`; ``scheme`` is the language's.
        target: The device's description.
        platform: The system that it runs.
        context: Positions of the KV cache.
        digest: The checkpoint's.
        logs: The tuning logs that it is compiled with; see :func:`~.log_snapshot.snapshot_logs`.
        calibration: What it is calibrated with, or None.
        bits: Of a weight of the decoder's layers, on average, if its layers are planned by that.
        bit_plan: The schemes of the decoder's layers, if they are given.
    """

    checkpoint: str
    vision_tower: str | None
    adapter: str | None
    quantization: Mapping[str, str]
    target: TargetDescription
    platform: str
    context: int
    digest: str
    logs: tuple[FileEntry, ...] = ()
    calibration: CalibrationSpec | None = None
    bits: float | None = None
    bit_plan: BitPlan | None = None

    @property
    def data_digest(self) -> str | None:
        """The calibration data's digest, or None."""
        return None if self.calibration is None else self.calibration.digest

    def plan(self, logs: Path | None = None) -> CompileJob:
        """Plan the job.

        Args:
            logs: The folder where its tuning logs lie; without it the job is not whole, but as good
                for packing weights.

        Raises:
            MvlmError: The checkpoint is not there, or has become another one.
        """
        schemes: dict[str, Any] = dict(self.quantization)
        return plan_job(
            Path(self.checkpoint),
            target=self.target,
            platform=self.platform,
            quantization=plan_quantization(
                schemes.pop("scheme"), bits=self.bits, plan=self.bit_plan, **schemes
            ),
            vision_tower=_path(self.vision_tower),
            adapter=_path(self.adapter),
            context=self.context,
            logs=() if logs is None else snapshot_folders(self.logs, logs),
            calibration=None if self.calibration is None else self.calibration.request(),
        )


@dataclass(frozen=True)
class StepRequest:
    """What a worker is to do.

    Attributes:
        kind: ``weights`` or ``artifact``.
        key: The result's.
        name: For people.
        weights: The key of the weights.
        job: The job.
        store: The store's URL.
        run: The run that asks.
    """

    kind: str
    key: str
    name: str
    weights: str
    job: JobSpec
    store: str
    run: str

    def to_json(self) -> str:
        """Return the request as text."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class StepOutcome:
    """How one attempt at a step ended.

    Attributes:
        key: The step's.
        error: What went wrong, in a line; empty where the result is in the store.
        retryable: Whether a retry can help.
        out_of_memory: Whether it was likely the memory that ran out.
        worker: Machine and process that did it.
        seconds: How long it took.
        peak_bytes: Largest resident memory, where that is known.
        result_bytes: What the result's files take.
    """

    key: str
    error: str = ""
    retryable: bool = False
    out_of_memory: bool = False
    worker: str = ""
    seconds: float = 0.0
    peak_bytes: int | None = None
    result_bytes: int | None = None

    def to_json(self) -> str:
        """Return the outcome as text."""
        return json.dumps(asdict(self))


def parse_step_request(text: str) -> StepRequest:
    """Read what :meth:`StepRequest.to_json` wrote.

    Raises:
        ArtifactError: It is no request.
    """
    document = parse_json_object(text.encode(), "the request")
    texts = {name: document.get(name, str) for name in ("kind", "key", "name", "weights")}
    return StepRequest(
        **texts,
        job=_read_job(document.child("job")),
        store=document.get("store", str),
        run=document.get("run", str),
    )


def parse_step_outcome(text: str) -> StepOutcome:
    """Read what :meth:`StepOutcome.to_json` wrote.

    Raises:
        ArtifactError: It is no outcome.
    """
    document = parse_json_object(text.encode(), "the outcome")
    return StepOutcome(
        key=document.get("key", str),
        error=document.get("error", str),
        retryable=document.get("retryable", bool),
        out_of_memory=document.get("out_of_memory", bool),
        worker=document.get("worker", str),
        seconds=document.get("seconds", float),
        peak_bytes=document.optional("peak_bytes", int),
        result_bytes=document.optional("result_bytes", int),
    )


def _read_job(document: JsonObject) -> JobSpec:
    schemes = document.child("quantization")
    described = _without_none(document.child("target").values)
    plan = document.optional("bit_plan", dict)
    # A description is read from a request as strictly as from a file.
    source = TomlFile(Path("the request"), "the target", TargetError, "")
    return JobSpec(
        checkpoint=document.get("checkpoint", str),
        vision_tower=document.optional("vision_tower", str),
        adapter=document.optional("adapter", str),
        quantization={key: schemes.get(key, str) for key in schemes.values},
        target=source.table(TargetDescription, described),
        platform=document.get("platform", str),
        context=document.get("context", int),
        digest=document.get("digest", str),
        logs=build("the request", lambda: parse_entries(document.children("logs"))),
        calibration=read_calibration(document),
        bits=document.optional("bits", float),
        bit_plan=None if plan is None else parse_plan(plan, "the request: bit_plan"),
    )


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    nested = ((key, _without_none(v) if isinstance(v, dict) else v) for key, v in values.items())
    return {key: value for key, value in nested if value is not None}


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)
