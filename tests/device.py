"""Where the tests' kernels run: on this machine, or on another that is emulated."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy.typing as npt
import tvm
from tvm import relax

from mvlm.compile.compile_target import tvm_options
from mvlm.runtime.targets import known_targets
from mvlm.schedules.cpu.vectors import cpu_features

Array = npt.NDArray[Any]


def described(name: str) -> tvm.target.Target:
    """Return the TVM target of one of our descriptions, on its usual system."""
    return tvm.target.Target(tvm_options(known_targets()[name]))


class Device(Protocol):
    """What compiles for a machine, and runs there."""

    @property
    def target(self) -> tvm.target.Target:
        """What to generate code for."""

    def function(self, executable: Any) -> Callable[..., None]:
        """Return the compiled function `main`, to be called with TVM's tensors of this process."""

    def graph(self, executable: Any) -> Callable[..., Array]:
        """Return the function `forward` of a Relax executable."""


class Host:
    """The machine that the tests run on."""

    @functools.cached_property
    def target(self) -> tvm.target.Target:
        return described("host")

    def function(self, executable: Any) -> Callable[..., None]:
        found: Callable[..., None] = executable["main"]
        return found

    def graph(self, executable: Any) -> Callable[..., Array]:
        machine = relax.VirtualMachine(executable, tvm.cpu())

        def call(*tensors: Any) -> Array:
            found: Array = machine["forward"](*tensors).numpy()
            return found

        return call


_chosen: list[Device] = [Host()]


def device() -> Device:
    """Return the device that is tested now."""
    return _chosen[-1]


@contextmanager
def tested(chosen: Device) -> Iterator[Device]:
    """Test a device instead of this machine."""
    _chosen.append(chosen)
    try:
        yield chosen
    finally:
        _chosen.pop()


def has(target: tvm.target.Target, features: tuple[str, ...]) -> bool:
    """Whether a device has the features that an instruction set needs."""
    return cpu_features(target).issuperset(features)


def cached(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what a function returns, apart for each device: code for one is none for another."""

    @functools.cache
    def kept(_: Device, *arguments: Any) -> Any:
        return function(*arguments)

    return lambda *arguments: kept(device(), *arguments)
