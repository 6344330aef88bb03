"""Every configuration of a kernel computes the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mvlm.models.cache_layout import CacheLayout
from mvlm.models.kv_cache import NUM_BLOCKS, PAGES, RUN_EDGES
from mvlm.models.ops.linear import linear_signature
from mvlm.models.ops.signatures import (
    FEW,
    FEW_ROWS,
    ROWS,
    AppendSignature,
    AttentionSignature,
    CachedAttentionSignature,
    QuantizedLinearSignature,
    QuantizeRowsSignature,
    RowCount,
    RowwiseSignature,
    Signature,
)
from mvlm.models.quantization import SCHEMES
from mvlm.schedules.config_space import FixedConfig, Knob, SpaceRecorder, default_config
from mvlm.schedules.cpu.instructions import INSTRUCTION_SETS, InstructionSet
from mvlm.schedules.cpu.kernels import KERNELS
from mvlm.schedules.cpu.panel_gemm import panel_gemm
from mvlm.schedules.cpu.panels import panel_layout
from mvlm.schedules.oracles import make_kernel_case
from mvlm.schedules.oracles.arithmetic import integer_linear
from mvlm.schedules.oracles.linear import stored_weights
from tests.device import device
from tests.kernels import called
from tests.panels import FORMATS

# No tile's rows divide the number of rows, nor that of the first of two runs, 5.
EXTENTS = {ROWS: 11, FEW_ROWS: 11, RUN_EDGES: 3, NUM_BLOCKS: 3, PAGES: 4}


def of_linear(scheme: str, rows: RowCount, width: int = 512, features: int = 64) -> Signature:
    return linear_signature(FORMATS[scheme], rows, width, features)


def of_rows(rows: RowCount) -> Signature:
    return QuantizeRowsSignature(rows, 256, "rms_norm", 1e-6, "int8", 16, 1)


LAYOUT = CacheLayout(1, 2, 128, "int8")
OPERATIONS: dict[str, Signature] = {
    "attention": AttentionSignature(21, 2, 64),
    "cached_attention": CachedAttentionSignature.for_cache(LAYOUT, None, 4),
    "cached_attention of few": CachedAttentionSignature.for_cache(LAYOUT, FEW, 4),
    "cached_attention of one": CachedAttentionSignature.for_cache(LAYOUT, 1, 8),
    "append_to_cache": AppendSignature.for_cache(LAYOUT, None, 2),
    "append_to_cache of few": AppendSignature.for_cache(LAYOUT, FEW, 2),
    "rowwise": RowwiseSignature(None, 256, "rms_norm", 1e-6),
    "rowwise of one": RowwiseSignature(1, 256, "rms_norm", 1e-6),
    "quantize_rows": of_rows(None),
    "quantize_rows of one": of_rows(1),
    **{
        f"{scheme} linear{of}": of_linear(scheme, rows)
        for scheme in ("q0f32", "q4f16_1", "q3a8", "q4a8", "q8a8", "q16a16")
        for of, rows in (("", None), (" of few", FEW), (" of one", 1))
    },
}


def drawn(knobs: tuple[Knob, ...], count: int) -> list[dict[str, int]]:
    random = np.random.default_rng(0)
    return [{knob.name: int(random.choice(knob.values)) for knob in knobs} for _ in range(count)]


def ends(knobs: tuple[Knob, ...]) -> list[dict[str, int]]:
    """The least and greatest value of each knob, all others at their defaults."""
    default = {knob.name: knob.default for knob in knobs}
    return [
        default | {knob.name: end} for knob in knobs for end in (knob.values[0], knob.values[-1])
    ]


@pytest.mark.parametrize("name", OPERATIONS)
def test_random_configs_compute_the_same(name: str) -> None:
    check(name, lambda knobs: drawn(knobs, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_extreme_configs_compute_the_same(name: str) -> None:
    check(name, lambda knobs: [*ends(knobs), *drawn(knobs, 8)])


def check(name: str, select: Callable[[tuple[Knob, ...]], list[dict[str, int]]]) -> None:
    op = OPERATIONS[name]
    with device().target:
        knobs = KERNELS.space(op)
    assert knobs is not None
    kernel_case = make_kernel_case(op, EXTENTS)
    for point in select(knobs):
        with device().target:
            kernel = KERNELS.build(op, FixedConfig(point))
        assert kernel is not None
        assert kernel_case.largest_error(called(kernel, kernel_case.arguments)) <= 1, point


@pytest.mark.slow
@pytest.mark.parametrize("instructions", INSTRUCTION_SETS, ids=lambda known: known.name)
@pytest.mark.parametrize("scheme", ["q3a8", "q4a8", "q8a8", "q16a16"])
def test_configs_of_every_instruction_set(scheme: str, instructions: InstructionSet) -> None:
    op = of_linear(scheme, None, 512, 32)
    assert isinstance(op, QuantizedLinearSignature)
    recorder = SpaceRecorder()
    panel_gemm(op, recorder, instructions)
    kernel_case = make_kernel_case(op, EXTENTS)
    for point in [*ends(tuple(recorder.knobs)), *drawn(tuple(recorder.knobs), 4)]:
        kernel = panel_gemm(op, FixedConfig(point), instructions)
        assert kernel_case.largest_error(called(kernel, kernel_case.arguments)) <= 1, point


def test_unsupported_config_is_refused() -> None:
    op = of_linear("q4a8", None)
    with device().target, pytest.raises(ValueError, match="tile_m is 7, but must be one of"):
        KERNELS.build(op, FixedConfig({"tile_m": 7}))


def test_oracle_detects_a_wrong_kernel() -> None:
    """The oracle is not the kernel's own arithmetic, and one wrong element is enough."""
    kernel_case = make_kernel_case(of_linear("q4a8", None), EXTENTS)
    ((name, (values, allowed)),) = kernel_case.expect().items()
    assert kernel_case.largest_error({name: values.astype(np.float32)}) <= 1
    for wrong in (values[3, 5] + 2 * allowed[3, 5], np.nan):
        found = values.copy()
        found[3, 5] = wrong
        assert kernel_case.largest_error({name: found}) > 1
    assert kernel_case.largest_error({}) == float("inf")


def test_the_oracle_agrees_with_plain_arithmetic() -> None:
    """Scales, offsets and row scales are applied where the step-by-step oracle applies them."""
    op = of_linear("q4a8", None)
    assert isinstance(op, QuantizedLinearSignature)
    kernel_case = make_kernel_case(op, EXTENTS)
    given = kernel_case.arguments
    weight = stored_weights(op.weight_layout, op.matrix, given)
    stored = np.moveaxis(given["scales"], 2, 1).reshape(-1, 16)[:64]
    scales = (stored % 32).astype(np.float64)
    x_scales = given["x_scales"] * panel_layout(SCHEMES["q4a8"].weights).unit
    row_scales = given["row_scales"].reshape(-1)
    expected = integer_linear(given["x"], x_scales, weight.T, scales.T) * row_scales
    ((values, _),) = kernel_case.expect().values()
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_default_must_be_a_value_of_the_knob() -> None:
    with pytest.raises(AssertionError, match="tile_m"):
        default_config("tile_m", 3, (1, 2))
