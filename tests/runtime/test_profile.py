"""Times of kernels, with a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Iterator

from mvlm.runtime.profile import OVERHEAD, KernelTime, Profile


def ticks() -> Iterator[float]:
    yield from (0.0, 1.0, 1.5, 5.5, 6.0, 8.0, 9.0, 9.25)


def test_kernels_are_counted_by_function() -> None:
    clock = ticks()
    profile = Profile(clock=lambda: next(clock))
    for function, kernel in (
        ("prefill", "norm"),
        ("prefill", "linear"),
        ("decode", "norm"),
        ("decode", "vm.builtin.reshape"),
    ):
        profile.enter(function)
        profile.notice(kernel, True)
        profile.notice(kernel, False)
    assert profile.times() == {
        "prefill": (KernelTime("linear", 1, 4.0), KernelTime("norm", 1, 1.0)),
        "decode": (KernelTime("norm", 1, 2.0), KernelTime(OVERHEAD, 1, 0.25)),
    }
    profile.clear()
    assert profile.times() == {}
