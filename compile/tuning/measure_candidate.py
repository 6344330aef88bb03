"""Candidates to measure, as MetaSchedule sees them: schedules of a task's workload.

A kernel's candidate samples the knobs and annotates them on the workload's empty function, so that
MetaSchedule's traces, database and cost model serve our kernels too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import s_tir, tirx

from mvlm.compile.tuning.workload import ROOT_BLOCK
from mvlm.compile.tuning_log.trace import KNOB_PREFIX, check_trace
from mvlm.schedules.config_space import Knob


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
    block = schedule.get_sblock(ROOT_BLOCK)
    for knob in knobs:
        values = list(knob.values)
        even = [1 / len(values)] * len(values)
        chosen = schedule.sample_categorical(values, even, decision=values.index(config[knob.name]))
        schedule.annotate(block, KNOB_PREFIX + knob.name, chosen)
    return MeasureCandidate(schedule, dict(config))


def config_of(module: tvm.IRModule) -> dict[str, int]:
    """Return the knobs' values that a kernel task's workload is annotated with."""
    annotations = module["main"].body.block.annotations
    return {
        str(name).removeprefix(KNOB_PREFIX): int(value)
        for name, value in annotations.items()
        if str(name).startswith(KNOB_PREFIX)
    }
