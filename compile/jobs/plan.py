"""From a matrix to steps: every job is planned before any is run, so that all mistakes show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvlm.compile.bits.plan_file import read_plan
from mvlm.compile.compile_target import require_kernels
from mvlm.compile.distinct_names import distinct_names
from mvlm.compile.job import CompileJob, plan_job
from mvlm.compile.jobs.calibration import CalibrationSpec, PlannedCalibration
from mvlm.compile.jobs.log_snapshot import snapshot_folders, snapshot_logs
from mvlm.compile.jobs.matrix import Cell, Matrix, MatrixError
from mvlm.compile.jobs.memory_estimate import weights_bytes
from mvlm.compile.jobs.messages import ARTIFACT, WEIGHTS, JobSpec
from mvlm.compile.memory import PROGRAM_BYTES
from mvlm.compile.tuning_log import log_folders
from mvlm.models.quantization import Quantization, plan_quantization
from mvlm.runtime.artifact.manifest import FileEntry
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.targets import TargetDescription, find_description

# Called with how many jobs are planned, and of how many.
Progress = Callable[[int, int], None]

_MOST_SHOWN = 20


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        kind: ``weights`` or ``artifact``.
        key: Its result's.
        name: For people.
        labels: An artifact's place in the matrix, for reports.
        memory: Bytes that it is estimated to take.
        weights: The key of the weights that it needs, or makes.
        job: What it is of; of all jobs that share weights, one.
    """

    kind: str
    key: str
    name: str
    labels: Mapping[str, str]
    memory: int
    weights: str
    job: JobSpec


@dataclass(frozen=True)
class MatrixPlan:
    """What a matrix takes.

    Attributes:
        path: The matrix file.
        steps: The steps, each once: weights before the artifacts that need them.
        logs: The folder of the tuning logs that go with them.
    """

    path: Path
    steps: tuple[Step, ...]
    logs: Path

    @property
    def artifacts(self) -> tuple[Step, ...]:
        """The steps that make artifacts: the jobs."""
        return tuple(step for step in self.steps if step.kind == ARTIFACT)


def plan_matrix(
    matrix: Matrix, logs: Path, progress: Progress = lambda done, total: None
) -> MatrixPlan:
    """Plan every job of a matrix; checkpoints are read once each, for their digests.

    Args:
        matrix: What is asked for.
        logs: A folder that gets copies of the tuning logs, and is there as long as the plan is.
        progress: Called as the work proceeds.

    Raises:
        MatrixError: Jobs cannot be planned; says of all why, and where they stand.
    """
    planner = _Planner(logs, _labels(matrix.cells))
    weights: dict[str, Step] = {}
    artifacts: dict[str, Step] = {}
    for done, cell in enumerate(matrix.cells):
        progress(done, len(matrix.cells))
        for step in planner.steps(cell):
            known = weights if step.kind == WEIGHTS else artifacts
            known.setdefault(step.key, step)
    progress(len(matrix.cells), len(matrix.cells))
    planner.raise_if_bad(matrix.path)
    steps = (*weights.values(), *_with_unique_names(artifacts.values()))
    return MatrixPlan(matrix.path, steps, logs)


class _Planner:
    """Remembers what was found of each entry of a matrix, and what is wrong with it."""

    def __init__(self, logs: Path, labels: Mapping[Path, str]) -> None:
        self._logs = logs
        self._labels = labels
        self._found: dict[tuple[Any, ...], Any] = {}
        self._mistakes: dict[str, None] = {}  # in order, and each once

    def steps(self, cell: Cell) -> list[Step]:
        """Return a job's steps; none if something is wrong with it."""
        target = self._once(cell, "target", lambda: _find_target(cell), "target")
        schemes = self._once(
            cell, "schemes", lambda: plan_quantization(**_arguments(cell)), "quantization"
        )
        asked = self._once(
            cell, "calibration", lambda: PlannedCalibration.asked_by(cell), "quantization"
        )
        model = self._once(cell, "model", lambda: plan_job(**_checkpoint(cell)), "model")
        places = self._once(cell, "logs", lambda: log_folders(cell.logs))
        if None in (target, schemes, asked, model, places):
            return []
        logs = self._once(
            cell, "copies", lambda: snapshot_logs(target.name, places, self._logs), "target"
        )
        if logs is None:
            return []
        about: tuple[str, ...] = ("model", "adapter")
        digest = self._once(
            cell, "digest", lambda: _checked_digest(replace(model, adapter=cell.adapter)), *about
        )
        # Adapters change neither the tokenizer nor the images.
        calibration = self._once(
            cell, "data", lambda: asked.drawn_for(model), "model", "quantization"
        )
        about = (*about, "quantization")
        axes = (*about, "target")
        job = self._once(cell, "job", lambda: self._plan(cell, target, schemes, asked, logs), *axes)
        if digest is None or calibration is None or job is None:
            return []
        memory = self._once(cell, "memory", lambda: weights_bytes(job, calibration.data), *about)
        if memory is None:
            return []
        spec = _spec(cell, job, digest, calibration.spec(), logs)
        return _steps(cell, job, spec, memory, _names(cell, job, self._labels))

    def raise_if_bad(self, path: Path) -> None:
        """Raise MatrixError if anything was wrong."""
        mistakes = list(self._mistakes)
        if len(mistakes) == 1:
            raise MatrixError(mistakes[0])
        if mistakes:
            numbered = [f"({i}) {mistake}" for i, mistake in enumerate(mistakes[:_MOST_SHOWN], 1)]
            more = f" and {len(mistakes) - _MOST_SHOWN} more" if len(mistakes) > _MOST_SHOWN else ""
            raise MatrixError(f"{path} has {len(mistakes)} mistakes: {'; '.join(numbered)}{more}")

    def _plan(
        self,
        cell: Cell,
        target: TargetDescription,
        schemes: Quantization,
        calibration: PlannedCalibration,
        logs: tuple[FileEntry, ...],
    ) -> CompileJob:
        return plan_job(
            **_checkpoint(cell),
            target=target,
            platform=cell.platform,
            quantization=schemes,
            logs=snapshot_folders(logs, self._logs),
            calibration=calibration.request,
        )

    def _once(self, cell: Cell, what: str, find: Callable[[], Any], *axes: str) -> Any:
        """Find out what a cell's entries on some axes say, once; None where that fails."""
        places = {axis: cell.places[axis] for axis in axes}
        key = (cell.file, what, *places.values())
        if key not in self._found:
            self._found[key] = None
            try:
                self._found[key] = find()
            except MvlmError as error:
                named = [f"{place} ({cell.names[axis]})" for axis, place in places.items()]
                where = f"{' with '.join(named) or what}: "
                self._mistakes[f"{cell.file.name}: {where}{error}"] = None
        return self._found[key]


