"""A row's outputs have the same bits whatever other rows are computed with it.

One row, few rows and many have kernels of their own, with other tiles, and tuning may choose any
tiles for each. None of that may change the order in which floats are added.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from tvm import tirx

from mvlm.models.cache_layout import PAGE_SIZE, CacheLayout
from mvlm.models.ops.linear import linear_signature
from mvlm.models.ops.signatures import (
    FEW,
    FEW_ROWS,
    ROWS,
    QuantizedLinearSignature,
    QuantizeRowsSignature,
    RowwiseSignature,
    Signature,
)
from mvlm.models.quantization import CACHE_STORAGES, SCHEMES
from mvlm.models.weight_layout import ROWS as WEIGHT_ROWS
from mvlm.models.weight_layout import LinearFormat
from mvlm.schedules.config_space import Config, FixedConfig, SpaceRecorder, default_config
from mvlm.schedules.cpu.instructions import INSTRUCTION_SETS, InstructionSet
from mvlm.schedules.cpu.kernels import KERNELS
from mvlm.schedules.cpu.panel_gemm import panel_gemm
from mvlm.schedules.cpu.panel_gemv import panel_gemv
from mvlm.schedules.kernel_set import KernelSet
from mvlm.schedules.oracles import make_kernel_case
from mvlm.schedules.portable.kernels import KERNELS as PORTABLE
from tests.device import device
from tests.kernels import Array, called
from tests.panels import FORMATS
from tests.schedules.test_kv_cache import Sequence

COUNT = 11  # rows, which no tile's divide


def results(kernel: tirx.PrimFunc, op: Signature, arguments: dict[str, Array]) -> dict[str, bytes]:
    found = called(kernel, arguments)
    return {each.name: found[each.name].tobytes() for each in op.parameters if each.is_written}


def of_row(op: Signature, arguments: dict[str, Array], row: int) -> dict[str, Array]:
    """The arguments of one of the rows alone."""
    return {
        each.name: np.ascontiguousarray(arguments[each.name][row : row + 1])
        if each.shape[0] in (ROWS, FEW_ROWS)
        else arguments[each.name]
        for each in op.parameters
    }


def check_rows(
    many: Signature, one: Signature, kernels: Iterator[tuple[tirx.PrimFunc, ...]]
) -> None:
    """Hold kernels for many rows against those for one, bit by bit."""
    arguments = dict(make_kernel_case(many, {ROWS: COUNT, FEW_ROWS: COUNT}).arguments)
    rows = [of_row(many, arguments, row) for row in range(COUNT)]
    expected: list[dict[str, bytes]] | None = None
    for of_many, of_one in kernels:
        alone = [results(of_one, one, row) for row in rows]
        expected = expected or alone
        assert alone == expected
        together = results(of_many, many, arguments)
        assert together == {name: b"".join(row[name] for row in expected) for name in together}
    assert expected is not None


def pairs(
    kernels: KernelSet, many: Signature, one: Signature, count: int = 5
) -> Iterator[tuple[tirx.PrimFunc, ...]]:
    """The default kernels of many rows and of one, then some of random configurations."""
    spaces = [kernels.space(op) for op in (many, one)]
    random = np.random.default_rng(0)
    for number in range(count):
        built = []
        for op, space in zip((many, one), spaces, strict=True):
            assert space is not None
            chosen = {knob.name: int(random.choice(knob.values)) for knob in space}
            built.append(kernels.build(op, FixedConfig(chosen) if number else default_config))
        yield tuple(built)
        if not any(spaces):
            return


# Compiling takes long: by default a layer of floats and one of levels.
BY_DEFAULT = {("q0f16", True, (200, 40)), ("q4a8", True, (512, 64))}
LINEAR = [
    pytest.param(*case, marks=() if case in BY_DEFAULT else pytest.mark.extended)
    for case in itertools.product(
        ("q0f32", "q0f16", "q4f16_1", "q16a16", "q8a8", "q4a8", "q3a8"),
        (False, True),
        ((512, 64), (200, 40)),
    )
]
LEVELS_BY_DEFAULT = {("q4a8", "AVX-512 VNNI"), ("q4a8", "AVX2"), ("q3a8", "AVX2")}
INTEGERS = [
    pytest.param(
        scheme,
        known,
        id=f"{scheme}-{known.name}",
        marks=() if (scheme, known.name) in LEVELS_BY_DEFAULT else pytest.mark.extended,
    )
    for scheme in ("q16a16", "q8a8", "q4a8", "q3a8")
    for known in INSTRUCTION_SETS
]


@pytest.mark.parametrize(("scheme", "has_epilogue", "shape"), LINEAR)
def test_linear(scheme: str, has_epilogue: bool, shape: tuple[int, int]) -> None:
    width, features = shape
    bias = residual = has_epilogue
    many, few, one = (
        linear_signature(FORMATS[scheme], rows, width, features, bias=bias, residual=residual)
        for rows in (None, FEW, 1)
    )
    with device().target:
        check_rows(many, one, pairs(KERNELS, many, one))
        check_rows(few, one, pairs(KERNELS, few, one))


@pytest.mark.parametrize(("scheme", "instructions"), INTEGERS)
def test_integers_by_each_instruction_set(scheme: str, instructions: InstructionSet) -> None:
    many, one = (
        linear_signature(FORMATS[scheme], rows, 512, 64, residual=True) for rows in (None, 1)
    )
    assert isinstance(many, QuantizedLinearSignature) and isinstance(one, QuantizedLinearSignature)
    random = np.random.default_rng(1)

    def build(op: QuantizedLinearSignature, knob: Config) -> tirx.PrimFunc:
        built = panel_gemv(op, knob, instructions) or panel_gemm(op, knob, instructions)
        return built.without_attr("global_symbol")

    def chosen(op: QuantizedLinearSignature) -> Config:
        recorder = SpaceRecorder()
        build(op, recorder)
        return FixedConfig({each.name: int(random.choice(each.values)) for each in recorder.knobs})

    with device().target:
        configs = [(default_config, default_config)] + [(chosen(many), chosen(one)) for _ in "abc"]
        check_rows(many, one, ((build(many, a), build(one, b)) for a, b in configs))


ROW_FUNCTIONS = ("identity", "rms_norm", "layer_norm", "silu_product", "quick_gelu", "gelu")


@pytest.mark.parametrize("function", ROW_FUNCTIONS)
@pytest.mark.parametrize("width", [256, 192])
def test_row_functions(function: str, width: int) -> None:
    with device().target:
        many, one = (
            QuantizeRowsSignature(m, width, function, 1e-6, "int8", 16, 1) for m in (None, 1)
        )
        check_rows(many, one, pairs(KERNELS, many, one))
        if function != "identity":
            many, one = (RowwiseSignature(m, width, function, 1e-6) for m in (None, 1))
            check_rows(many, one, pairs(KERNELS, many, one))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_portable_linear(scheme: str) -> None:
    in_rows = LinearFormat(SCHEMES[scheme], WEIGHT_ROWS)
    many, one = (linear_signature(in_rows, m, 64, 9, bias=True, residual=True) for m in (None, 1))
    with device().target:
        check_rows(many, one, pairs(PORTABLE, many, one))


@pytest.mark.parametrize("storage", CACHE_STORAGES)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(4, 2, 80), (3, 1, 64), (2, 2, 128), (4, 2, 128)]
)
def test_attention_of_a_prompt_in_any_chunks(
    storage: str, heads: int, kv_heads: int, head_dim: int
) -> None:
    layout, count = CacheLayout(1, kv_heads, head_dim, storage), 2 * PAGE_SIZE + 9
    random = np.random.default_rng(0)
    qkv = random.standard_normal((count, heads + 2 * kv_heads, head_dim)).astype(np.float32)
    found = []
    for cuts in ((), range(1, count), (1, 2, 63, 64, 65), (7, 71, 130), (128,)):
        sequence = Sequence(layout, heads, count)
        edges = itertools.pairwise((0, *cuts, count))
        found.append(np.concatenate([sequence.extend(qkv[at:end]) for at, end in edges]))
    for each in found[1:]:
        assert each.tobytes() == found[0].tobytes()
