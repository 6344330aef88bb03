"""Runs a part of a model on its own: a graph, or one operation of it as defined or by a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax.frontend import nn

from mvlm.compile.pipeline import lower
from mvlm.schedules.cpu.kernels import KERNELS
from tests.device import Array, cached, device

# A shape with names for extents that are known at run time only, and a dtype.
Spec = tuple[tuple[int | str, ...], str]


def trace(function: Callable[..., nn.Tensor], specs: Sequence[Spec]) -> tvm.IRModule:
    """Export a function of tensors as a Relax module."""

    class Traced(nn.Module):
        def forward(self, *tensors: nn.Tensor) -> nn.Tensor:
            return function(*tensors)

    # The exporter reads the names of the arguments from the signature.
    names = [f"a{index}" for index in range(len(specs))]
    scope: dict[str, Any] = {"function": function}
    exec(f"def forward(self, {', '.join(names)}): return function({', '.join(names)})", scope)
    Traced.forward = scope["forward"]  # type: ignore[method-assign]
    spec = {
        name: nn.spec.Tensor(list(shape), dtype)
        for name, (shape, dtype) in zip(names, specs, strict=True)
    }
    modes = {"param_mode": "none", "effect_mode": "none"}
    module, _ = Traced().export_tvm(spec={"forward": {**spec, "$": modes}})
    return module


def run_graph(function: Callable[..., nn.Tensor], specs: Sequence[Spec], *inputs: Array) -> Array:
    """Take a function of tensors through all of the compiler's phases and call it."""
    target = device().target
    module = lower(trace(function, specs), target, "cpu", {"n": 64}).module
    with tvm.transform.PassContext(opt_level=3):
        executable = relax.build(module, target, relax_pipeline=None)
    return device().graph(executable)(*(tvm.runtime.tensor(value) for value in inputs))


def definition(function: Callable[..., nn.Tensor], specs: Sequence[Spec]) -> tirx.PrimFunc:
    """Return the one operation that a function of tensors is made of."""
    module = trace(function, specs)
    found = [f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc)]
    assert len(found) == 1
    return found[0]


def kernel(of: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return the CPU kernel that replaces a definition."""
    with device().target:
        replaced = KERNELS.lower(of)
    assert replaced is not None, "no kernel serves this operation"
    return replaced


def run(function: tirx.PrimFunc, inputs: Sequence[Array], out_shape: tuple[int, ...]) -> Array:
    """Compile a TensorIR function for the device and call it."""
    return compiled(function)(inputs, out_shape)


def compiled(
    function: tirx.PrimFunc,
) -> Callable[[Sequence[Array], tuple[int, ...]], Array]:
    """Compile a TensorIR function for the device; its last argument is the float32 output."""
    executable = build(function)

    def call(inputs: Sequence[Array], out_shape: tuple[int, ...]) -> Array:
        # Filled, so that an element that is never written shows.
        out = tvm.runtime.tensor(np.full(out_shape, np.nan, np.float32))
        executable(*(tvm.runtime.tensor(np.ascontiguousarray(value)) for value in inputs), out)
        return out.numpy()

    return call


def called(kernel: tirx.PrimFunc, arguments: Mapping[str, Array]) -> dict[str, Array]:
    """Compile a kernel, call it, and return its arguments after the call, by parameter."""
    tensors = {name: tvm.runtime.tensor(each) for name, each in arguments.items()}
    build(kernel)(*tensors.values())
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def build(function: tirx.PrimFunc) -> Callable[..., None]:
    """Compile a TensorIR function for the device, to be called with TVM's tensors.

    Many tests run one kernel on different values: equal functions are compiled once.
    """
    built: Callable[..., None] = _build(tvm_ffi.StructuralKey(function))
    return built


@cached
def _build(structure: tvm_ffi.StructuralKey) -> Callable[..., None]:
    module = tvm.IRModule({"main": structure.key.with_attr("global_symbol", "main")})
    return device().function(tvm.compile(module, target=device().target))
