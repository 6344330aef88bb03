"""Builds candidates into shared libraries, in processes that may crash or take too long."""

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
from mvlm.compile.tuning.candidate import point_of
from mvlm.compile.tuning.workload import is_signature
from mvlm.compile.tvm_worker import Worker
from mvlm.schedules import find_kernels
from mvlm.schedules.choice import Chosen, by_default

BUILD_SECONDS = 60


@dataclass(frozen=True)
class Built:
    """What became of a candidate.

    Attributes:
        path: Its shared library, or None.
        error: Why there is none.
    """

    path: Path | None
    error: str = ""


class _Workers(PopenPoolExecutor):
    """TVM's pool of processes, ended in a way that nothing can keep.

    Ctrl-C in a terminal reaches the workers too. Of one that a thread has just found dead TVM's
    `shutdown` makes an exception, with the pool's lock taken; the next one waits for it for ever.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, BUILD_SECONDS)

    def _worker_run(self, function: Any, arguments: Any, keywords: Any) -> Any:
        """Run a function in this thread's process: one of ours, not of TVM's own class."""
        with self._lock:
            # A session of its own: Ctrl-C is for us to handle.
            worker = self._worker_map.setdefault(threading.get_ident(), Worker(os.setsid))
        worker.send(function, arguments, keywords, self._timeout)
        return worker.recv()

    def shutdown(self, wait: bool = True) -> None:
        """End the processes, and what waits for them."""
        self._shutdown = True
        self._threadpool.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._worker_map.values()):
            with contextlib.suppress(Exception):
                worker.kill()
        self._threadpool.shutdown(wait=wait)


class Builder:
    """Builds for a target.

    Args:
        target: What to build for.
        folder: Where libraries go.
        workers: Processes.
    """

    def __init__(self, target: CompileTarget, folder: Path, workers: int) -> None:
        self._target, self._folder, self._numbers = target, folder, count()
        self._pool = _Workers(workers)

    def build(self, modules: Sequence[tvm.IRModule], as_defined: bool = False) -> list[Built]:
        """Build each module: a signature with its choices, or a scheduled function.

        Args:
            modules: Each with the one function `main`.
            as_defined: Whether functions are left as they are, loops in their plain order.
        """
        target = self._target
        jobs = [
            (
                tvm.ir.save_json(module),
                dict(target.options),
                target.kernels,
                target.linker,
                os.fspath(self._folder / f"candidate-{next(self._numbers)}.so"),
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
    """Return the function that a candidate's module stands for, under its target.

    Raises:
        ValueError: It chooses what the kernel cannot do.
    """
    function, found = module["main"], find_kernels(kernels)
    if is_signature(module):
        kernel = found.replace(function, Chosen(point_of(module)))
        if kernel is None:
            raise ValueError("no kernel serves this operation")
        return kernel
    if as_defined:
        return function
    return found.finish(function, function, by_default).with_attr("tirx.is_scheduled", True)


def _build_one(job: tuple[str, dict[str, Any], str, Linker, str, bool]) -> str:
    """Build in a worker."""
    text, options, kernels, linker, path, as_defined = job
    target = tvm.target.Target(options)
    with target, tvm.transform.PassContext(opt_level=3):
        function = scheduled_function(tvm.ir.load_json(text), kernels, as_defined)
        module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
        executable = tvm.compile(module, target=target)
    executable.export_library(path, fcompile=linker.link_files)
    return path


def _built(result: Any, path: Path) -> Built:
    if result.status == StatusKind.COMPLETE:
        return Built(path)
    if result.status == StatusKind.TIMEOUT:
        return Built(None, f"not built within {BUILD_SECONDS} s")
    lines = str(result.value).strip().splitlines()
    return Built(None, lines[-1][:300] if lines else "the builder ended")
