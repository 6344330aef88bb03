"""What says which candidates are worth measuring: MetaSchedule's model of costs, on xgboost.

The model learns from times, each as a share of the best of its task, so that all tasks teach it. A
function without a kernel is described by what its loops do, as MetaSchedule does it; a kernel's
point by its numbers, and by the shapes that they are chosen for.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from mvlm.compile.tuning.candidate import Candidate, point_of
from mvlm.compile.tuning.task import Task
from mvlm.schedules.kernel_set import OP_ATTRIBUTE
from mvlm.schedules.signature import parameter_types

# Every name that a kernel asks for, and every operation that asks; a test compares them.
NAMES = (
    "ahead",
    "apart",
    "at_once",
    "chunk",
    "columns",
    "fetch",
    "rows",
    "side",
    "strands",
    "stretches",
    "together",
)
OPERATIONS = (
    "append_to_cache",
    "attention",
    "cached_attention",
    "linear",
    "panel_linear",
    "quantize_rows",
    "row_function",
)
_SHAPES = 12
_INTRINSICS = "tvm.s_tir.tensor_intrin"
_WARM_UP = 24
# Of training: nothing is printed.
_NEVER = 1 << 30


@derived_object
class _PointFeatures(ms.feature_extractor.PyFeatureExtractor):
    """Describes points by their numbers."""

    def extract_from(self, context: Any, candidates: Sequence[Any]) -> list[Any]:
        about = _about(context.mod["main"])
        return [
            tvm.runtime.tensor(np.array([[*_numbers(point_of(each.sch.mod)), *about]], np.float32))
            for each in candidates
        ]


def _numbers(point: dict[str, int]) -> list[float]:
    return [math.log2(1 + point[name]) if name in point else -1.0 for name in NAMES]


def _about(signature: Any) -> list[float]:
    operation = str(signature.attrs[OP_ATTRIBUTE])
    kind = [float(operation == name) for name in OPERATIONS]
    extents = [
        math.log2(1 + int(extent)) for each in parameter_types(signature) for extent in each.shape
    ]
    return [*kind, *(extents + [0.0] * _SHAPES)[:_SHAPES]]


class Guide:
    """Ranks candidates by what has been measured.

    Args:
        seed: Of the model.
        threads: That it may train on.
    """

    def __init__(self, seed: int, threads: int) -> None:
        config = ms.cost_model.xgb_model.XGBConfig(seed=seed, nthread=threads)
        self._points = ms.cost_model.XGBModel(
            extractor=_PointFeatures(),
            config=config,
            num_warmup_samples=_WARM_UP,
            verbose_eval=_NEVER,
        )
        # MetaSchedule's own search asks this one itself.
        self.of_functions = ms.cost_model.XGBModel(
            config=config, num_warmup_samples=_WARM_UP, verbose_eval=_NEVER
        )

    def scores(self, context: Any, candidates: Sequence[Candidate]) -> npt.NDArray[Any] | None:
        """Return a score for each point, the higher the better; None before enough is known."""
        if self._points.booster is None or self._points.data_size < _WARM_UP:
            return None
        found: npt.NDArray[Any] = self._points.predict(context, _measured(candidates))
        return found

    def learn(
        self, context: Any, candidates: Sequence[Candidate], seconds: Sequence[float | None]
    ) -> None:
        """Learn from what was measured; None where a candidate failed."""
        results = run_results(seconds)
        model = self._points if candidates[0].point is not None else self.of_functions
        model.update(context, _measured(candidates), results)


def make_context(task: Task, target: Any, **more: Any) -> Any:
    """Return MetaSchedule's context of a task."""
    with _without_intrinsics():
        return ms.TuneContext(
            task.module, target=target, task_name=task.name, num_threads=1, **more
        )


@contextmanager
def _without_intrinsics() -> Iterator[None]:
    """Keep TVM from parsing its tensor intrinsics, GPUs' above all: half a minute, for nothing.

    A context imports them when it is made; no rule of ours uses any.
    """
    is_there = _INTRINSICS in sys.modules
    sys.modules.setdefault(_INTRINSICS, ModuleType(_INTRINSICS))
    try:
        yield
    finally:
        if not is_there:
            del sys.modules[_INTRINSICS]


def run_results(seconds: Sequence[float | None]) -> list[Any]:
    """Return times as MetaSchedule's results."""
    return [
        ms.runner.RunnerResult(None, "failed")
        if each is None
        else ms.runner.RunnerResult([each], None)
        for each in seconds
    ]


def _measured(candidates: Sequence[Candidate]) -> list[Any]:
    return [ms.MeasureCandidate(each.schedule, []) for each in candidates]
