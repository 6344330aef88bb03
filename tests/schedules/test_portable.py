"""The kernels in plain loops over rows of weights, and the definitions, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx

from mvlm.models.bit_packing import pack_rows
from mvlm.models.ops.linear import (
    linear_definition,
    linear_signature,
    quantized_linear_definition,
)
from mvlm.models.ops.signatures import ROWS as ROWS_EXTENT
from mvlm.models.ops.signatures import LinearLayer, LinearSignature, QuantizedLinearSignature
from mvlm.models.quantization import QMAX, SCHEMES
from mvlm.models.weight_layout import ROWS, LinearFormat
from mvlm.schedules.oracles import make_kernel_case
from mvlm.schedules.portable.kernels import KERNELS
from tests.device import device
from tests.kernels import called
from tests.panels import FORMATS

IN_ROWS = {name: LinearFormat(scheme, ROWS) for name, scheme in SCHEMES.items()}
INTEGERS = ("q16a16", "q8a8", "q4a8", "q3a8")


def made(scheme: str, rows: int | None, width: int, features: int, **options: bool) -> LinearLayer:
    return linear_signature(IN_ROWS[scheme], rows, width, features, **options)


def kernel(op: LinearLayer) -> tirx.PrimFunc:
    with device().target:
        found = KERNELS.build(op)
    assert found is not None
    return found


def defined(op: LinearLayer) -> tirx.PrimFunc:
    if isinstance(op, LinearSignature):
        return linear_definition(op)
    assert isinstance(op, QuantizedLinearSignature)
    return quantized_linear_definition(op)


def check(function: tirx.PrimFunc, op: LinearLayer, rows: int, seed: int = 0) -> None:
    case = make_kernel_case(op, {ROWS_EXTENT: rows}, seed)
    assert case.largest_error(called(function, case.arguments)) <= 1


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("rows", [1, None])
@pytest.mark.parametrize(("width", "features"), [(1, 1), (33, 20), (100, 16)])
def test_shapes(scheme: str, rows: int | None, width: int, features: int) -> None:
    op = made(scheme, rows, width, features)
    check(kernel(op), op, rows or 7)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bias_and_residual(scheme: str) -> None:
    for options in ({"bias": True}, {"residual": True}, {"bias": True, "residual": True}):
        op = made(scheme, None, 64, 9, **options)
        check(kernel(op), op, 3)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    scheme=st.sampled_from(list(SCHEMES)),
    rows=st.integers(1, 12),
    width=st.integers(1, 150),
    features=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_random_shapes(scheme: str, rows: int, width: int, features: int, seed: int) -> None:
    op = made(scheme, None, width, features)
    check(kernel(op), op, rows, seed)


@pytest.mark.parametrize("formats", [IN_ROWS, FORMATS], ids=["rows", "panels16"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_definition_in_every_layout(scheme: str, formats: dict[str, LinearFormat]) -> None:
    """The one definition of an operation agrees with the oracle over any layout."""
    op = linear_signature(formats[scheme], None, 72, 20, bias=True, residual=True)
    check(defined(op), op, 3)


@pytest.mark.parametrize("scheme", INTEGERS)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_saturated_values(scheme: str, sign: int, end: str) -> None:
    """Every product as large as it gets, and all of one sign: a group's sum fits an int32."""
    op = made(scheme, None, 64, 5)
    assert isinstance(op, QuantizedLinearSignature) and not op.has_zero_point
    weight_format, x = op.weight_format, sign * QMAX[op.activations]
    integer = getattr(weight_format, end)
    case = make_kernel_case(op, {ROWS_EXTENT: 3})
    given_ = dict(case.arguments)
    stored = 3 if weight_format.has_tables else integer
    given_["x"] = np.full_like(given_["x"], x)
    given_["x_scales"] = np.full_like(given_["x_scales"], 1 / weight_format.unit)
    given_["weight"] = pack_rows(np.full((5, 64), stored), weight_format)
    given_["scales"] = np.ones_like(given_["scales"])
    if "row_scales" in given_:
        given_["row_scales"] = np.ones_like(given_["row_scales"])
        given_["levels"] = np.full_like(given_["levels"], integer)
    expected = np.full((3, 5), 2 * np.float32(32 * x * integer))
    np.testing.assert_array_equal(called(kernel(op), given_)["y"], expected)


@pytest.mark.parametrize("scheme", ["q0f32", "q4f16_1", "q4a8", "q3a8"])
def test_kernels_have_no_vectors_and_no_knobs(scheme: str) -> None:
    op: Any = made(scheme, None, 64, 32)
    script = kernel(op).script()
    assert "T.parallel" in script
    assert not any(
        word in script for word in ("vectorized", "T.ramp", "prefetch", "llvm", "unroll")
    )
    assert KERNELS.space(op) == ()


def test_weights_that_need_a_correction_are_not_served() -> None:
    from mvlm.schedules.portable.linear import quantized_linear

    op = linear_signature(FORMATS["q4a8"], None, 64, 32)
    assert isinstance(op, QuantizedLinearSignature) and op.has_zero_point
    assert quantized_linear(op) is None
