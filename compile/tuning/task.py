"""The tuning tasks of a model: its distinct kernels and functions, each with its weight.

A kernel task is an operation that one of our kernels serves: its knobs are searched. An extracted
task is any other function, which MetaSchedule searches with its own rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import tvm
from tvm import tirx

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.job import CompileJob
from mvlm.compile.memory_traffic import count_kernel_traffic
from mvlm.compile.packing import build_model
from mvlm.compile.pipeline import phases, tensor_functions
from mvlm.compile.tuning.measure_candidate import module_of, workload_of
from mvlm.schedules import find_kernels
from mvlm.schedules.config_space import Knob
from mvlm.schedules.kernel_set import OP_ATTRIBUTE, KernelSet
from mvlm.schedules.signature import is_single_row, parameter_types

# Calls of the model's functions in a typical chat turn: one image, a prompt of one chunk, and an
# answer of 128 tokens. A task's weight is the number of its calls in such a turn.
TASK_WEIGHTS = {"vision_tower": 1, "projector": 1, "embed": 1, "prefill": 1, "decode": 128}


@dataclass(frozen=True)
class Task:
    """One kernel task or extracted task.

    Attributes:
        name: The function's name in the model; the first one's if several share the workload.
        operation: The kernel's operation; empty for an extracted task.
        module: The workload: a kernel's signature, or the extracted function.
        key: The workload's digest, the task's key in a log.
        weight: Calls in a chat turn, see `TASK_WEIGHTS`.
        knobs: The kernel's knobs; empty for an extracted task.
        flush_cache: Whether caches are flushed between calls: decoding reads weights from memory.
    """

    name: str
    operation: str
    module: tvm.IRModule
    key: str
    weight: int
    knobs: tuple[Knob, ...]
    flush_cache: bool

    @property
    def function(self) -> tirx.PrimFunc:
        """The workload's function."""
        return self.module["main"]

    @property
    def default_config(self) -> dict[str, int]:
        """The default values of the knobs."""
        return {knob.name: knob.default for knob in self.knobs}

    def supports(self, config: Mapping[str, int]) -> bool:
        """Whether a config gives every knob a value that the kernel supports."""
        return all(config.get(knob.name) in knob.values for knob in self.knobs)


def workload_key(module: tvm.IRModule) -> str:
    """Return the digest of a workload's TVMScript, which is the same on every machine."""
    return hashlib.sha256(module.script(show_meta=False).encode()).hexdigest()


def extract_tasks(job: CompileJob, target: CompileTarget) -> list[Task]:
    """Return a model's tuning tasks, without those of weight 0.

    Args:
        job: The model and how it is stored; its weights are not read.
        target: What to compile for.
    """
    module, _ = build_model(job).export(target.tvm)
    kernels = find_kernels(target.kernels)
    with target.tvm, tvm.transform.PassContext(opt_level=3):
        # Without kernels: the module is only lowered far enough to count the calls.
        for phase in phases(KernelSet({}, ()), {}):
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
    knobs = kernels.space(function)
    if knobs is not None:
        workload = module_of(workload_of(function))
        operation = str(function.attrs[OP_ATTRIBUTE])
        flush_cache = is_single_row(parameter_types(function)[0])
        task = Task(name, operation, workload, workload_key(workload), weight, knobs, flush_cache)
        return task if knobs else None
    if not is_static(function):
        return None  # Dynamic shapes are skipped: MetaSchedule cannot measure them.
    workload = module_of(function.with_attr("global_symbol", "main"))
    return Task(name, "", workload, workload_key(workload), weight, (), flush_cache=False)


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
