"""TensorIR kernels and schedule rules for each kind of device.

A folder here is for one kind of device and has a :class:`KernelSet`. A kernel replaces an
operation's definition (see ``models.ops``) as a whole; a rule schedules the remaining
functions: fused elementwise ones and reductions.
"""

from __future__ import annotations

from mvlm.schedules.kernel_set import KernelSet

__all__ = ["KernelSet", "find_kernels"]


def find_kernels(name: str) -> KernelSet:
    """Return the kernels of the folder `name`."""
    if name == "cpu":
        from mvlm.schedules.cpu import KERNELS

        return KERNELS
    raise KeyError(name)
