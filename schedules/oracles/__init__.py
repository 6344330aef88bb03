"""NumPy oracles: random inputs for a kernel, its expected outputs, and the allowed errors.

The tests check every kernel against them, and the tuner every schedule that it keeps.
"""

from mvlm.schedules.oracles.kernel_case import Array, KernelCase, make_kernel_case

__all__ = ["Array", "KernelCase", "make_kernel_case"]
