"""The tuning tasks of a model: its distinct kernels and functions, each with its weight.

A kernel task is an operation that one of our kernels serves: its knobs are searched. An extracted
task is any other function, which MetaSchedule searches with its own rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm import tirx

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.job import CompileJob
from mvlm.compile.memory_traffic import count_kernel_traffic
from mvlm.compile.pipeline import phases, tensor_functions
from mvlm.compile.tuning.workload import (
    EXTENTS,
    function_workload,
    kernel_workload,
    workload_key,
)
from mvlm.models.ops.signatures import Signature, read_signature
from mvlm.schedules.config_space import Knob
from mvlm.schedules.kernel_set import KernelSet
from mvlm.schedules.registry import find_kernels

# Calls of the model's functions in a typical chat turn: one image, a prompt of one chunk, and an
# answer of 128 tokens, some of which are decoded together with those of others, or with drafts. A
# task's weight is the number of its calls in such a turn.
TASK_WEIGHTS = {
    "vision_tower": 1,
    "projector": 1,
    "embed": 1,
    "prefill": 1,
    "decode_few": 32,
    "decode": 96,
}


@dataclass(frozen=True)
class Task:
    """One kernel task or extracted task.

    Attributes:
        name: The function's name in the model; the first one's if several share the workload.
        signature: The kernel's signature; None for an extracted task.
        module: The workload (see `workload`).
        key: The workload's digest, the task's key in a log.
        weight: Calls in a chat turn, see `TASK_WEIGHTS`.
        knobs: The kernel's knobs; empty for an extracted task.
        flush_cache: Whether caches are flushed between calls: decoding reads weights from memory.
    """

    name: str
    signature: Signature | None
    module: tvm.IRModule
    key: str
    weight: int
    knobs: tuple[Knob, ...]
    flush_cache: bool

    @property
    def operation(self) -> str:
        """The kernel's operation; empty for an extracted task."""
        return "" if self.signature is None else self.signature.OP

    @property
    def function(self) -> tirx.PrimFunc:
        """An extracted task's function."""
        assert self.signature is None
        return self.module["main"]

    @property
    def arrays(self) -> list[tuple[tuple[int, ...], str]]:
        """Shape and dtype of every parameter, with representative values of symbolic extents."""
        if self.signature is None:
            types = parameter_types(self.function)
            return [(tuple(map(int, each.shape)), str(each.dtype)) for each in types]
        return [(each.known_shape(EXTENTS), each.dtype) for each in self.signature.parameters]

    @property
    def default_config(self) -> dict[str, int]:
        """The default values of the knobs."""
        return {knob.name: knob.default for knob in self.knobs}

    def supports(self, config: Mapping[str, int]) -> bool:
        """Whether a config gives every knob a value that the kernel supports."""
        return all(config.get(knob.name) in knob.values for knob in self.knobs)


def extract_tasks(job: CompileJob, target: CompileTarget) -> list[Task]:
    """Return a model's tuning tasks, without those of weight 0.

    Args:
        job: The model and how it is stored; its weights are not read.
        target: What to compile for.
    """
    module, _ = job.build_model().export(target.tvm)
    kernels = find_kernels(target.kernels)
    with target.tvm, tvm.transform.PassContext(opt_level=3):
        # Without kernels: the module is only lowered far enough to count the calls.
        for phase in phases(replace(kernels, builders={}, rules=()), {}):
            module = tvm.transform.Sequential(phase.passes)(module)
            if phase.name == "schedule":
                break
        weights = _weights(module)
        tasks = []
        for variable, function in tensor_functions(module):
            name = variable.name_hint
            if weights.get(name):
                task = _task(name, function, weights[name], kernels)
                tasks += [task] if task else []
    return _merged(tasks)


def _weights(module: tvm.IRModule) -> dict[str, int]:
    """Count each function's calls in a chat turn."""
    weights: dict[str, int] = {}
    for function, traffic in count_kernel_traffic(module).items():
        for name, kernel in traffic.items():
            weights[name] = weights.get(name, 0) + kernel.calls * TASK_WEIGHTS.get(function, 0)
    return weights


def _task(name: str, function: tirx.PrimFunc, weight: int, kernels: KernelSet) -> Task | None:
    """Return the task of a function, or None if it cannot be tuned."""
    signature = read_signature(function)
    knobs = None if signature is None else kernels.space(signature)
    if signature is not None and knobs is not None:
        return kernel_task(name, signature, weight, knobs) if knobs else None
    if not is_static(function):
        return None  # Dynamic shapes are skipped: MetaSchedule cannot measure them.
    workload = function_workload(function)
    return Task(name, None, workload, workload_key(workload), weight, (), flush_cache=False)


def kernel_task(name: str, signature: Signature, weight: int, knobs: tuple[Knob, ...]) -> Task:
    """Return the task of a kernel; see :class:`Task`."""
    workload = kernel_workload(signature)
    flush_cache = signature.is_single_row or signature.has_few_rows
    return Task(name, signature, workload, workload_key(workload), weight, knobs, flush_cache)


def is_static(function: tirx.PrimFunc) -> bool:
    """Whether all extents of a function's parameters are known."""
    shapes = [getattr(each, "shape", None) for each in parameter_types(function)]
    return all(
        shape is not None and all(isinstance(extent, tirx.IntImm | int) for extent in shape)
        for shape in shapes
    )


def _merged(tasks: Iterable[Task]) -> list[Task]:
    """Merge tasks of equal workloads; the weights add up."""
    found: dict[str, Task] = {}
    for task in tasks:
        known = found.get(task.key)
        weight = task.weight + (known.weight if known else 0)
        found[task.key] = replace(known or task, weight=weight)
    return list(found.values())


def parameter_types(function: tirx.PrimFunc) -> list[Any]:
    """Return the buffer type of every parameter of a function: inputs first, the output last."""
    return [parameter.ty for parameter in function.params]
