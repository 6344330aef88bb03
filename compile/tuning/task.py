"""What there is to tune in a model: its kernels, each once, and how much of a turn each takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import tvm
from tvm import tirx

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.job import CompileJob
from mvlm.compile.packing import build_model
from mvlm.compile.pipeline import phases, tensor_functions
from mvlm.compile.traffic import kernel_uses
from mvlm.compile.tuning.workload import module_of, workload_of
from mvlm.schedules import find_kernels
from mvlm.schedules.choice import Knob
from mvlm.schedules.kernel_set import OP_ATTRIBUTE, KernelSet
from mvlm.schedules.signature import is_single_row, parameter_types

# Calls of the model's functions in a turn as people have them: an image, a prompt of one chunk,
# and an answer of 128 tokens. Trials go where the time of such a turn goes.
TURN = {"vision_tower": 1, "projector": 1, "embed": 1, "prefill": 1, "decode": 128}


@dataclass(frozen=True)
class Task:
    """One kernel, or one function that no kernel serves.

    Attributes:
        name: Of its function in the model, of the first one if several have the same.
        operation: What it computes; empty without a kernel.
        module: The workload: a kernel's signature, or the function itself.
        key: The workload's digest, by which a log is searched.
        calls: How often a turn calls it.
        knobs: What the kernel leaves open; empty without one.
        is_cold: Whether it reads its arguments from memory, as one token does.
    """

    name: str
    operation: str
    module: tvm.IRModule
    key: str
    calls: int
    knobs: tuple[Knob, ...]
    is_cold: bool

    @property
    def function(self) -> tirx.PrimFunc:
        """The workload's function."""
        return self.module["main"]

    @property
    def default(self) -> dict[str, int]:
        """What the kernel chooses by default."""
        return {knob.name: knob.default for knob in self.knobs}

    def has(self, point: Mapping[str, int]) -> bool:
        """Whether a point chooses, of everything that is open, something that the kernel can do."""
        return all(point.get(knob.name) in knob.values for knob in self.knobs)


def workload_key(module: tvm.IRModule) -> str:
    """Return a workload's digest: of its text, which does not depend on where it was made."""
    return hashlib.sha256(module.script(show_meta=False).encode()).hexdigest()


def extract_tasks(job: CompileJob, target: CompileTarget) -> list[Task]:
    """Return what can be tuned of a model, without what a turn never calls.

    Args:
        job: The model and how it is stored; its weights are not read.
        target: What to compile for.
    """
    module, _ = build_model(job).export(target.tvm)
    kernels = find_kernels(target.kernels)
    with target.tvm, tvm.transform.PassContext(opt_level=3):
        # As definitions: nothing is generated, and of functions only the calls are counted.
        for phase in phases(KernelSet({}, ()), {}):
            module = tvm.transform.Sequential(phase.passes)(module)
            if phase.name == "schedule":
                break
        calls = _calls(module)
        tasks = []
        for variable, function in tensor_functions(module):
            name = variable.name_hint
            if calls.get(name):
                task = _task(name, function, calls[name], kernels)
                tasks += [task] if task else []
    return _merged(tasks)


def _calls(module: tvm.IRModule) -> dict[str, int]:
    """Count how often a turn calls each function."""
    calls: dict[str, int] = {}
    for function, uses in kernel_uses(module).items():
        for name, use in uses.items():
            calls[name] = calls.get(name, 0) + use.calls * TURN.get(function, 0)
    return calls


def _task(name: str, function: tirx.PrimFunc, calls: int, kernels: KernelSet) -> Task | None:
    """Return the task of a function, or None where nothing about it is open."""
    knobs = kernels.space(function)
    if knobs is not None:
        workload = module_of(workload_of(function))
        operation = str(function.attrs[OP_ATTRIBUTE])
        is_cold = is_single_row(parameter_types(function)[0])
        task = Task(name, operation, workload, workload_key(workload), calls, knobs, is_cold)
        return task if knobs else None
    if not is_static(function):
        return None  # MetaSchedule measures functions as they are
    workload = module_of(function.with_attr("global_symbol", "main"))
    return Task(name, "", workload, workload_key(workload), calls, (), is_cold=False)


def is_static(function: tirx.PrimFunc) -> bool:
    """Whether all extents of a function's parameters are known."""
    shapes = [getattr(each, "shape", None) for each in parameter_types(function)]
    return all(
        shape is not None and all(isinstance(extent, tirx.IntImm | int) for extent in shape)
        for shape in shapes
    )


def _merged(tasks: Iterable[Task]) -> list[Task]:
    """Return each workload once, with the calls of all that have it."""
    found: dict[str, Task] = {}
    for task in tasks:
        known = found.get(task.key)
        calls = task.calls + (known.calls if known else 0)
        found[task.key] = replace(known or task, calls=calls)
    return list(found.values())
