"""How much memory a job needs, asked for before anything is written.

Without it the system would kill the compiler halfway, or put the machine to swapping.
"""

from __future__ import annotations

import math

from mvlm.models.checkpoint import Checkpoint
from mvlm.models.layers import packed_layers
from mvlm.models.mobilevlm import MobileVLM
from mvlm.runtime.errors import TargetError
from mvlm.runtime.machine import available_memory_bytes

# TVM, LLVM and torch, while they generate code and read a checkpoint.
_PROGRAM_BYTES = 700 << 20
# Of a layer's weights at once, as float32: what is read, what is joined, what is packed of it.
_COPIES = 2.5


def needed_bytes(model: MobileVLM, checkpoint: Checkpoint) -> int:
    """Estimate the peak memory of compiling a model; weights are packed a layer at a time."""
    largest = max(
        sum(math.prod(checkpoint.shape(name)) for name in layer.sources())
        for _, layer in packed_layers(model)
    )
    return _PROGRAM_BYTES + int(_COPIES * 4 * largest)


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
