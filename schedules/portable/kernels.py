"""The kernel set of plain loops.

Linear layers have kernels, which read rows of weights. All other operations are compiled from their
definitions.
"""

from __future__ import annotations

from tvm import tirx

from mvlm.models.ops.signatures import LinearSignature, QuantizedLinearSignature
from mvlm.schedules.default import default_schedule
from mvlm.schedules.kernel_set import KernelSet
from mvlm.schedules.portable import LAYOUT, NEEDS
from mvlm.schedules.portable.linear import linear, quantized_linear


def plain_loops(function: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Inline producers and parallelize, but leave vectors to LLVM."""
    return default_schedule(function, vector=1)


KERNELS = KernelSet(
    builders={LinearSignature: (linear,), QuantizedLinearSignature: (quantized_linear,)},
    rules=(plain_loops,),
    layout=LAYOUT,
    needs=NEEDS,
)
