"""Memory: what a job needs, asked for before anything is written, and what its result will.

Without it the system would kill the compiler halfway, or put the machine to swapping.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax

from mvlm.models.checkpoint import Checkpoint
from mvlm.models.layers import PackedLayer, packed_layers
from mvlm.models.mobilevlm import MobileVLM
from mvlm.runtime.errors import TargetError
from mvlm.runtime.machine import available_memory_bytes

# TVM, LLVM and torch, while they generate code and read a checkpoint: 590 MiB for the 1.7B.
_PROGRAM_BYTES = 640 << 20
# Of a layer at once: what is read and what is joined of it, what is packed and what is written.
_COPIES = 2

_ALLOCATE = tvm.ir.Op.get("relax.vm.alloc_storage")


def needed_bytes(model: MobileVLM, checkpoint: Checkpoint) -> int:
    """Estimate the peak memory of compiling a model; weights are packed a layer at a time."""
    return _PROGRAM_BYTES + _COPIES * max(
        sum(map(checkpoint.nbytes, layer.sources())) + _stored_bytes(layer)
        for _, layer in packed_layers(model)
    )


def _stored_bytes(layer: PackedLayer) -> int:
    return sum(
        math.prod(map(int, parameter.shape)) * np.dtype(str(parameter.dtype)).itemsize
        for _, parameter in layer.named_parameters()
    )


def check_memory(model: MobileVLM, checkpoint: Checkpoint) -> None:
    """Ask that a model can be compiled with the memory that is free.

    Raises:
        TargetError: It cannot; says how much is needed and how much is free.
    """
    needed, free = needed_bytes(model, checkpoint), available_memory_bytes()
    if free is not None and free < needed:
        raise TargetError(
            "there is too little memory to compile this model",
            expected=f"about {needed / 1e9:.1f} GB free",
            found=f"{free / 1e9:.1f} GB",
            fix="Close other programs, or compile it on a larger machine: the artifact runs here "
            "all the same.",
        )


def working_bytes(module: tvm.IRModule) -> int:
    """Return the working memory that the largest function of a lowered module plans.

    What is sized while it runs is left out: embeddings of a text.
    """
    functions = [f for _, f in module.functions_items() if isinstance(f, relax.Function)]
    return max(map(_planned_bytes, functions), default=0)


def _planned_bytes(function: relax.Function) -> int:
    total = 0

    def visit(expression: Any) -> None:
        nonlocal total
        if isinstance(expression, relax.Call) and expression.op == _ALLOCATE:
            size = expression.args[0]
            total += int(size.values[0]) if isinstance(size, relax.ShapeExpr) else 0

    relax.analysis.post_order_visit(function.body, visit)
    return total
