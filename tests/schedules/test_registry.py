"""Kernel sets are found by their folders' names, and their layouts without tvm."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from mvlm.models.ops.linear import linear_signature
from mvlm.models.quantization import SCHEMES
from mvlm.models.weight_layout import ROWS, LinearFormat, layout_named
from mvlm.runtime.errors import TargetError
from mvlm.runtime.targets import known_targets
from mvlm.schedules.registry import find_kernels, find_layout, find_needs, kernel_set_names


def test_the_names_are_those_of_the_folders() -> None:
    assert kernel_set_names() == ("cpu", "portable")
    for name in kernel_set_names():
        assert find_kernels(name) is import_module(f"mvlm.schedules.{name}.kernels").KERNELS
        assert find_kernels(name).builders


@pytest.mark.parametrize("name", kernel_set_names())
def test_a_kernel_set_has_the_layout_and_the_needs_that_are_found_without_it(name: str) -> None:
    kernels = find_kernels(name)
    assert kernels.layout is find_layout(name) is layout_named(kernels.layout.name)
    assert kernels.needs is find_needs(name)


@pytest.mark.parametrize("find", [find_kernels, find_layout, find_needs])
@pytest.mark.parametrize("name", ["abacus", "oracles", "cpu.instructions", "", "../cpu"])
def test_an_unknown_name_is_refused(find: object, name: str) -> None:
    assert callable(find)
    with pytest.raises(TargetError, match=r"has no kernels for .* yet: expected cpu"):
        find(name)


def test_a_layout_is_found_without_tvm() -> None:
    code = (
        "import sys; from mvlm.schedules.registry import find_layout, find_needs, kernel_set_names;"
        "names = [find_layout(name).name for name in kernel_set_names()];"
        "kinds = [find_needs(name).kind for name in kernel_set_names()];"
        "print(*names, *kinds, 'tvm' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *words, has_tvm = found.stdout.split()
    names = kernel_set_names()
    expected = [find_layout(name).name for name in names] + [
        find_needs(name).kind for name in names
    ]
    assert (words, has_tvm) == (expected, "False")


def test_every_target_with_kernels_has_the_kind_of_device_that_they_need() -> None:
    served = [each for each in known_targets().values() if each.kernels in kernel_set_names()]
    assert {each.kernels for each in served} == set(kernel_set_names())
    for target in served:
        assert find_needs(target.kernels).kind == target.device_kind


def test_a_kernel_set_refuses_weights_in_another_layout() -> None:
    op = linear_signature(LinearFormat(SCHEMES["q4a8"], ROWS), 1, 64, 16)
    with pytest.raises(AssertionError, match=r"layout=rows .*: expected layout=panels16"):
        find_kernels("cpu").build(op)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="'tiles' is no layout of weights, expected one of"):
        layout_named("tiles")
