"""Measures a task's candidates on the pool's devices, with arguments that an oracle knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mvlm.compile.tuning.devices import DevicePool, SelfTest
from mvlm.compile.tuning.task import Task
from mvlm.runtime.device.kernel_runner import MeasureRequest, read_arguments, save_arguments
from mvlm.schedules.oracles import Trial, make_trial
from mvlm.schedules.signature import extents, parameter_types

# Samples of a candidate while searching.
SAMPLES = 3
# Of a function without an oracle: float32's rounding of what its plain loops compute.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6


class Runner:
    """Runs the candidates of tasks that it was prepared for.

    Args:
        pool: The devices.
        folder: For arguments and results.
        timeout: Seconds that one measurement may take.
    """

    def __init__(self, pool: DevicePool, folder: Path, timeout: float) -> None:
        self._pool, self._folder, self._timeout = pool, folder, timeout
        self._arguments: dict[str, Path] = {}

    def prepare(self, tasks: Iterable[Task]) -> None:
        """Make the arguments of tasks, now and not while something else is being measured here."""
        for task in tasks:
            self._arguments[task.key] = _write_arguments(task, self._folder)

    def measure(self, task: Task, libraries: Sequence[Path]) -> Future[list[list[float]]]:
        """Have the times of libraries measured, in turns, quickly."""
        return self._run(task, tuple(libraries), SAMPLES)

    def compare(self, task: Task, libraries: Sequence[Path], repeat: int) -> list[list[float]]:
        """Measure libraries in turns; return each one's times.

        Raises:
            JobFailedError: One of them cannot be run.
            NoDeviceError: No device is left.
        """
        return self._run(task, tuple(libraries), repeat).result()

    def error(self, task: Task, library: Path, as_defined: Path | None) -> float:
        """Return the largest error of what a library computes, in units of what is allowed.

        Args:
            task: The task.
            library: Its candidate.
            as_defined: The function with its loops in plain order, where no oracle knows it.

        Raises:
            JobFailedError: It cannot be run.
            NoDeviceError: No device is left.
        """
        found = self._outputs(task, library)
        if as_defined is None:
            return _trial(task).worst(found)
        expected = self._outputs(task, as_defined)
        return max(
            float(np.max(np.abs(found[place] - values) / (_RELATIVE * np.abs(values) + _ABSOLUTE)))
            for place, values in expected.items()
            if values.size
        )

    def _outputs(self, task: Task, library: Path) -> Mapping[int, Any]:
        place = self._folder / f"{library.stem}.npz"
        request = replace(self._request(task, (library,), 0), outputs=str(place))
        self._pool.submit(request, self._timeout).result()
        found = dict(enumerate(read_arguments(place)))
        place.unlink()
        return found

    def _run(
        self, task: Task, libraries: tuple[Path, ...], repeat: int
    ) -> Future[list[list[float]]]:
        return self._pool.submit(self._request(task, libraries, repeat), self._timeout)

    def _request(self, task: Task, libraries: tuple[Path, ...], repeat: int) -> MeasureRequest:
        arguments = str(self._arguments[task.key])
        return MeasureRequest(arguments, tuple(map(str, libraries)), repeat, task.flush_cache)


def make_self_test(task: Task, library: Path, folder: Path) -> SelfTest:
    """Return what tells whether a device computes what it should: a kernel, and its oracle."""
    arguments = _write_arguments(task, folder)
    outputs = str(folder / "self_test")
    request = MeasureRequest(str(arguments), (str(library),), 1, flush_cache=False, outputs=outputs)
    return SelfTest(request, _trial(task).worst)


def _write_arguments(task: Task, folder: Path) -> Path:
    path = folder / f"arguments-{task.key[:16]}.npz"
    save_arguments(path, _trial(task).arguments)
    return path


def _trial(task: Task) -> Trial:
    return make_trial(task.function) if task.operation else _plain_trial(task)


def _plain_trial(task: Task) -> Trial:
    """Arguments of a function without an oracle: normal floats, and zeros, which index anything."""
    random = np.random.default_rng(0)
    arguments = []
    for each in parameter_types(task.function):
        dtype, shape = np.dtype(str(each.dtype)), extents(each)
        is_float = dtype.kind == "f"
        values = random.standard_normal(shape).astype(dtype) if is_float else np.zeros(shape, dtype)
        arguments.append(np.asarray(values))
    return Trial(tuple(arguments), dict)
