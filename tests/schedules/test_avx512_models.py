"""The kernels for AVX-512 on any x86: each instruction is replaced by what its manual says.

CPUs without AVX-512 compile the kernels but cannot run them. Here LLVM's intrinsics become plain
TensorIR, lane by lane, and the rest of the kernels, which layout and indices are part of, runs as
it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import tirx
from tvm.script import tirx as T

from mvlm.models.ops.linear import linear_signature
from mvlm.models.ops.signatures import ROWS, QuantizedLinearSignature
from mvlm.schedules.cpu.instructions import InstructionSet, avx512_vnni
from mvlm.schedules.cpu.panel_gemm import panel_gemm
from mvlm.schedules.cpu.panel_gemv import panel_gemv
from mvlm.schedules.oracles import make_kernel_case
from tests.kernels import called
from tests.panels import FORMATS


def vpdpbusd(sums: tirx.Expr, weights: tirx.Expr, activations: tirx.Expr) -> tirx.Expr:
    """Four products of unsigned and signed bytes are added to each sum."""
    return sums + folded(T.Cast("int32x64", weights) * T.Cast("int32x64", activations), 4)


def vpdpwssd(sums: tirx.Expr, weights: tirx.Expr, activations: tirx.Expr) -> tirx.Expr:
    """Two products of words are added to each sum."""
    return sums + folded(T.Cast("int32x32", weights) * T.Cast("int32x32", activations), 2)


def folded(products: tirx.Expr, count: int) -> tirx.Expr:
    parts = [
        tirx.Shuffle([products], [count * lane + part for lane in range(16)])
        for part in range(count)
    ]
    return sum(parts[1:], parts[0])


def vpshufb(table: tirx.Expr, indices: tirx.Expr) -> tirx.Expr:
    """Each byte is one of its 16 bytes of the table, or zero where bit 7 of the index is set."""
    found = T.broadcast(T.uint8(0), 64)
    for at in range(16):
        candidates = tirx.Shuffle([table], [lane // 16 * 16 + at for lane in range(64)])
        is_here = (indices & T.broadcast(T.uint8(0x8F), 64)) == T.broadcast(T.uint8(at), 64)
        found = tirx.Select(is_here, candidates, found)
    return found


def vpermb(table: tirx.Expr, indices: tirx.Expr) -> tirx.Expr:
    """Each byte is one of the table's 64, by the lower six bits of the index."""
    found = T.broadcast(T.uint8(0), 64)
    for at in range(64):
        is_here = (indices & T.broadcast(T.uint8(63), 64)) == T.broadcast(T.uint8(at), 64)
        found = tirx.Select(is_here, tirx.Shuffle([table], [at] * 64), found)
    return found


MODELS = {
    "llvm.x86.avx512.vpdpbusd.512": vpdpbusd,
    "llvm.x86.avx512.vpdpwssd.512": vpdpwssd,
    "llvm.x86.avx512.pshuf.b.512": vpshufb,
    "llvm.x86.avx512.permvar.qi.512": vpermb,
}


class Models:
    """TVMScript's functions, of which intrinsics are computed by their models."""

    def __init__(self) -> None:
        self.used = set[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(T, name)

    def call_llvm_pure_intrin(self, dtype: str, name: str, *operands: tirx.Expr) -> tirx.Expr:
        self.used.add(name)
        return MODELS[name](*operands)


KINDS = [
    *((avx512_vnni.INSTRUCTIONS, scheme) for scheme in ("q3a8", "q4a8", "q8a8", "q16a16")),
    *((avx512_vnni.WITH_VBMI, scheme) for scheme in ("q3a8", "q4a8")),
]


@pytest.mark.parametrize(
    ("isa", "scheme"), KINDS, ids=[f"{isa.name}-{scheme}" for isa, scheme in KINDS]
)
@pytest.mark.parametrize("rows", [1, None])
def test_kernels(
    monkeypatch: pytest.MonkeyPatch, isa: InstructionSet, scheme: str, rows: int | None
) -> None:
    op = linear_signature(FORMATS[scheme], rows, 96, 24)
    assert isinstance(op, QuantizedLinearSignature)
    models = Models()
    monkeypatch.setattr(avx512_vnni, "T", models)
    kernel = panel_gemv(op, instructions=isa) or panel_gemm(op, instructions=isa)
    assert len(models.used) == (2 if scheme in ("q3a8", "q4a8") else 1)
    case = make_kernel_case(op, {ROWS: rows or 5})
    assert case.largest_error(called(kernel, case.arguments)) <= 1


@pytest.mark.parametrize("name", ["vpshufb", "vpermb"])
def test_models_of_byte_shuffles(name: str) -> None:
    """The models themselves, by NumPy."""
    random = np.random.default_rng(0)
    table, indices = (random.integers(0, 256, 64).astype(np.uint8) for _ in range(2))
    lanes = np.arange(64) // 16 * 16
    model, expected = {
        "vpshufb": (vpshufb, np.where(indices & 128, 0, table[lanes + (indices & 15)])),
        "vpermb": (vpermb, table[indices & 63]),
    }[name]

    @T.prim_func(private=True, s_tir=True)
    def function(a: T.handle, b: T.handle, c: T.handle):
        table_bytes = T.match_buffer(a, (64,), "uint8")
        index_bytes = T.match_buffer(b, (64,), "uint8")
        out = T.match_buffer(c, (64,), "uint8")
        with T.sblock("shuffle"):
            out[T.ramp(0, 1, 64)] = model(
                table_bytes[T.ramp(0, 1, 64)], index_bytes[T.ramp(0, 1, 64)]
            )

    arguments = {"a": table, "b": indices, "c": np.full(64, 99, np.uint8)}
    np.testing.assert_array_equal(called(function, arguments)["c"], expected)