def _steps(
    cell: Cell, job: CompileJob, spec: JobSpec, memory: int, names: Mapping[str, str]
) -> list[Step]:
    """Return the two steps of a job: its weights, which others may share, and itself."""
    weights = job.weights_key(spec.digest, spec.data_digest)
    key = job.key(spec.digest, spec.data_digest)
    shared = f"{'+'.join(filter(None, (names['model'], names['adapter'])))}/{names['quantization']}"
    name = f"{shared}/{names['target']}" + (f"-{cell.platform}" if cell.platform else "")
    labels = {**names, "weights": weights}
    named = f"{shared} weights ({job.layout.name})"
    return [
        Step(WEIGHTS, weights, named, {}, memory, weights, replace(spec, logs=())),
        Step(ARTIFACT, key, name, labels, PROGRAM_BYTES, weights, spec),
    ]


def _spec(
    cell: Cell,
    job: CompileJob,
    digest: str,
    calibration: CalibrationSpec | None,
    logs: tuple[FileEntry, ...],
) -> JobSpec:
    return JobSpec(
        checkpoint=str(job.checkpoint.absolute()),
        vision_tower=_text(job.vision_tower),
        adapter=_text(job.adapter),
        quantization=cell.quantization.schemes(),
        target=job.target,
        platform=job.platform,
        context=job.context,
        digest=digest,
        logs=logs,
        calibration=calibration,
        bits=cell.quantization.bits,
        bit_plan=job.quantization.plan,
    )


def _find_target(cell: Cell) -> TargetDescription:
    description = find_description(cell.target)
    require_kernels(description)
    return description


def _arguments(cell: Cell) -> dict[str, Any]:
    schemes, named = cell.quantization.schemes(), cell.quantization.plan
    return {
        "language": schemes.pop("scheme"),
        "bits": cell.quantization.bits,
        "plan": read_plan(cell.file.parent / named) if named else None,
    } | schemes


def _checkpoint(cell: Cell) -> dict[str, Any]:
    """Return the arguments of :func:`plan_job` that say what the model is."""
    tower = cell.model.vision_tower
    return {
        "checkpoint": Path(cell.model.path),
        "vision_tower": Path(tower) if tower else None,
        "adapter": cell.adapter,
        "context": cell.context,
    }


def _checked_digest(job: CompileJob) -> str:
    job.check_adapter()
    return job.checkpoint_digest()


def _labels(cells: Iterable[Cell]) -> dict[Path, str]:
    """Return what people call models and adapters: folders without the way to them."""
    cells = tuple(cells)
    models = distinct_names(Path(cell.model.path) for cell in cells if not cell.model.name)
    return models | distinct_names(cell.adapter for cell in cells if cell.adapter is not None)


def _names(cell: Cell, job: CompileJob, labels: Mapping[Path, str]) -> dict[str, str]:
    """Return what people call a job's parts."""
    named = cell.model.name or labels[job.checkpoint.resolve()]
    adapter = "" if job.adapter is None else labels[job.adapter.resolve()]
    return {
        "model": named,
        "adapter": adapter,
        "quantization": cell.quantization.label,
        "target": job.target.name,
        "platform": job.platform,
    }


def _with_unique_names(steps: Iterable[Step]) -> list[Step]:
    """Give steps of one name, as models in folders of one name have them, a part of their keys."""
    steps = list(steps)
    count = Counter(step.name for step in steps)
    return [
        step if count[step.name] == 1 else replace(step, name=f"{step.name}-{step.key[:8]}")
        for step in steps
    ]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
