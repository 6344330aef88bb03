"""The lines of MetaSchedule's databases, read and checked without tvm.

A workload is ``[hash, base64 of the module]``, a record ``[workload's line, [trace, seconds,
target, arguments]]``, and a trace ``[instructions, decisions]``: ``[name, inputs, attributes,
outputs]`` and ``[instruction's index, value]``.
"""

from __future__ import annotations

import json
import math
from typing import Any

# What a kernel leaves open is chosen by a sampling instruction and kept as an annotation.
PREFIX = "mvlm."
_MOST_INSTRUCTIONS = 10_000
# What MetaSchedule's rules for CPUs make of a function: loops are cut, moved and marked. What could
# change the meaning of a function, or what it is compiled with, is not among it.
_STEPS = frozenset(
    {
        "GetSBlock",
        "GetLoops",
        "GetChildBlocks",
        "GetProducers",
        "GetConsumers",
        "GetOutputBlocks",
        "SamplePerfectTile",
        "SampleCategorical",
        "SampleComputeLocation",
        "Fuse",
        "Split",
        "Reorder",
        "AddUnitLoop",
        "Parallel",
        "Vectorize",
        "Unroll",
        "CacheRead",
        "CacheWrite",
        "ComputeAt",
        "ReverseComputeAt",
        "ComputeInline",
        "ReverseComputeInline",
        "RFactor",
        "DecomposeReduction",
        "Annotate",
        "Unannotate",
        "EnterPostproc",
    }
)
_MARKS = frozenset({"pragma_auto_unroll_max_step", "pragma_unroll_explicit"})
_MARKS_OF_METASCHEDULE = "meta_schedule."


def check_workload(line: str) -> None:
    """Raise ValueError unless a line is a workload."""
    values = _parse(line)
    if not (_is_list(values, 2) and all(isinstance(value, str) for value in values)):
        raise ValueError("no workload")


def check_record(line: str, workloads: int) -> tuple[int, list[Any]]:
    """Return a record's workload, and the rest of it: trace, times, target and arguments.

    Args:
        line: The line.
        workloads: How many workloads there are.

    Raises:
        ValueError: It is no record of one of them.
    """
    values = _parse(line)
    if not (_is_list(values, 2) and _is_list(values[1], 4)):
        raise ValueError("no record")
    index, (trace, seconds, _, _) = values
    if not (_is_count(index) and index < workloads):
        raise ValueError(f"workload {index!r} of {workloads}")
    if not (_is_list(trace, 2) and all(isinstance(part, list) for part in trace)):
        raise ValueError("no trace")
    if len(trace[0]) > _MOST_INSTRUCTIONS or not all(_is_list(step, 4) for step in trace[0]):
        raise ValueError("no trace")
    if not (isinstance(seconds, list) and seconds and all(map(is_time, seconds))):
        raise ValueError("no times")
    return index, values[1]


def choices_of(trace: list[Any]) -> dict[str, int]:
    """Return what a trace chooses for a kernel, by name.

    Raises:
        ValueError: The trace does something else than choosing.
    """
    instructions, decisions = trace
    chosen = dict(decisions)
    sampled: dict[str, int] = {}
    found: dict[str, int] = {}
    for place, (name, inputs, attributes, outputs) in enumerate(instructions):
        if name == "SampleCategorical":
            sampled[outputs[0]] = int(attributes[0][int(chosen[place])])
        elif name == "Annotate":
            found[str(attributes[0]).removeprefix(PREFIX)] = sampled[inputs[1]]
        elif name != "GetSBlock":
            raise ValueError(f"{name} chooses nothing")
    return found


def try_choices(trace: list[Any]) -> dict[str, int] | None:
    """Return what a trace chooses, or None if it does something else, or is damaged."""
    try:
        return choices_of(trace)
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def check_steps(trace: list[Any]) -> None:
    """Raise ValueError unless a trace only schedules loops, as MetaSchedule's rules for CPUs do.

    A log may come from anybody, and a trace can do more than that: annotations reach the compiler,
    which links code that one of them names.
    """
    for name, _, attributes, _ in trace[0]:
        if not (isinstance(name, str) and name in _STEPS):
            raise ValueError(f"{str(name)[:40]!r} does more than to schedule loops")
        if name == "Annotate":
            mark = attributes[0] if isinstance(attributes, list) and attributes else None
            is_known = isinstance(mark, str) and (
                mark in _MARKS or mark.startswith(_MARKS_OF_METASCHEDULE)
            )
            if not is_known:
                raise ValueError(f"the annotation {str(mark)[:40]!r} is none of MetaSchedule's")


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _is_list(value: object, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_time(value: object) -> bool:
    """Whether a value of a JSON document is a number of seconds, above zero."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[arg-type,operator]
