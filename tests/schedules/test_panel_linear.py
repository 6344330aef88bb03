"""The CPU kernels over 8-bit activations, by every instruction set of this CPU, against NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.compile.pipeline import tensor_functions
from mvlm.compile.targets import host_target
from mvlm.models import ops
from mvlm.models.panels import panel_shapes, panel_zero, to_panels
from mvlm.models.quantization import SCHEMES, integers_of, quantize
from mvlm.schedules.cpu.features import cpu_features
from mvlm.schedules.cpu.instructions import INSTRUCTION_SETS, InstructionSet, plain
from mvlm.schedules.cpu.panel_linear import panel_linear
from tests.kernels import Array, Spec, build, compiled, kernel, trace
from tests.oracles import int8_linear, quantize_rows

EPS = float(np.finfo(np.float32).eps)
SCHEME_NAMES = ("q8a8", "q4a8")
HERE = [
    instructions
    for instructions in INSTRUCTION_SETS
    if cpu_features(host_target().tvm).issuperset(instructions.features)
]
by_each = pytest.mark.parametrize("instructions", HERE, ids=lambda known: known.name)


@dataclass(frozen=True)
class Case:
    """A multiplication: integers of both sides, their scales, and the panels."""

    scheme: str
    x: Array
    x_scales: Array
    weight: Array
    scales: Array

    @property
    def inputs(self) -> list[Array]:
        """What a kernel takes."""
        storage = SCHEMES[self.scheme].weights
        width, groups = self.x.shape[1], self.x_scales.shape[1]
        x = np.zeros((len(self.x), 32 * groups), np.int8)
        x[:, :width] = self.x
        sums = x.reshape(len(x), groups, 32).astype(np.int32).sum(-1, dtype=np.int32)
        offsets = np.int32(-panel_zero(storage)) * sums
        return [x, self.x_scales, offsets, *to_panels(self.weight.T, self.scales.T, storage)]

    def run(self, instructions: InstructionSet | None) -> Array:
        """By a set's kernel, or by the definition with None."""
        features = self.weight.shape[1]
        meaning = definitions(self.scheme, len(self.x), self.x.shape[1], features)[1]
        function = meaning if instructions is None else panel_linear(meaning, instructions)
        return compiled(function)(self.inputs, (len(self.x), features))

    def check(self, found: Array) -> None:
        """Within a group sums are exact; what is left is the rounding of adding the groups."""
        expected = int8_linear(self.x, self.x_scales, self.weight, self.scales)
        sizes = [np.abs(self.x.astype(np.int32)), np.abs(self.weight), np.abs(self.scales)]
        largest = int8_linear(sizes[0], self.x_scales, sizes[1], sizes[2])
        assert (np.abs(found - expected) <= (len(self.scales) + 3) * EPS * largest).all()


def definitions(scheme: str, rows: int, width: int, features: int) -> tuple[object, object]:
    """What quantizes the activations, and what multiplies them."""
    panels, scales = panel_shapes(width, features, SCHEMES[scheme].weights)
    specs: list[Spec] = [
        ((1, 1 if rows == 1 else "n", width), "float32"),
        (panels, "uint8"),
        (scales, "float16"),
    ]
    module = trace(lambda x, w, s: ops.linear(x, (w, s), features, SCHEMES[scheme]), specs)
    found = {str(f.attrs["mvlm.op"]): f for _, f in tensor_functions(module)}
    return found["quantize_rows"], found["panel_linear"]


def random_case(scheme: str, rows: int, width: int, features: int, seed: int = 0) -> Case:
    random, storage = np.random.default_rng(seed), SCHEMES[scheme].weights
    matrix = random.standard_normal((features, width), np.float32)
    elements, scales = quantize(matrix, storage, "search")
    x, x_scales = quantize_rows(random.standard_normal((rows, width), np.float32) * 5)
    weight = integers_of(elements, storage)[:, :width]
    return Case(scheme, x, x_scales, weight.T, scales.T)


