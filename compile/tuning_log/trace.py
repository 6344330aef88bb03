"""The traces of records, read and checked without tvm.

A trace is ``[instructions, decisions]``: ``[name, inputs, attributes, outputs]`` and
``[instruction's index, value]``.
"""

from __future__ import annotations

from typing import Any

# A knob's value is sampled by one instruction and kept as an annotation with this prefix.
KNOB_PREFIX = "mvlm."
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


def read_config(trace: list[Any]) -> dict[str, int]:
    """Return a kernel's knobs, by name, as a trace samples them.

    Raises:
        ValueError: The trace has other instructions than those of knobs.
    """
    instructions, decisions = trace
    chosen = dict(decisions)
    sampled: dict[str, int] = {}
    found: dict[str, int] = {}
    for index, (name, inputs, attributes, outputs) in enumerate(instructions):
        if name == "SampleCategorical":
            sampled[outputs[0]] = int(attributes[0][int(chosen[index])])
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
