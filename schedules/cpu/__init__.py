"""Kernels for CPUs with vector instructions, in plain TensorIR for any LLVM target.

Imports no tvm: see `schedules.registry`.
"""

from mvlm.schedules.cpu.panels import PANELS
from mvlm.schedules.device_needs import ANY_CPU

LAYOUT = PANELS
NEEDS = ANY_CPU
