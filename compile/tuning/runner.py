"""Measures a task's candidates on the pool's devices, and checks what they compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.compile.tuning.devices import DevicePool, SelfTest
from mvlm.compile.tuning.task import Task
from mvlm.compile.tuning.workload import EXTENTS
from mvlm.runtime.measurement.kernel_runner import MeasureRequest, read_arguments, save_arguments
from mvlm.schedules.oracles import make_kernel_case

Array = npt.NDArray[Any]

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
            return _oracle_error(task, found)
        expected = self._outputs(task, unscheduled)
        if len(found) != len(expected):
            return float("inf")
        return max(
            float(np.max(np.abs(output - values) / (_RELATIVE * np.abs(values) + _ABSOLUTE)))
            for output, values in zip(found, expected, strict=True)
            if values.size
        )

    def _outputs(self, task: Task, library: Path) -> Sequence[Array]:
        """Return all arguments as they are after a call."""
        path = self._folder / f"{library.stem}.npz"
        request = MeasureRequest(
            self._arguments[task.key], (str(library),), 0, task.flush_cache, outputs=str(path)
        )
        self._pool.submit(request, self._timeout).result()
        found = read_arguments(path)
        path.unlink()
        return found


def make_self_test(task: Task, library: Path, folder: Path) -> SelfTest:
    """Return the self test of a device: a kernel, and its oracle."""
    arguments = _write_arguments(task, folder)
    outputs = str(folder / "self_test")
    request = MeasureRequest(str(arguments), (str(library),), 1, flush_cache=False, outputs=outputs)
    return SelfTest(request, partial(_oracle_error, task))


def _write_arguments(task: Task, folder: Path) -> Path:
    path = folder / f"arguments-{task.key[:16]}.npz"
    save_arguments(path, _arguments(task))
    return path


def _oracle_error(task: Task, outputs: Sequence[Array]) -> float:
    """Return the largest error of a kernel's arguments after a call, in units of the tolerance."""
    assert task.signature is not None
    case = make_kernel_case(task.signature, EXTENTS)
    return case.largest_error(dict(zip(case.arguments, outputs, strict=False)))


def _arguments(task: Task) -> list[Array]:
    """Return a task's arguments; an extracted task's are normal floats, and zeros as indices."""
    if task.signature is not None:
        return list(make_kernel_case(task.signature, EXTENTS).arguments.values())
    random = np.random.default_rng(0)
    return [
        random.standard_normal(shape).astype(dtype)
        if np.dtype(dtype).kind == "f"
        else np.zeros(shape, dtype)
        for shape, dtype in task.arrays
    ]
