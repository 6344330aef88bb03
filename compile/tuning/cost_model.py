"""The cost model that ranks candidates: MetaSchedule's, on xgboost.

It learns times relative to the best of each task, so one model serves all tasks. A kernel's
candidate is featurized by its knobs and its operands' shapes, an extracted task's candidate by
MetaSchedule's per-store features.
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

from mvlm.compile.tuning.measure_candidate import MeasureCandidate, config_of
from mvlm.compile.tuning.task import Task
from mvlm.compile.tuning.workload import EXTENTS, signature_of
from mvlm.models.ops.signatures import (
    AppendSignature,
    AttentionSignature,
    CachedAttentionSignature,
    LinearSignature,
    QuantizedLinearSignature,
    QuantizeRowsSignature,
    RowwiseSignature,
    Signature,
)

# All knobs of all kernels, and all operations with knobs; a test compares them with the kernels.
KNOB_NAMES = (
    "k_block",
    "k_unroll",
    "last_tile_m",
    "num_chunks",
    "prefetch",
    "prefetch_distance",
    "tile_m",
    "tile_n",
    "tile_n_of_one",
    "tile_panels",
    "tiles_per_task",
    "unpack_once",
)
OPERATIONS = (
    AppendSignature,
    AttentionSignature,
    CachedAttentionSignature,
    LinearSignature,
    QuantizedLinearSignature,
    QuantizeRowsSignature,
    RowwiseSignature,
)
_SHAPES = 12
_INTRINSICS = "tvm.s_tir.tensor_intrin"
_WARM_UP = 24
# Rounds of training between two printed lines.
_NEVER = 1 << 30


@derived_object
class _KnobFeatures(ms.feature_extractor.PyFeatureExtractor):
    """The features of a kernel's candidate: its knobs, operation and operands' extents."""

    def extract_from(self, context: Any, candidates: Sequence[Any]) -> list[Any]:
        signature = signature_of(context.mod)
        assert signature is not None
        workload = _workload_features(signature)
        return [
            tvm.runtime.tensor(
                np.array([[*_knob_features(config_of(each.sch.mod)), *workload]], np.float32)
            )
            for each in candidates
        ]


def _knob_features(config: dict[str, int]) -> list[float]:
    return [math.log2(1 + config[name]) if name in config else -1.0 for name in KNOB_NAMES]


def _workload_features(signature: Signature) -> list[float]:
    kind = [float(isinstance(signature, each)) for each in OPERATIONS]
    extents = [
        math.log2(1 + extent)
        for each in signature.parameters
        for extent in each.known_shape(EXTENTS)
    ]
    return [*kind, *(extents + [0.0] * _SHAPES)[:_SHAPES]]


class CostModel:
    """Predicts which candidates are fast, from the times measured so far.

    Args:
        seed: The model's seed.
        threads: Threads for training.
    """

    def __init__(self, seed: int, threads: int) -> None:
        config = ms.cost_model.xgb_model.XGBConfig(seed=seed, nthread=threads)
        self._knobs_model = ms.cost_model.XGBModel(
            extractor=_KnobFeatures(),
            config=config,
            num_warmup_samples=_WARM_UP,
            verbose_eval=_NEVER,
        )
        # MetaSchedule's evolutionary search calls this one itself.
        self.extracted = ms.cost_model.XGBModel(
            config=config, num_warmup_samples=_WARM_UP, verbose_eval=_NEVER
        )

    def predict(
        self, context: Any, candidates: Sequence[MeasureCandidate]
    ) -> npt.NDArray[Any] | None:
        """Return a score for each candidate, higher is faster; None before the warm-up is over."""
        if self._knobs_model.booster is None or self._knobs_model.data_size < _WARM_UP:
            return None
        found: npt.NDArray[Any] = self._knobs_model.predict(
            context, _measure_candidates(candidates)
        )
        return found

    def update(
        self, context: Any, candidates: Sequence[MeasureCandidate], seconds: Sequence[float | None]
    ) -> None:
        """Train on the candidates' times; None where a candidate failed."""
        results = runner_results(seconds)
        model = self._knobs_model if candidates[0].config is not None else self.extracted
        model.update(context, _measure_candidates(candidates), results)


def make_tune_context(task: Task, target: Any, **more: Any) -> Any:
    """Return a task's `TuneContext`."""
    with _without_intrinsics():
        return ms.TuneContext(
            task.module, target=target, task_name=task.name, num_threads=1, **more
        )


@contextmanager
def _without_intrinsics() -> Iterator[None]:
    """Keep a `TuneContext` from importing TVM's tensor intrinsics, which takes half a minute.

    No rule of ours uses any of them.
    """
    imported = _INTRINSICS in sys.modules
    sys.modules.setdefault(_INTRINSICS, ModuleType(_INTRINSICS))
    try:
        yield
    finally:
        if not imported:
            del sys.modules[_INTRINSICS]


def runner_results(seconds: Sequence[float | None]) -> list[Any]:
    """Return times as MetaSchedule's `RunnerResult`s."""
    return [
        ms.runner.RunnerResult(None, "failed")
        if each is None
        else ms.runner.RunnerResult([each], None)
        for each in seconds
    ]


def _measure_candidates(candidates: Sequence[MeasureCandidate]) -> list[Any]:
    return [ms.MeasureCandidate(each.schedule, []) for each in candidates]
