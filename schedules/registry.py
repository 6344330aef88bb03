"""The kernel sets, found by the names of their folders. Imports no tvm until kernels are asked for.

A set is a folder ``schedules/<name>/`` of two parts. Its ``__init__.py`` imports no tvm and has the
layout of the weights, ``LAYOUT``, and what the set needs of a device, ``NEEDS``: jobs are planned,
and their keys made, by these alone. Its ``kernels.py`` has the `KernelSet`, ``KERNELS``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mvlm.models.weight_layout import WeightLayout
from mvlm.runtime.errors import TargetError
from mvlm.schedules.device_needs import DeviceNeeds

if TYPE_CHECKING:
    from mvlm.schedules.kernel_set import KernelSet

_FOLDER = Path(__file__).parent
_KERNELS = "kernels"


def kernel_set_names() -> tuple[str, ...]:
    """Return the names of all kernel sets."""
    return tuple(sorted(path.parent.name for path in _FOLDER.glob(f"*/{_KERNELS}.py")))


def find_layout(name: str) -> WeightLayout:
    """Return the layout of weights that a kernel set declares.

    Raises:
        TargetError: There is no such set.
    """
    layout: WeightLayout = import_module(_module(name)).LAYOUT
    return layout


def find_needs(name: str) -> DeviceNeeds:
    """Return what a kernel set needs of a device.

    Raises:
        TargetError: There is no such set.
    """
    needs: DeviceNeeds = import_module(_module(name)).NEEDS
    return needs


def find_kernels(name: str) -> KernelSet:
    """Return a kernel set.

    Raises:
        TargetError: There is no such set.
    """
    kernels: KernelSet = import_module(f"{_module(name)}.{_KERNELS}").KERNELS
    return kernels


def _module(name: str) -> str:
    names = kernel_set_names()
    if name not in names:
        raise TargetError(
            f"this mvlm has no kernels for {name} yet",
            expected=" or ".join(names),
            found=name,
            fix="`mvlm targets` lists the targets whose kernels are there.",
        )
    return f"{__package__}.{name}"
