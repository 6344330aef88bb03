"""Measures a task's candidates on the pool's devices, and checks what they compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from mvlm.compile.tuning.devices import DevicePool, SelfTest
from mvlm.compile.tuning.task import Task
from mvlm.runtime.device.kernel_runner import MeasureRequest, read_arguments, save_arguments
from mvlm.schedules.oracles import KernelCase, make_kernel_case
from mvlm.schedules.signature import extents, parameter_types

# Samples of a candidate in the search.
SEARCH_REPEAT = 3
# The tolerance of an extracted task, relative to its unscheduled function: float32's rounding.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6


class Runner:
    """Measures candidates of prepared tasks.

    Args:
        pool: The devices.
        folder: For arguments and results.
        timeout: Seconds that one measurement may take.
    """

    def __init__(self, pool: DevicePool, folder: Path, timeout: float) -> None:
        self._pool, self._folder, self._timeout = pool, folder, timeout
        self._arguments: dict[str, str] = {}

    @property
    def devices(self) -> dict[str, Mapping[str, Any]]:
        """The descriptions of the connected devices, by address."""
        return self._pool.devices

    @property
    def retired(self) -> dict[str, str]:
        """Why devices were retired, by address."""
        return self._pool.retired

    def prepare(self, tasks: Iterable[Task]) -> None:
        """Write the arguments of tasks, before anything is measured on this machine."""
        for task in tasks:
            self._arguments[task.key] = str(_write_arguments(task, self._folder))

    def measure(
        self, task: Task, libraries: Sequence[Path], repeat: int
    ) -> Future[list[list[float]]]:
        """Queue a measurement of libraries, interleaved; the future has each one's samples.

        The future's exceptions are JobFailedError and NoDeviceError.
        """
        paths = tuple(map(str, libraries))
        request = MeasureRequest(self._arguments[task.key], paths, repeat, task.flush_cache)
        return self._pool.submit(request, self._timeout)

    def error(self, task: Task, library: Path, unscheduled: Path | None) -> float:
        """Return the largest error of a candidate's outputs, in units of the tolerance.

        Args:
            task: The task.
            library: The candidate's library.
            unscheduled: An extracted task's unscheduled function, which has no oracle.

        Raises:
            JobFailedError: One of them cannot be run.
            NoDeviceError: No device is left.
        """
        found = self._outputs(task, library)
        if unscheduled is None:
            return _kernel_case(task).largest_error(found)
        expected = self._outputs(task, unscheduled)
        return max(
            float(np.max(np.abs(found[index] - values) / (_RELATIVE * np.abs(values) + _ABSOLUTE)))
            for index, values in expected.items()
            if values.size
        )

    def _outputs(self, task: Task, library: Path) -> Mapping[int, Any]:
        path = self._folder / f"{library.stem}.npz"
        request = MeasureRequest(
            self._arguments[task.key], (str(library),), 0, task.flush_cache, outputs=str(path)
        )
        self._pool.submit(request, self._timeout).result()
        found = dict(enumerate(read_arguments(path)))
        path.unlink()
        return found


def make_self_test(task: Task, library: Path, folder: Path) -> SelfTest:
    """Return the self test of a device: a kernel, and its oracle."""
    arguments = _write_arguments(task, folder)
    outputs = str(folder / "self_test")
    request = MeasureRequest(str(arguments), (str(library),), 1, flush_cache=False, outputs=outputs)
    return SelfTest(request, _kernel_case(task).largest_error)


def _write_arguments(task: Task, folder: Path) -> Path:
    path = folder / f"arguments-{task.key[:16]}.npz"
    save_arguments(path, _kernel_case(task).arguments)
    return path


def _kernel_case(task: Task) -> KernelCase:
    return make_kernel_case(task.function) if task.operation else _plain_case(task)


def _plain_case(task: Task) -> KernelCase:
    """Arguments of an extracted task: normal floats, and zeros, which are valid indices."""
    random = np.random.default_rng(0)
    arguments = []
    for each in parameter_types(task.function):
        dtype, shape = np.dtype(str(each.dtype)), extents(each)
        is_float = dtype.kind == "f"
        values = random.standard_normal(shape).astype(dtype) if is_float else np.zeros(shape, dtype)
        arguments.append(np.asarray(values))
    return KernelCase(tuple(arguments), dict)
