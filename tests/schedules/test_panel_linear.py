"""The CPU kernels over 8-bit activations, by every instruction set of a device, against NumPy."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.models.ops.linear import linear_signature, quantized_linear_definition
from mvlm.models.ops.signatures import QuantizedLinearSignature
from mvlm.models.quantization import (
    QMAX,
    SCHEMES,
    QuantizedMatrix,
    fit_groups_per_scale,
    quantize,
)
from mvlm.schedules.cpu.instructions import INSTRUCTION_SETS, InstructionSet, plain
from mvlm.schedules.cpu.panel_gemm import panel_gemm
from mvlm.schedules.cpu.panel_gemv import panel_gemv
from mvlm.schedules.cpu.panels import PanelLayout, panel_layout, to_panels
from mvlm.schedules.oracles.arithmetic import integer_linear, quantize_rows
from mvlm.schedules.oracles.rowwise import zero_point_arguments
from tests.device import cached
from tests.kernels import Array, compiled
from tests.models.stored_rows import multiples
from tests.panels import FORMATS

EPS = float(np.finfo(np.float32).eps)
SCHEME_NAMES = ("q16a16", "q8a8", "q4a8", "q3a8")
PACKED = ("q4a8", "q3a8")
# Those that the device has: see `conftest`.
by_each = pytest.mark.parametrize("instructions", INSTRUCTION_SETS, ids=lambda known: known.name)


@dataclass(frozen=True)
class Case:
    """A multiplication: integers of both sides, and their scales."""

    scheme: str
    x: Array
    x_scales: Array
    quantized: QuantizedMatrix

    @property
    def inputs(self) -> list[Array]:
        """What a kernel takes."""
        weight_format, layout = SCHEMES[self.scheme].weights, layout_of(self.scheme)
        width, groups = self.x.shape[1], self.quantized.scales.shape[1]
        x = np.zeros((len(self.x), 32 * groups), layout.activations)
        x[:, :width] = self.x
        corrections = zero_point_arguments(x, layout.correction).values()
        return [x, self.x_scales, *corrections, *to_panels(self.quantized, weight_format)]

    def run(self, instructions: InstructionSet | None) -> Array:
        """By a set's kernel, or by the definition with None."""
        features = len(self.quantized.integers)
        rows = 1 if len(self.x) == 1 else None
        op = linear_signature(FORMATS[self.scheme], rows, self.x.shape[1], features)
        assert isinstance(op, QuantizedLinearSignature)
        return _kernel(op, instructions)(self.inputs, (len(self.x), features))

    @property
    def exact(self) -> Array:
        """The products of the weights' multiples alone, without any scale."""
        values, _ = multiples(self.quantized)
        return np.asarray(self.x.astype(np.float64) @ values.T)

    def check(self, found: Array) -> None:
        """Within a group sums are exact; what is left is the rounding of adding the groups.

        Of levels the products and those of their offset are added in float32 as well.
        """
        x_scales = self.x_scales * np.float32(layout_of(self.scheme).unit)
        values, steps = multiples(self.quantized)
        if self.quantized.row_scales is not None:
            steps = steps * self.quantized.row_scales.astype(np.float64)[:, None]
        expected = integer_linear(self.x, x_scales, values.T, steps.T)
        sizes = (
            np.abs(self.x.astype(np.int32)),
            np.abs(values) + 3 * layout_of(self.scheme).has_tables,
        )
        largest = integer_linear(sizes[0], x_scales, sizes[1].T, np.abs(steps).T)
        assert (np.abs(found - expected) <= (steps.shape[1] + 6) * EPS * largest).all()


@cached
def _kernel(op: QuantizedLinearSignature, instructions: InstructionSet | None) -> Any:
    if instructions is None:
        return compiled(quantized_linear_definition(op))
    return compiled(
        panel_gemv(op, instructions=instructions) or panel_gemm(op, instructions=instructions)
    )


def layout_of(scheme: str) -> PanelLayout:
    return panel_layout(SCHEMES[scheme].weights)


def random_case(scheme: str, rows: int, width: int, features: int, seed: int = 0) -> Case:
    random, weight_format = np.random.default_rng(seed), SCHEMES[scheme].weights
    matrix = random.standard_normal((features, width), np.float32)
    rounded = quantize(matrix, weight_format, "search")
    values = random.standard_normal((rows, width), np.float32) * 5
    activations, groups_per_scale = layout_of(scheme).activations, SCHEMES[scheme].groups_per_scale
    x, x_scales = quantize_rows(values, activations, groups_per_scale)
    return Case(scheme, x, x_scales, rounded)


