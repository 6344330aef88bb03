"""The peak memory of compiling: estimated, and compared with what is free before the work begins.

Without it the system would kill the compiler halfway, or put the machine to swapping. Imports no
tvm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from mvlm.models.checkpoint import Checkpoint
from mvlm.runtime.errors import TargetError
from mvlm.runtime.machine import available_memory_bytes

if TYPE_CHECKING:
    from mvlm.models.layers import PackedLayer

# TVM, LLVM and torch, while they generate code and read a checkpoint: 590 MiB for the 1.7B.
PROGRAM_BYTES = 640 << 20
# Of a layer at once: what is read and what is joined of it, what is packed and what is written.
_COPIES = 2


def peak_bytes(layers: Iterable[float]) -> int:
    """Estimate the peak of packing weights a layer at a time.

    Args:
        layers: For each layer, the bytes of its tensors in the checkpoint and in the artifact.
    """
    return PROGRAM_BYTES + _COPIES * math.ceil(max(layers, default=0))


def layer_bytes(layer: PackedLayer, checkpoint: Checkpoint) -> int:
    """Return the bytes of a layer's tensors in the checkpoint and in the artifact."""
    stored = sum(
        math.prod(map(int, parameter.shape)) * np.dtype(str(parameter.dtype)).itemsize
        for _, parameter in layer.named_parameters()
    )
    return sum(map(checkpoint.nbytes, layer.sources())) + stored


def check_memory(needed: int, verb: str = "compile") -> None:
    """Check that so many bytes are free.

    Args:
        needed: Bytes.
        verb: What is to be done with the model, for the message.

    Raises:
        TargetError: They are not; says how much is needed and how much is free.
    """
    free = available_memory_bytes()
    if free is not None and free < needed:
        raise TargetError(
            f"there is too little memory to {verb} this model",
            expected=f"about {needed / 1e9:.1f} GB free",
            found=f"{free / 1e9:.1f} GB",
            fix=f"Close other programs, or {verb} it on a larger machine: the artifact runs here "
            "all the same.",
        )
