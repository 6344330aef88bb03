"""The pass pipeline, in named phases that can be dumped.

=============  ===================================================================
phase          what the module is after it
=============  ===================================================================
``graph``      Relax functions as the model defines them, heavy operations as definitions
``kernels``    definitions replaced by the target's kernels, where it has them
``fuse``       the remaining operators as TensorIR, neighbours fused
``schedule``   reshapes made views, every other TensorIR function scheduled
``lower``      memory planned, calls turned into the virtual machine's
=============  ===================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import tvm
from tvm import relax
from tvm.target import Target

from mvlm.compile.memory_traffic import count_kernel_traffic
from mvlm.runtime.artifact.kernels import KernelTraffic
from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.kernel_set import KernelSet
from mvlm.schedules.registry import find_kernels

# TVM ships no types, so that a pass is Any to mypy.
Pass: TypeAlias = Any

_ALLOCATE = tvm.ir.Op.get("relax.vm.alloc_storage")


@dataclass(frozen=True)
class Phase:
    """A named part of the pipeline."""

    name: str
    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class Lowered:
    """The result of the pipeline.

    Attributes:
        module: Ready for code generation.
        scheduled: After the phase ``schedule``: every function calls kernels.
    """

    module: tvm.IRModule
    scheduled: tvm.IRModule

    @cached_property
    def kernel_traffic(self) -> dict[str, dict[str, KernelTraffic]]:
        """For each function, the calls and memory traffic of its kernels, by name."""
        return count_kernel_traffic(self.scheduled)

    @property
    def working_bytes(self) -> int:
        """The working memory that the largest function plans.

        What is sized while it runs is left out: embeddings of a text.
        """
        functions = [f for _, f in self.module.functions_items() if isinstance(f, relax.Function)]
        return max(map(_planned_bytes, functions), default=0)


class TuningLookup(Protocol):
    """Looks up the tuned schedule of a function."""

    def kernel(self, definition: tvm.tirx.PrimFunc, kernels: KernelSet) -> Config:
        """Return the tuned knobs of a definition's kernel; the defaults where it was not tuned."""

    def schedule(self, function: tvm.tirx.PrimFunc, kernels: KernelSet) -> tvm.tirx.PrimFunc | None:
        """Return a function that no kernel serves with its tuned schedule, or None without one."""


def phases(
    kernels: KernelSet, upper_bounds: dict[str, int], tuning: TuningLookup | None = None
) -> tuple[Phase, ...]:
    """Return the phases for a set of kernels.

    Args:
        kernels: The target's kernels and schedule rules.
        upper_bounds: The largest value of each symbolic extent, for planning memory.
        tuning: Looks up tuned schedules; every function gets its default if None.
    """
    transform = relax.transform
    return (
        Phase("graph", ()),
        Phase("kernels", (_replace_definitions(kernels, tuning),)),
        Phase(
            "fuse",
            (
                transform.LegalizeOps(),
                # Reshapes become views before they could be fused into something that copies.
                transform.RewriteDataflowReshape(),
                transform.AnnotateTIROpPattern(),
                transform.FoldConstant(),
                transform.FuseOps(),
                transform.FuseTIR(),
                transform.DeadCodeElimination(),
            ),
        ),
        Phase(
            "schedule",
            (
                # What would reshape by copying is not called any more: its code need not be made.
                transform.RewriteDataflowReshape(),
                transform.DeadCodeElimination(),
                _schedule(kernels, tuning),
            ),
        ),
        Phase(
            "lower",
            (
                _bound_extents(upper_bounds),
                transform.ToNonDataflow(),
                transform.RemovePurityChecking(),
                transform.CallTIRRewrite(),
                transform.StaticPlanBlockMemory(),
                transform.LowerAllocTensor(),
                transform.KillAfterLastUse(),
                transform.LowerRuntimeBuiltin(),
                transform.ComputePrimValue(),
                transform.VMShapeLower(),
                _order_shape_functions,
                transform.AttachGlobalSymbol(),
            ),
        ),
    )


