"""Points of a design space as MetaSchedule sees them: schedules that annotate a signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import s_tir, tirx

from mvlm.compile.tuning.log.lines import KNOB_PREFIX, check_trace
from mvlm.schedules.choice import Knob

_BLOCK = "root"


@dataclass(frozen=True)
class Candidate:
    """One way to schedule a task.

    Attributes:
        schedule: With the trace that makes it.
        point: What it chooses for a kernel; None for a function without one.
    """

    schedule: s_tir.Schedule
    point: Mapping[str, int] | None

    @property
    def function(self) -> tirx.PrimFunc:
        """The task's function, scheduled."""
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


def replayed(module: tvm.IRModule, trace: list[Any]) -> Candidate:
    """Return the candidate that a log's trace makes of a function without a kernel.

    Args:
        module: The workload.
        trace: As JSON values.

    Raises:
        ValueError: It does what no trace of ours does.
        Exception: Whatever TVM makes of a trace that does not fit.
    """
    check_trace(trace)
    schedule = s_tir.Schedule(module)
    s_tir.Trace.apply_json_to_schedule(trace, schedule)
    return Candidate(schedule, None)


def candidate_of(
    module: tvm.IRModule, knobs: Sequence[Knob], point: Mapping[str, int]
) -> Candidate:
    """Return the candidate of a point."""
    schedule = s_tir.Schedule(module)
    block = schedule.get_sblock(_BLOCK)
    for knob in knobs:
        values = list(knob.values)
        even = [1 / len(values)] * len(values)
        chosen = schedule.sample_categorical(values, even, decision=values.index(point[knob.name]))
        schedule.annotate(block, KNOB_PREFIX + knob.name, chosen)
    return Candidate(schedule, dict(point))


def point_of(module: tvm.IRModule) -> dict[str, int]:
    """Return what the annotations of a signature choose."""
    annotations = module["main"].body.block.annotations
    return {
        str(name).removeprefix(KNOB_PREFIX): int(value)
        for name, value in annotations.items()
        if str(name).startswith(KNOB_PREFIX)
    }
