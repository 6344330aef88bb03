"""What a run and its steps are doing, as it is kept in the store: no more than a page each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mvlm.compile.jobs.process import Process, read_process
from mvlm.runtime.artifact.json_object import JsonObject, build, parse_json_object
from mvlm.runtime.errors import ArtifactError

QUEUED, RUNNING, DONE, REUSED = "queued", "running", "done", "reused"
FAILED, CANCELLED = "failed", "cancelled"
STATES = (QUEUED, RUNNING, DONE, REUSED, FAILED, CANCELLED)
# What does not change any more.
FINISHED = (DONE, REUSED, FAILED, CANCELLED)
SUCCESSFUL = (DONE, REUSED)

# Of all documents in a store: runs and results.
SCHEMA_VERSION = 2
MAX_RUN_BYTES = 16 << 20
MAX_STATE_BYTES = 1 << 16
KEY = re.compile(r"[0-9a-f]{64}")
RUN = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
_MAX_TEXT = 2_000
_MAX_STEPS = 50_000


@dataclass(frozen=True)
class StepEntry:
    """One step of a run, as it was planned.

    Attributes:
        key: Its result's.
        kind: ``weights`` or ``artifact``.
        name: For people.
        labels: An artifact's place in the matrix: its ``model``, ``adapter``, ``quantization``,
            ``target``, ``platform`` and the key of its ``weights``.
    """

    key: str
    kind: str
    name: str
    labels: Mapping[str, str]

    def __post_init__(self) -> None:
        if not KEY.fullmatch(self.key):
            raise ValueError(f"{self.key!r:.80} is no key")
        if self.kind not in ("weights", "artifact"):
            raise ValueError(f"kind {self.kind!r:.40}")


@dataclass(frozen=True)
class MatrixRun:
    """One call of ``mvlm jobs run``.

    Attributes:
        id: Its name: the time of its start, and a few random digits.
        matrix: The matrix file, for people.
        engine: Where steps are done, for people.
        owner: The process that has them done.
        started: Seconds since 1970.
        state: ``running``, ``done``, ``failed`` or ``cancelled``.
        steps: What is to be done.
        ended: When it ended, or None.
    """

    id: str
    matrix: str
    engine: str
    owner: Process
    started: float
    state: str
    steps: tuple[StepEntry, ...]
    ended: float | None = None

    def __post_init__(self) -> None:
        if not RUN.fullmatch(self.id):
            raise ValueError(f"{self.id!r:.80} is no run's name")
        if self.state not in (RUNNING, DONE, FAILED, CANCELLED):
            raise ValueError(f"state {self.state!r:.40}")
        if len(self.steps) > _MAX_STEPS:
            raise ValueError(f"{len(self.steps)} steps")

    def to_bytes(self) -> bytes:
        """Return the document."""
        values = asdict(self) | {"steps": [asdict(step) for step in self.steps]}
        return json.dumps({"schema": SCHEMA_VERSION} | values).encode()


@dataclass(frozen=True)
class StepState:
    """What became of a step.

    Attributes:
        state: One of :data:`STATES`.
        attempts: How often it was begun.
        worker: Who did it last: machine and process.
        started: When the last attempt began, in seconds since 1970; or None.
        seconds: What the last attempt took.
        peak_bytes: Its largest resident memory.
        result_bytes: What its files take in the store.
        note: Why it waits, or what went wrong: a line.
    """

    state: str = QUEUED
    attempts: int = 0
    worker: str = ""
    started: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    result_bytes: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state {self.state!r:.40}")
        if self.attempts < 0:
            raise ValueError(f"{self.attempts} attempts")

    def to_bytes(self) -> bytes:
        """Return the document."""
        cut = {key: getattr(self, key)[:_MAX_TEXT] for key in ("worker", "note")}
        return json.dumps(asdict(self) | cut).encode()


def require_schema(document: JsonObject, where: str) -> None:
    """Refuse a document that another version of mvlm wrote.

    Raises:
        ArtifactError: Its version is not ours, or missing.
    """
    found = document.get("schema", int)
    if found != SCHEMA_VERSION:
        raise ArtifactError(
            f"{where} was written by another version of mvlm",
            expected=f"schema {SCHEMA_VERSION}",
            found=f"schema {found}",
            fix="Run the matrix again with this version, `mvlm jobs run MATRIX --store URL`; or "
            "read it with the version that wrote it.",
        )


def parse_run(data: bytes, where: str) -> MatrixRun:
    """Read a run's document.

    Raises:
        ArtifactError: It breaks the format.
    """
    document = _bounded(data, MAX_RUN_BYTES, where)
    require_schema(document, where)
    texts = {key: document.get(key, str)[:_MAX_TEXT] for key in ("id", "matrix", "engine", "state")}
    return build(
        where,
        lambda: MatrixRun(
            **texts,
            owner=read_process(document.child("owner")),
            started=document.get("started", float),
            ended=document.optional("ended", float),
            steps=tuple(_parse_step(step) for step in document.children("steps")),
        ),
    )


def parse_state(data: bytes, where: str) -> StepState:
    """Read a step's document.

    Raises:
        ArtifactError: It breaks the format.
    """
    document = _bounded(data, MAX_STATE_BYTES, where)
    texts = {key: document.get(key, str)[:_MAX_TEXT] for key in ("state", "worker", "note")}
    return build(
        where,
        lambda: StepState(
            **texts,
            attempts=document.get("attempts", int),
            started=document.optional("started", float),
            seconds=document.optional("seconds", float),
            peak_bytes=document.optional("peak_bytes", int),
            result_bytes=document.optional("result_bytes", int),
        ),
    )


def _parse_step(document: JsonObject) -> StepEntry:
    labels = document.child("labels")
    texts = {key: document.get(key, str)[:_MAX_TEXT] for key in ("key", "kind", "name")}
    return StepEntry(
        **texts, labels={key: labels.get(key, str)[:_MAX_TEXT] for key in labels.values}
    )


def _bounded(data: bytes, limit: int, where: str) -> JsonObject:
    if len(data) > limit:
        raise ArtifactError(f"{where} is too large", expected=f"at most {limit} bytes")
    return parse_json_object(data, where)
