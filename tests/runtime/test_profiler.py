"""Times of kernels, with a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Iterator

from mvlm.runtime.profiler import OVERHEAD, KernelTime, Profiler


def ticks() -> Iterator[float]:
    yield from (0.0, 1.0, 1.5, 5.5, 6.0, 8.0, 9.0, 9.25, 10.0, 10.25)


def test_kernels_are_counted_by_function() -> None:
    clock = ticks()
    profiler = Profiler(clock=lambda: next(clock))
    for function, kernel in (
        ("prefill", "norm"),
        ("prefill", "linear"),
        ("decode", "norm"),
        ("decode", "vm.builtin.reshape"),
        ("decode", "shape_func2"),
    ):
        profiler.enter(function)
        profiler.record(kernel, True)
        profiler.record(kernel, False)
    assert profiler.times() == {
        "prefill": (KernelTime("linear", 1, 4.0), KernelTime("norm", 1, 1.0)),
        "decode": (KernelTime("norm", 1, 2.0), KernelTime(OVERHEAD, 2, 0.5)),
    }
    profiler.clear()
    assert profiler.times() == {}