def lower(
    module: tvm.IRModule,
    target: Target,
    kernels: str,
    upper_bounds: dict[str, int],
    entered: Callable[[str], None] = lambda name: None,
    after: Callable[[str, tvm.IRModule], None] = lambda name, module: None,
    tuning: TuningLookup | None = None,
) -> Lowered:
    """Take a module through all phases.

    Args:
        module: What the model exports.
        target: What to compile for.
        kernels: The folder of `schedules` that serves the target.
        upper_bounds: The largest value of each symbolic extent.
        entered: Called with each phase's name as it begins.
        after: Called with each phase's name and the module that it has made.
        tuning: Looks up tuned schedules; every function gets its default if None.
    """
    scheduled = module
    with target, tvm.transform.PassContext(opt_level=3):
        for phase in phases(find_kernels(kernels), upper_bounds, tuning):
            entered(phase.name)
            module = tvm.transform.Sequential(phase.passes)(module)
            if phase.name == "schedule":
                scheduled = module
            after(phase.name, module)
    return Lowered(module, scheduled)


def dump_into(folder: Path | None) -> Callable[[str, tvm.IRModule], None]:
    """Return what writes the module after each phase, as ``0-graph.py`` and so on; None nowhere."""
    numbers = count()

    def write(name: str, module: tvm.IRModule) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            text = module.script(show_meta=False)
            (folder / f"{next(numbers)}-{name}.py").write_text(text, encoding="utf-8")

    return write


def tensor_functions(
    module: tvm.IRModule,
) -> Iterator[tuple[tvm.ir.GlobalVar, tvm.tirx.PrimFunc]]:
    """Yield the module's TensorIR functions."""
    for variable, function in module.functions_items():
        if isinstance(function, tvm.tirx.PrimFunc):
            yield variable, function


def _replace_definitions(kernels: KernelSet, tuning: TuningLookup | None) -> Pass:
    @tvm.transform.module_pass(opt_level=0, name="ReplaceDefinitions")
    def replace(module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        for variable, function in list(tensor_functions(module)):
            config = default_config if tuning is None else tuning.kernel(function, kernels)
            kernel = kernels.lower(function, config)
            if kernel is not None:
                module[variable] = kernel
        return module

    return replace


def _schedule(kernels: KernelSet, tuning: TuningLookup | None) -> Pass:
    @tvm.transform.module_pass(opt_level=0, name="ScheduleRest")
    def schedule(module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        for variable, function in list(tensor_functions(module)):
            if not function.attrs.get("tirx.is_scheduled", False):
                tuned = None if tuning is None else tuning.schedule(function, kernels)
                module[variable] = kernels.schedule(function) if tuned is None else tuned
        return module

    return schedule


def _bound_extents(upper_bounds: dict[str, int]) -> Pass:
    @tvm.transform.module_pass(opt_level=0, name="BoundExtents")
    def bound(module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        for variable, function in module.functions_items():
            if isinstance(function, relax.Function):
                module[variable] = function.with_attr("tir_var_upper_bound", upper_bounds)
        return module

    return bound


@tvm.transform.module_pass(opt_level=0, name="OrderShapeFunctions")
def _order_shape_functions(module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    """Sort the extents that a function of TVM computes: their order depends on addresses.

    Each is computed from extents of arguments alone.
    """
    for variable, function in list(tensor_functions(module)):
        if function.attrs.get("tirx.is_host_func", False) and isinstance(
            function.body, tvm.tirx.SeqStmt
        ):
            stores = sorted(function.body.seq, key=lambda store: int(store.indices[0]))
            module[variable] = function.with_body(tvm.tirx.SeqStmt(stores))
    return module


def _planned_bytes(function: relax.Function) -> int:
    total = 0

    def visit(expression: Any) -> None:
        nonlocal total
        if isinstance(expression, relax.Call) and expression.op == _ALLOCATE:
            size = expression.args[0]
            total += int(size.values[0]) if isinstance(size, relax.ShapeExpr) else 0

    relax.analysis.post_order_visit(function.body, visit)
    return total
