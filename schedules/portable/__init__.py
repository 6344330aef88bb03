"""Kernels in plain loops, for any device that LLVM compiles for: no vectors, no instruction sets.

They are slow, and short: what a new kernel set begins with, and what others are compared with.
Imports no tvm: see `schedules.registry`.
"""

from mvlm.models.weight_layout import ROWS
from mvlm.schedules.device_needs import ANY_CPU

LAYOUT = ROWS
NEEDS = ANY_CPU
