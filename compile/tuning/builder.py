"""Builds candidates into shared libraries, in worker processes with a timeout."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import tvm
from tvm.support.popen_pool import PopenPoolExecutor, StatusKind

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.toolchain import Linker
from mvlm.compile.tuning.measure_candidate import config_of
from mvlm.compile.tuning.workload import signature_of
from mvlm.compile.tvm_worker import Worker
from mvlm.schedules.config_space import FixedConfig
from mvlm.schedules.registry import find_kernels

BUILD_SECONDS = 60


@dataclass(frozen=True)
class BuilderResult:
    """The result of building one candidate.

    Attributes:
        path: The shared library, or None if the build failed.
        error: The build's error.
    """

    path: Path | None
    error: str = ""


class _Workers(PopenPoolExecutor):
    """TVM's pool of processes, with a shutdown that cannot deadlock.

    TVM's `shutdown` raises with the pool's lock held where a worker is dead already, as after a
    Ctrl-C that reached the workers too; the next caller then waits for the lock for ever.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, BUILD_SECONDS)

    def _worker_run(self, function: Any, arguments: Any, keywords: Any) -> Any:
        """Run a function in this thread's worker process, of our class instead of TVM's."""
        with self._lock:
            # A session of its own: Ctrl-C is for us to handle.
            worker = self._worker_map.setdefault(threading.get_ident(), Worker(os.setsid))
        worker.send(function, arguments, keywords, self._timeout)
        return worker.recv()

    def shutdown(self, wait: bool = True) -> None:
        """End the processes and cancel pending builds."""
        self._shutdown = True
        self._threadpool.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._worker_map.values()):
            with contextlib.suppress(Exception):
                worker.kill()
        self._threadpool.shutdown(wait=wait)


class Builder:
    """Builds candidates for a target.

    Args:
        target: The target.
        folder: The folder of the libraries.
        workers: The number of processes.
    """

    def __init__(self, target: CompileTarget, folder: Path, workers: int) -> None:
        self._target, self._folder, self._knob_features = target, folder, count()
        self._pool = _Workers(workers)

    def build(
        self, modules: Sequence[tvm.IRModule], as_defined: bool = False
    ) -> list[BuilderResult]:
        """Build each module: a kernel's annotated workload, or a scheduled function.

        Args:
            modules: Each with the one function `main`.
            as_defined: Whether to build functions unscheduled, to compute an expected result.
        """
        target = self._target
        jobs = [
            (
                tvm.ir.save_json(module),
                dict(target.options),
                target.kernels,
                target.linker,
                os.fspath(self._folder / f"candidate-{next(self._knob_features)}.so"),
                as_defined,
            )
            for module in modules
        ]
        return [
            _built(result, Path(job[4]))
            for result, job in zip(
                self._pool.map_with_error_catching(_build_one, jobs), jobs, strict=True
            )
        ]

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(wait=False)


def scheduled_function(module: tvm.IRModule, kernels: str, as_defined: bool) -> tvm.tirx.PrimFunc:
    """Return a candidate's function: a kernel with its knobs, or a scheduled function.

    Raises:
        ValueError: The kernel does not support the knobs' values.
    """
    function, found, signature = module["main"], find_kernels(kernels), signature_of(module)
    if signature is not None:
        kernel = found.build(signature, FixedConfig(config_of(module)))
        if kernel is None:
            raise ValueError("no kernel serves this operation")
        return kernel
    if as_defined:
        return function
    return found.finish(function, function)


def _build_one(job: tuple[str, dict[str, Any], str, Linker, str, bool]) -> str:
    """Build one module in a worker process."""
    text, options, kernels, linker, path, as_defined = job
    target = tvm.target.Target(options)
    with target, tvm.transform.PassContext(opt_level=3):
        function = scheduled_function(tvm.ir.load_json(text), kernels, as_defined)
        module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
        executable = tvm.compile(module, target=target)
    executable.export_library(path, fcompile=linker.link_files)
    return path


def _built(result: Any, path: Path) -> BuilderResult:
    if result.status == StatusKind.COMPLETE:
        return BuilderResult(path)
    if result.status == StatusKind.TIMEOUT:
        return BuilderResult(None, f"not built within {BUILD_SECONDS} s")
    lines = str(result.value).strip().splitlines()
    return BuilderResult(None, lines[-1][:300] if lines else "the builder ended")
