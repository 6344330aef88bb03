"""Kernel tasks as MetaSchedule sees them: the workload, and the candidates to measure.

A kernel is built from an operation's attributes and its parameters' shapes and dtypes alone. So the
workload is a function with those and an empty body: rewording a definition does not invalidate a
log, and a log stays small. Dynamic extents get a representative value; the kernel that is measured
serves all values.

A kernel's candidate samples the knobs and annotates them on the signature, so that MetaSchedule's
traces, database and cost model serve our kernels too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import s_tir, tirx

from mvlm.compile.tuning_log.trace import KNOB_PREFIX, check_trace
from mvlm.schedules.config_space import Knob

_BLOCK = "root"
# Rows of a prompt's chunk, and pages of a KV cache of 256 positions.
ROWS, PAGES = 256, 4
_SIGNATURE = "mvlm.signature"
_EXTENTS = {"num_blocks": PAGES, "pages": PAGES}


@dataclass(frozen=True)
class MeasureCandidate:
    """One schedule of a task.

    Attributes:
        schedule: The schedule with its trace.
        config: The values of a kernel's knobs; None for an extracted task.
    """

    schedule: s_tir.Schedule
    config: Mapping[str, int] | None

    @property
    def function(self) -> tirx.PrimFunc:
        """The scheduled function."""
        return self.schedule.mod["main"]

    @property
    def trace_json(self) -> Any:
        """The trace as plain JSON values."""
        return _plain(self.schedule.trace.as_json())


def _plain(value: Any) -> Any:
    """Return TVM's containers and numbers as Python's."""
    if isinstance(value, tirx.IntImm | tirx.FloatImm):
        return value.value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    return value


def replay_trace(module: tvm.IRModule, trace: list[Any]) -> MeasureCandidate:
    """Apply a log's trace to an extracted task's workload.

    Args:
        module: The workload.
        trace: The trace as JSON values.

    Raises:
        ValueError: The trace has an instruction that is not allowed.
        Exception: TVM's error for a trace that does not fit the workload.
    """
    check_trace(trace)
    schedule = s_tir.Schedule(module)
    s_tir.Trace.apply_json_to_schedule(trace, schedule)
    return MeasureCandidate(schedule, None)


def make_candidate(
    module: tvm.IRModule, knobs: Sequence[Knob], config: Mapping[str, int]
) -> MeasureCandidate:
    """Return a kernel's candidate with the given values of its knobs."""
    schedule = s_tir.Schedule(module)
    block = schedule.get_sblock(_BLOCK)
    for knob in knobs:
        values = list(knob.values)
        even = [1 / len(values)] * len(values)
        chosen = schedule.sample_categorical(values, even, decision=values.index(config[knob.name]))
        schedule.annotate(block, KNOB_PREFIX + knob.name, chosen)
    return MeasureCandidate(schedule, dict(config))


def config_of(module: tvm.IRModule) -> dict[str, int]:
    """Return the knobs' values that a signature is annotated with."""
    annotations = module["main"].body.block.annotations
    return {
        str(name).removeprefix(KNOB_PREFIX): int(value)
        for name, value in annotations.items()
        if str(name).startswith(KNOB_PREFIX)
    }


def workload_of(
    definition: tirx.PrimFunc, extents: Mapping[str, int] | None = None
) -> tirx.PrimFunc:
    """Return the signature of a definition, all of its extents known.

    Args:
        definition: The operation.
        extents: Values for its symbolic extents by name; by default those of the module, and
            `ROWS` for all others.
    """
    values, bound = {**_EXTENTS, **(extents or {})}, {}
    for parameter in definition.params:
        shape = [_known(extent, values) for extent in parameter.ty.shape]
        if any(isinstance(extent, tvm.ir.Var) for extent in parameter.ty.shape):
            bound[parameter] = tirx.decl_buffer(shape, str(parameter.ty.dtype), parameter.name)
    specialized = definition.specialize(bound) if bound else definition
    empty = s_tir.SBlock([], [], [], "root", tirx.Evaluate(0))
    body = s_tir.SBlockRealize([], True, empty)
    attributes = {key: value for key, value in definition.attrs.items() if key.startswith("mvlm.")}
    signature = tirx.PrimFunc(specialized.params, body, specialized.ret_type)
    return signature.with_attrs({**attributes, _SIGNATURE: True, "global_symbol": "main"})


def module_of(workload: tirx.PrimFunc) -> tvm.IRModule:
    """Return a workload as a database's module."""
    return tvm.IRModule({"main": workload})


def is_signature(module: tvm.IRModule) -> bool:
    """Whether a module is the workload of one of our kernels, not an extracted task's."""
    return _SIGNATURE in (module["main"].attrs or {})


def _known(extent: object, values: Mapping[str, int]) -> object:
    if isinstance(extent, tvm.ir.Var):
        return tirx.IntImm("int64", values.get(extent.name, ROWS))
    return extent