def unscaled(scheme: str, x: Array, weight: Array) -> Case:
    """Integers ``(K, N)`` whose scales are all one, or levels, of which a panel has 8 at most."""
    layout, groups, features = layout_of(scheme), len(weight) // 32, weight.shape[1]
    activation_scales = groups // fit_groups_per_scale(groups, SCHEMES[scheme].groups_per_scale)
    x_scales = np.full((len(x), activation_scales), 1 / layout.unit, np.float32)
    scales, integers = np.ones((features, groups), layout.scale_dtype), weight.T
    if not layout.has_tables:
        integers = integers.astype(SCHEMES[scheme].weights.integer_dtype)
        return Case(scheme, x, x_scales, QuantizedMatrix(integers, scales))
    tables = np.zeros((-(-features // 16), 16), np.int8)
    indices = np.empty(integers.shape, np.uint8)
    for table, first in zip(tables, range(0, features, 16), strict=True):
        levels, found = np.unique(integers[first : first + 16], return_inverse=True)
        count = 1 << layout.bits
        table[:] = np.tile(np.resize(levels, count), 16 // count)
        indices[first : first + 16] = found.reshape(-1, integers.shape[1])
    rows = np.ones(features, np.float32)
    return Case(scheme, x, x_scales, QuantizedMatrix(indices, scales, rows, tables))


# The tests of values below share the kernels of one shape, of three groups and of three panels, the
# last of which is not full. Compiling takes nearly all of their time.
def shapes() -> list[pytest.ParameterSet]:
    """Return schemes, rows and shapes.

    By default every kernel has several scales of activations, and either part of a group or less
    than a group and a panel: what handles these is one code for all kernels of a set.
    """
    kernels = list(itertools.product(SCHEME_NAMES, (1, 9)))
    hard = [(512, 20), (33, 40), (1, 1)]
    default = {
        (*kernel, *shape)
        for i, kernel in enumerate(kernels)
        for shape in (hard[0], hard[1 + (i + i // 2) % 2])
    }
    every = [(*kernel, *shape) for kernel in kernels for shape in (*hard, (32, 16), (100, 128))]
    return [
        pytest.param(*each, marks=() if each in default else pytest.mark.extended) for each in every
    ]


@by_each
@pytest.mark.parametrize(("scheme", "rows", "width", "features"), shapes())
def test_shapes(
    instructions: InstructionSet, scheme: str, rows: int, width: int, features: int
) -> None:
    case = random_case(scheme, rows, width, features)
    case.check(case.run(instructions))


@by_each
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    scheme=st.sampled_from(SCHEME_NAMES),
    rows=st.integers(1, 20),
    width=st.integers(1, 200),
    features=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_random_shapes(
    instructions: InstructionSet, scheme: str, rows: int, width: int, features: int, seed: int
) -> None:
    case = random_case(scheme, rows, width, features, seed)
    case.check(case.run(instructions))


@by_each
@pytest.mark.parametrize("scheme", SCHEME_NAMES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("end", [0, -1], ids=["lowest", "highest"])
def test_saturated_values(instructions: InstructionSet, scheme: str, sign: int, end: int) -> None:
    """Every product as large as it gets, and all of one sign: nothing overflows on the way."""
    weight_format, layout = SCHEMES[scheme].weights, layout_of(scheme)
    x = sign * QMAX[layout.activations]
    quantized = (weight_format.lowest, weight_format.highest)[end]
    whole = unscaled(scheme, np.full((3, 96), x, layout.activations), np.full((96, 40), quantized))
    group = np.float32(32 * x * quantized)  # the sums of 16-bit ones have more digits than float32
    np.testing.assert_array_equal(whole.run(instructions), np.full((3, 40), 3 * group))


@by_each
@pytest.mark.parametrize("scheme", SCHEME_NAMES)
@pytest.mark.parametrize("rows", [1, 6])
def test_integers_are_exact(instructions: InstructionSet, scheme: str, rows: int) -> None:
    """With scales of one and sums below 2^24 nothing is rounded: every bit is the oracle's."""
    random, weight_format, layout = (
        np.random.default_rng(7),
        SCHEMES[scheme].weights,
        layout_of(scheme),
    )
    lowest, highest = max(weight_format.lowest, -127), min(weight_format.highest, 127)
    x = random.integers(-127, 128, (rows, 96)).astype(layout.activations)
    values = weight_format.tables[0] if weight_format.has_tables else range(lowest, highest + 1)
    weight = random.choice(values, (96, 40))
    case = unscaled(scheme, x, weight)
    np.testing.assert_array_equal(case.run(instructions), x.astype(np.int64) @ weight)


@by_each
@pytest.mark.parametrize("scheme", PACKED)
@pytest.mark.parametrize("rows", [1, 6])
def test_offsets_are_exact(instructions: InstructionSet, scheme: str, rows: int) -> None:
    """Multiples of a quarter below 2^22 are not rounded either: levels with each of the offsets."""
    random, (levels, *_) = np.random.default_rng(8), SCHEMES[scheme].weights.tables
    x = random.integers(-127, 128, (rows, 96)).astype(np.int8)
    case = unscaled(scheme, x, random.choice(levels, (96, 40)))
    offsets = np.resize(np.arange(-4, 4, dtype=np.int8), case.quantized.scales.shape)
    case.quantized.scales[:] = 1 | offsets << 5
    assert len(np.unique(multiples(case.quantized)[0] % 1)) > 1
    np.testing.assert_array_equal(case.run(instructions), case.exact)


@by_each
@pytest.mark.parametrize("scheme", ["q16a16", "q8a8"])
def test_alternating_extremes(instructions: InstructionSet, scheme: str) -> None:
    """Pairs of products that cancel in one half and add up in the other."""
    layout, signs = layout_of(scheme), np.array([-1, 1, 1, -1])
    largest = QMAX[layout.activations]
    weight = np.tile(largest * signs[:, None], (24, 40))
    x = np.tile(largest * np.array([-1, 1, -1, -1], layout.activations), (2, 24))
    case = unscaled(scheme, x, weight)
    exact = x.astype(float) @ weight
    np.testing.assert_array_equal(case.run(instructions), exact.astype(np.float32))


@by_each
@pytest.mark.parametrize("scheme", PACKED)
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("part", ["all", "first", "second"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_of_16_bits(
    instructions: InstructionSet, scheme: str, rows: int, part: str, sign: int
) -> None:
    """The largest sums of either half of a group's products: 16 times 16 times 127."""
    x = np.full((rows, 96), 127, np.int8)
    k = np.arange(96)
    x[:, {"all": k < 0, "first": k % 4 > 1, "second": k % 4 < 2}[part]] = -127
    for level in (SCHEMES[scheme].weights.lowest, SCHEMES[scheme].weights.highest):
        case = unscaled(scheme, sign * x, np.full((96, 40), level))
        np.testing.assert_array_equal(case.run(instructions), case.exact)


@by_each
@pytest.mark.parametrize("scheme", PACKED)
def test_signs_of_the_largest_products_at_random(instructions: InstructionSet, scheme: str) -> None:
    """Sums that leave 16 bits on the way, in whatever order they are added."""
    random, weight_format = np.random.default_rng(3), SCHEMES[scheme].weights
    x = random.choice([-127, 127], (9, 96)).astype(np.int8)
    weight = random.choice([weight_format.lowest, weight_format.highest], (96, 40))
    x[:3], weight[:, :8] = 127 * np.sign(weight[:, :3].T), weight[:, :1]
    case = unscaled(scheme, x, weight)
    np.testing.assert_array_equal(case.run(instructions), x.astype(np.int64) @ weight)


@by_each
@pytest.mark.parametrize("scheme", PACKED)
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_extreme_scales(instructions: InstructionSet, scheme: str, rows: int, size: float) -> None:
    """Tiny and huge weights, and activations whose product with them is of ordinary size."""
    case = random_case(scheme, rows, 96, 40)
    assert case.quantized.row_scales is not None
    scaled = replace(
        case,
        x_scales=case.x_scales / np.float32(size),
        quantized=replace(case.quantized, row_scales=case.quantized.row_scales * np.float32(size)),
    )
    scaled.check(scaled.run(instructions))


@by_each
@pytest.mark.parametrize("scheme", SCHEME_NAMES)
def test_groups_of_zeros(instructions: InstructionSet, scheme: str) -> None:
    case = random_case(scheme, 3, 96, 40)
    case.x[:, 32:64] = 0
    case.quantized.integers[:, 64:] = 0
    case.quantized.scales[20:, 1] = 0
    case.check(case.run(instructions))


@pytest.mark.parametrize("scheme", SCHEME_NAMES)
def test_definition(scheme: str) -> None:
    case = random_case(scheme, 2, 72, 20)
    np.testing.assert_allclose(case.run(None), case.run(plain.INSTRUCTIONS), rtol=1e-5, atol=3e-5)
