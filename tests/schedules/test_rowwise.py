"""Functions of rows, alone and with quantizing after them, against NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx

from mvlm.compile.pipeline import tensor_functions
from mvlm.models.ops.rowwise import PROLOGUES, Prologue, quantize_rows, rowwise
from mvlm.models.quantization import QMAX
from mvlm.schedules.cpu.kernels import KERNELS
from mvlm.schedules.oracles.arithmetic import quantize_rows as quantized_rows
from mvlm.schedules.oracles.rowwise import rowwise as expected_rowwise
from tests.device import cached, device
from tests.kernels import Array, build, compiled, definition, kernel, run, trace

EPS = 1e-5
NAMES = tuple(PROLOGUES)
WEIGHTS = {"rms_norm": 1, "layer_norm": 2}
by_each = pytest.mark.parametrize("name", NAMES)


def oracle(name: str, x: Array, *weights: Array) -> Array:
    """The function in float64."""
    return expected_rowwise(name, EPS, x, *weights)


def inputs(name: str, rows: int, width: int, seed: int = 0, size: float = 3) -> list[Array]:
    random = np.random.default_rng(seed)
    across = 2 * width if name == "silu_product" else width
    x = random.standard_normal((rows, across), np.float32) * np.float32(size)
    return [x] + [random.standard_normal(width, np.float32) for _ in range(WEIGHTS.get(name, 0))]


def alone(name: str, arrays: list[Array]) -> tirx.PrimFunc:
    """The definition of a function that is not followed by quantizing."""
    rows = 1 if len(arrays[0]) == 1 else "n"
    specs = [((rows, arrays[0].shape[1]), "float32")]
    specs += [(array.shape, "float32") for array in arrays[1:]]
    return definition(lambda x, *w: rowwise(x, Prologue(name, w, EPS)), specs)


@cached
def compiled_alone(
    name: str, is_one_row: bool, across: int, *widths: int
) -> Callable[[Sequence[Array], tuple[int, ...]], Array]:
    """The kernel of a definition, compiled once for a width, and for one row or any number."""
    x = np.empty((1 if is_one_row else 2, across), np.float32)
    return compiled(kernel(alone(name, [x, *map(np.empty, widths)])))


def run_alone(name: str, arrays: list[Array], shape: tuple[int, ...]) -> Array:
    """What the kernel makes of arrays."""
    call = compiled_alone(name, len(arrays[0]) == 1, *(array.shape[-1] for array in arrays))
    found: Array = call(arrays, shape)
    return found


def followed(
    name: str, arrays: list[Array], dtype: str, zero: int, groups_per_scale: int = 1
) -> tirx.PrimFunc:
    rows = 1 if len(arrays[0]) == 1 else "n"
    specs = [((rows, arrays[0].shape[1]), "float32")]
    specs += [(array.shape, "float32") for array in arrays[1:]]
    module = trace(
        lambda x, *w: quantize_rows(x, Prologue(name, w, EPS), dtype, zero, groups_per_scale)[0],
        specs,
    )
    ((_, function),) = tensor_functions(module)
    return function


def check(name: str, arrays: list[Array], found: Array) -> None:
    """Within float32's rounding of the largest number on the way."""
    expected = oracle(name, *arrays)
    size = np.abs(arrays[0]).max(-1, keepdims=True).astype(np.float64)
    if name in WEIGHTS:
        size = 1 + size / np.sqrt(np.var(arrays[0], -1, keepdims=True) + EPS)
        size = size * np.abs(arrays[1]).max() + (np.abs(arrays[-1]).max())
    elif name == "silu_product":
        size = size * size
    assert (np.abs(found - expected) <= 1e-6 * size + 1e-30).all()


@by_each
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("width", [1, 7, 32, 96, 200])
def test_alone(name: str, rows: int, width: int) -> None:
    arrays = inputs(name, rows, width)
    check(name, arrays, run_alone(name, arrays, (rows, width)))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(NAMES),
    rows=st.integers(1, 9),
    width=st.integers(1, 300),
    size=st.sampled_from([1e-6, 0.1, 10, 1e3]),
    seed=st.integers(0, 99),
)
def test_random_shapes(name: str, rows: int, width: int, size: float, seed: int) -> None:
    arrays = inputs(name, rows, width, seed, size)
    check(name, arrays, run_alone(name, arrays, (rows, width)))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "identity"])
def test_definitions(name: str) -> None:
    arrays = inputs(name, 3, 50)
    check(name, arrays, run(alone(name, arrays), arrays, (3, 50)))


@by_each
def test_far_from_zero(name: str) -> None:
    """A mean that hides the variance, and arguments where the exponential under- and overflows."""
    arrays = inputs(name, 3, 64)
    arrays[0][0] += 100
    arrays[0][1] *= 100
    arrays[0][2, ::2] = -300
    check(name, arrays, run_alone(name, arrays, (3, 64)))