@by_each
@pytest.mark.parametrize("scheme", SCHEME_NAMES)
@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize(("width", "features"), [(1, 1), (32, 16), (33, 40), (100, 128)])
def test_shapes(
    instructions: InstructionSet, scheme: str, rows: int, width: int, features: int
) -> None:
    case = random_case(scheme, rows, width, features)
    case.check(case.run(instructions))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    instructions=st.sampled_from(HERE),
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
@pytest.mark.parametrize("x", [127, -127])
@pytest.mark.parametrize("end", [0, -1], ids=["lowest", "highest"])
def test_saturated_values(instructions: InstructionSet, scheme: str, x: int, end: int) -> None:
    """Every product as large as it gets, and all of one sign: nothing overflows on the way."""
    storage = SCHEMES[scheme].weights
    level = (storage.lowest, storage.highest)[end]
    ones = np.ones((2, 16), np.float16)
    whole = Case(
        scheme,
        np.full((3, 64), x, np.int8),
        np.ones((3, 2), np.float32),
        np.full((64, 16), level),
        ones,
    )
    np.testing.assert_array_equal(whole.run(instructions), np.full((3, 16), 64.0 * x * level))


@by_each
def test_alternating_extremes(instructions: InstructionSet) -> None:
    """Pairs of products that cancel in one half and add up in the other."""
    weight = np.tile([[-127], [127], [127], [-127]], (16, 16))
    x = np.tile(np.array([-127, 127, -127, -127], np.int8), (2, 16))
    ones = np.ones((2, 16), np.float16)
    case = Case("q8a8", x, np.ones((2, 2), np.float32), weight, ones)
    np.testing.assert_array_equal(case.run(instructions), x.astype(float) @ weight)


@by_each
@pytest.mark.parametrize("scheme", SCHEME_NAMES)
def test_groups_of_zeros(instructions: InstructionSet, scheme: str) -> None:
    case = random_case(scheme, 3, 96, 16)
    case.x[:, 32:64] = 0
    case.weight[64:] = 0
    case.check(case.run(instructions))


@pytest.mark.parametrize("scheme", SCHEME_NAMES)
def test_definition(scheme: str) -> None:
    case = random_case(scheme, 2, 72, 20)
    np.testing.assert_allclose(case.run(None), case.run(plain.INSTRUCTIONS), atol=3e-5)


@pytest.mark.parametrize("scheme", SCHEME_NAMES)
@pytest.mark.parametrize("width", [1, 32, 33, 320])
@pytest.mark.parametrize("rows", [1, 7])
def test_quantizing_rows(scheme: str, width: int, rows: int) -> None:
    """By kernel where the groups are whole, by definition where not; zeros, tiny and huge rows."""
    x = np.random.default_rng(width).standard_normal((rows, width), np.float32)
    x[0] *= np.float32(1e30)
    x[-1, : width // 2] = 0
    x[rows // 2] *= np.float32(1e-35) if rows > 1 else np.float32(1)
    integers, scales, offsets = quantized(scheme, x)
    expected, expected_scales = quantize_rows(x)
    np.testing.assert_array_equal(integers[:, :width], expected)
    np.testing.assert_array_equal(integers[:, width:], 0)
    np.testing.assert_allclose(scales, expected_scales, rtol=2e-7)
    zero = panel_zero(SCHEMES[scheme].weights)
    sums = integers.reshape(rows, -1, 32).astype(np.int64).sum(-1)
    np.testing.assert_array_equal(offsets, -zero * sums)


def quantized(scheme: str, x: Array) -> list[Array]:
    rows, width = x.shape
    meaning = definitions(scheme, rows, width, 16)[0]
    groups = -(-width // 32)
    outs = [
        tvm.runtime.tensor(np.full((rows, count), 99, dtype))
        for count, dtype in ((32 * groups, np.int8), (groups, np.float32), (groups, np.int32))
    ]
    build(kernel(meaning) if width % 32 == 0 else meaning)(tvm.runtime.tensor(x), *outs)
    return [out.numpy() for out in outs]
