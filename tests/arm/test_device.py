"""The emulated device: that it is one, and only the one that it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T

from tests.arm.device import ArmDevice, emulated

pytestmark = pytest.mark.arm


def multiplied(instruction: str, features: list[str]) -> tuple[tirx.PrimFunc, tvm.target.Target]:
    """A function of one instruction that multiplies bytes, and a target that has it."""

    @T.prim_func(private=True, s_tir=True)
    def kernel(a: T.Buffer((16,), "int8"), b: T.Buffer((16,), "int8"), c: T.Buffer((4,), "int32")):  # type: ignore[valid-type]
        with T.sblock("root"):
            c[T.ramp(0, 1, 4)] = T.call_llvm_pure_intrin(
                "int32x4",
                instruction,
                T.broadcast(T.int32(0), 4),
                a[T.ramp(0, 1, 16)],
                b[T.ramp(0, 1, 16)],
            )

    options = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": features}
    return kernel.with_attr("global_symbol", "main"), tvm.target.Target(options)


def run(device: ArmDevice, instruction: str, features: list[str]) -> np.ndarray:
    function, target = multiplied(instruction, features)
    executable = tvm.compile(tvm.IRModule({"main": function}), target=target)
    a, b = np.arange(-8, 8, dtype=np.int8), np.arange(16, dtype=np.int8)
    out = tvm.runtime.tensor(np.full(4, 99, np.int32))
    device.function(executable)(*map(tvm.runtime.tensor, (a, b)), out)
    return out.numpy()


def test_dot_products_are_there(tmp_path: Path) -> None:
    with emulated(tmp_path) as device:
        found = run(device, "llvm.aarch64.neon.sdot", ["+v8.2a", "+dotprod"])
    a, b = np.arange(-8, 8), np.arange(16)
    np.testing.assert_array_equal(found, (a * b).reshape(4, 4).sum(1))


def test_what_the_cores_do_not_have_is_refused(tmp_path: Path) -> None:
    """Matrices of bytes came with Armv8.6: a kernel that used them would end here too."""
    with emulated(tmp_path) as device, pytest.raises(pytest.fail.Exception, match="it ended with"):
        run(device, "llvm.aarch64.neon.smmla", ["+v8.2a", "+i8mm"])