@pytest.mark.parametrize("name", ["gelu", "quick_gelu"])
def test_activations(name: str) -> None:
    """Everywhere, and tightly enough to tell the erf GELU from the tanh one."""
    x = np.linspace(-100, 100, 20_001, dtype=np.float32)[None]
    found = run_alone(name, [x], x.shape)
    np.testing.assert_allclose(found, oracle(name, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["gelu", "quick_gelu", "silu_product"])
def test_huge_values_are_finite(name: str) -> None:
    x = np.array([[-1e18, -1e4, -100, 0, 0, 100, 1e4, 1e18]], np.float32)
    shape = (1, 4) if name == "silu_product" else x.shape
    found = run_alone(name, [x], shape)
    np.testing.assert_allclose(found, oracle(name, x), rtol=1e-6, atol=1e-30)


@by_each
def test_zeros(name: str) -> None:
    arrays = inputs(name, 2, 32)
    arrays[0][:] = 0
    found = run_alone(name, arrays, (2, 32))
    assert (found == (arrays[2] if name == "layer_norm" else 0)).all()


def quantizing() -> list[pytest.ParameterSet]:
    """Return functions, roundings, widths and rows.

    Function and rounding are two parts of a kernel, which meet at the row. So by default each
    function meets each rounding, of one row by the kernel and of several by the definition or the
    other way round; all functions have less than a group once.
    """
    roundings = [("int8", 16), ("int8", 128), ("int16", 0)]
    cases = []
    for (i, name), (j, rounding) in itertools.product(enumerate(NAMES), enumerate(roundings)):
        for width, (k, rows) in itertools.product((1, 33, 32, 320), enumerate((1, 7))):
            by_kernel = width == 32 and (i + j + k) % 2 == 0
            by_definition = width == 33 and (i + j + k) % 2 == 1
            is_default = by_kernel or by_definition or (width == 1 and (i % 3, i % 2) == (j, k))
            marks = () if is_default else pytest.mark.extended
            cases.append(pytest.param(name, *rounding, width, rows, marks=marks))
    return cases


@pytest.mark.parametrize(("name", "dtype", "zero", "width", "rows"), quantizing())
def test_followed_by_quantizing(name: str, dtype: str, zero: int, width: int, rows: int) -> None:
    """By kernel where the groups are whole, by definition where not."""
    arrays = inputs(name, rows, width, width)
    check_quantized(name, arrays, dtype, zero)


@pytest.mark.extended
@by_each
@pytest.mark.parametrize("width", [32, 96, 100, 512, 608, 768])
@pytest.mark.parametrize("rows", [1, 3])
def test_groups_that_share_a_scale(name: str, width: int, rows: int) -> None:
    check_quantized(name, inputs(name, rows, width, width), "int8", 16, groups_per_scale=8)


@by_each
@pytest.mark.parametrize("width", [1, 8, 16, 17, 31, 33, 48, 63])
def test_no_kernel_quantizes_part_of_a_group(name: str, width: int) -> None:
    """Not even where both halves of SwiGLU's input fill a group together."""
    reference = followed(name, inputs(name, 3, width), "int8", 16)
    with device().target:
        assert KERNELS.lower(reference) is None


def test_half_a_group_behind_swiglu() -> None:
    check_quantized("silu_product", inputs("silu_product", 3, 16), "int8", 16)


@pytest.mark.parametrize("groups_per_scale", [1, 5])
@pytest.mark.parametrize(("dtype", "zero"), [("int8", 16), ("int16", 0)])
def test_quantizing_tiny_and_huge_rows(dtype: str, zero: int, groups_per_scale: int) -> None:
    arrays = inputs("identity", 7, 320)
    arrays[0][0] *= np.float32(1e30)
    arrays[0][3] *= np.float32(1e-35)
    arrays[0][-1, :160] = 0
    check_quantized("identity", arrays, dtype, zero, groups_per_scale)


def check_quantized(
    name: str, arrays: list[Array], dtype: str, zero: int, groups_per_scale: int = 1
) -> None:
    """Exactly what the oracle makes of the function's own float32 values."""
    rows, width = len(arrays[0]), oracle(name, *arrays).shape[1]
    groups = -(-width // 32)
    values = run_alone(name, arrays, (rows, width))
    expected, expected_scales = quantized_rows(values, dtype, groups_per_scale)
    reference = followed(name, arrays, dtype, zero, groups_per_scale)
    outs = [np.full((rows, 32 * groups), 99, dtype), np.full_like(expected_scales, 9)]
    outs += [np.full((rows, groups), 99, np.int32)] if zero else []
    if zero == 16:  # that of levels
        outs += [np.full((rows, groups, 2), 99, np.int16), np.full((rows, groups), 9, np.float32)]
    tensors = [tvm.runtime.tensor(out) for out in outs]
    function = kernel(reference) if width % 32 == 0 else reference
    build(function)(*(tvm.runtime.tensor(array) for array in arrays), *tensors)
    integers, scales, *offsets = (tensor.numpy() for tensor in tensors)
    # The last bit of a value may differ between the two, and turn a tie of rounding over.
    slack = 0 if name == "identity" else 1
    assert np.abs(integers[:, :width].astype(int) - expected).max() <= slack
    assert (integers[:, :width] != expected).mean() <= 0.01
    np.testing.assert_array_equal(integers[:, width:], 0)
    # GELU is off by 2e-7 of its argument, which tells where the value itself is small.
    np.testing.assert_allclose(scales, expected_scales, rtol=2e-6, atol=1e-6 / QMAX[dtype])
    if zero:
        sums = integers.reshape(rows, -1, 32).astype(np.int64).sum(-1)
        np.testing.assert_array_equal(offsets[0], -128 * sums)
    assert len(offsets) == {0: 0, 16: 3, 128: 1}[zero]
    if zero == 16:
        halves = integers.reshape(rows, groups, 8, 4).astype(np.int32)
        np.testing.assert_array_equal(offsets[1][..., 0], -16 * halves[..., :2].sum((2, 3)))
        np.testing.assert_array_equal(offsets[1][..., 1], -16 * halves[..., 2:].sum((2, 3)))
        np.testing.assert_array_equal(offsets[2], 0.75 * sums)
