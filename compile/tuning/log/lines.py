"""The lines of MetaSchedule's databases, read and checked without tvm.

A workload is ``[hash, base64 of the module]``, a record ``[workload's line, [trace, seconds,
target, arguments]]``, and a trace ``[instructions, decisions]``: ``[name, inputs, attributes,
outputs]`` and ``[instruction's index, value]``.
"""

from __future__ import annotations

import json
import math
from typing import Any

# A knob's value is sampled by one instruction and kept as an annotation with this prefix.
KNOB_PREFIX = "mvlm."
_MAX_INSTRUCTIONS = 10_000
# The instructions of MetaSchedule's rules for CPUs: they split, move and annotate loops. None of
# them can change what a function computes, or what it is linked with.
_ALLOWED_INSTRUCTIONS = frozenset(
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
_ALLOWED_ANNOTATIONS = frozenset({"pragma_auto_unroll_max_step", "pragma_unroll_explicit"})
_METASCHEDULE_PREFIX = "meta_schedule."


def check_workload(line: str) -> None:
    """Check a line of the workloads; raise ValueError if it is none."""
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
    if len(trace[0]) > _MAX_INSTRUCTIONS or not all(_is_list(step, 4) for step in trace[0]):
        raise ValueError("no trace")
    if not (isinstance(seconds, list) and seconds and all(map(is_time, seconds))):
        raise ValueError("no times")
    return index, values[1]


def read_config(trace: list[Any]) -> dict[str, int]:
    """Return a kernel's knobs, by name, as a trace samples them.

    Raises:
        ValueError: The trace has other instructions than those of knobs.
    """
    instructions, decisions = trace
    chosen = dict(decisions)
    sampled: dict[str, int] = {}
    found: dict[str, int] = {}
    for place, (name, inputs, attributes, outputs) in enumerate(instructions):
        if name == "SampleCategorical":
            sampled[outputs[0]] = int(attributes[0][int(chosen[place])])
        elif name == "Annotate":
            found[str(attributes[0]).removeprefix(KNOB_PREFIX)] = sampled[inputs[1]]
        elif name != "GetSBlock":
            raise ValueError(f"{name} samples no knob")
    return found


def try_read_config(trace: list[Any]) -> dict[str, int] | None:
    """Return a kernel's knobs, or None if a trace is damaged or has other instructions."""
    try:
        return read_config(trace)
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def check_trace(trace: list[Any]) -> None:
    """Raise ValueError unless a trace has only instructions that schedule loops.

    Logs are untrusted, and a trace can do more than schedule loops: annotations reach the compiler,
    and ``pragma_import_llvm`` links code.
    """
    for name, _, attributes, _ in trace[0]:
        if not (isinstance(name, str) and name in _ALLOWED_INSTRUCTIONS):
            raise ValueError(f"{str(name)[:40]!r} is not an instruction that schedules loops")
        if name == "Annotate":
            annotation = attributes[0] if isinstance(attributes, list) and attributes else None
            is_known = isinstance(annotation, str) and (
                annotation in _ALLOWED_ANNOTATIONS or annotation.startswith(_METASCHEDULE_PREFIX)
            )
            if not is_known:
                raise ValueError(
                    f"the annotation {str(annotation)[:40]!r} is not one of MetaSchedule's"
                )


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
