"""The CPU kernels of linear layers: against NumPy over awkward shapes and values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.models import ops
from mvlm.models.ops.linear import linear_signature
from mvlm.models.quantization import Q4MLC
from mvlm.schedules.cpu.float_linear import float_gemm, float_gemv
from mvlm.schedules.cpu.packed_linear import packed_linear
from mvlm.schedules.cpu.panels import interleave_panels
from mvlm.schedules.oracles.arithmetic import from_q4, linear
from tests.device import device
from tests.kernels import Array, Spec, compiled, definition, kernel
from tests.models.stored_rows import stored_rows
from tests.panels import FORMATS

F32 = np.finfo(np.float32)

# Compiling takes 0.2 s, so few shapes are drawn; the fixed ones cover what is known to be hard.
FLOAT = {"float32": FORMATS["q0f32"], "float16": FORMATS["q0f16"]}

FEW = settings(max_examples=8, deadline=None, derandomize=True)


def float_kernel(rows: int | str, width: int, features: int, storage: str) -> object:
    specs: list[Spec] = [((1, rows, width), "float32"), ((-(-features // 16), width, 16), storage)]
    return definition(lambda x, w: ops.linear(x, (w,), features, FLOAT[storage]), specs)


def q4_kernel(rows: int | str, width: int, features: int) -> object:
    specs: list[Spec] = [
        ((1, rows, width), "float32"),
        ((-(-features // 16), -(-width // 8), 16), "uint32"),
        ((-(-features // 16), -(-width // 32), 16), "float16"),
    ]
    scheme = FORMATS["q4f16_1"]
    return definition(lambda x, w, s: ops.linear(x, (w, s), features, scheme), specs)


def bound(x: Array, weight: Array) -> Array:
    """How far a float32 sum may be off: K roundings of the sum of the terms' sizes."""
    sizes = np.abs(x).astype(np.float64) @ np.abs(weight).astype(np.float64)
    return (x.shape[1] + 2) * float(F32.eps) * sizes + float(F32.tiny)


def check(found: Array, x: Array, weight: Array) -> None:
    assert (np.abs(found - linear(x, weight)) <= bound(x, weight)).all()


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize(
    ("width", "features"),
    [(1, 1), (1, 64), (3, 7), (8, 16), (31, 24), (33, 48), (40, 66), (64, 128), (100, 96)],
)
def test_float_weights_of_any_shape(storage: str, width: int, features: int) -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((width, features), np.float32).astype(storage)
    call = compiled(kernel(float_kernel("n", width, features, storage)))
    for rows in (1, 2, 5, 6, 7, 13):
        x = random.standard_normal((rows, width), np.float32)
        check(call([x, interleave_panels(weight.T)], (rows, features)), x, weight)


@pytest.mark.parametrize(
    ("width", "features"),
    [(1, 1), (7, 3), (8, 64), (9, 16), (32, 24), (33, 48), (40, 66), (63, 128), (96, 7)],
)
def test_q4_weights_of_any_shape(width: int, features: int) -> None:
    random = np.random.default_rng(1)
    words, scales = stored_rows(random.standard_normal((features, width), np.float32), Q4MLC)
    weight = from_q4(words, scales, width).T
    call = compiled(kernel(q4_kernel("n", width, features)))
    for rows in (1, 2, 5, 6, 7, 13):
        x = random.standard_normal((rows, width), np.float32)
        check(
            call([x, interleave_panels(words), interleave_panels(scales)], (rows, features)),
            x,
            weight,
        )


@pytest.mark.parametrize("rows", [1, 2, 6, 7])
@pytest.mark.parametrize("features", [1, 24, 64, 128])
def test_known_row_counts(rows: int, features: int) -> None:
    """A single row takes other tiles than many."""
    random = np.random.default_rng(2)
    x = random.standard_normal((rows, 40), np.float32)
    weight = random.standard_normal((40, features), np.float32)
    call = compiled(kernel(float_kernel(rows, 40, features, "float32")))
    check(call([x, interleave_panels(weight.T)], (rows, features)), x, weight)
    words, scales = stored_rows(weight.T.copy(), Q4MLC)
    call = compiled(kernel(q4_kernel(rows, 40, features)))
    found = call([x, interleave_panels(words), interleave_panels(scales)], (rows, features))
    check(found, x, from_q4(words, scales, 40).T)


@FEW
@given(
    rows=st.integers(1, 20),
    width=st.integers(1, 80),
    features=st.integers(1, 80),
    seed=st.integers(0, 99),
)
def test_random_shapes(rows: int, width: int, features: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, width), np.float32)
    words, scales = stored_rows(random.standard_normal((features, width), np.float32), Q4MLC)
    weight = from_q4(words, scales, width).T
    found = compiled(kernel(q4_kernel("n", width, features)))(
        [x, interleave_panels(words), interleave_panels(scales)], (rows, features)
    )
    check(found, x, weight)
    found = compiled(kernel(float_kernel("n", width, features, "float32")))(
        [x, interleave_panels(weight.T)], (rows, features)
    )
    check(found, x, weight)


@pytest.mark.parametrize("rows", [1, "n"])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_extreme_scales(rows: int | str, scale: float) -> None:
    """Sizes whose products stay within float32, on either side of one."""
    random = np.random.default_rng(3)
    x = random.standard_normal((1, 48), np.float32) * np.float32(scale)
    weight = random.standard_normal((48, 32), np.float32)
    found = compiled(kernel(float_kernel(rows, 48, 32, "float32")))(
        [x, interleave_panels(weight.T)], (1, 32)
    )
    assert np.isfinite(found).all()
    check(found, x, weight)
    words, scales = stored_rows(weight.T.copy(), Q4MLC)
    found = compiled(kernel(q4_kernel(rows, 48, 32)))(
        [x, interleave_panels(words), interleave_panels(scales)], (1, 32)
    )
    check(found, x, from_q4(words, scales, 48).T)


def extreme_weights(name: str) -> npt.NDArray[np.float32]:
    """``(16, 64)``: 16 rows of two groups."""
    weight = np.random.default_rng(4).standard_normal((16, 64), np.float32)
    if name == "groups of zeros":
        weight[:, :32] = 0
    elif name == "all zero":
        weight[:] = 0
    elif name == "one large value":
        weight *= 1e-4
        weight[:, 5] = 6e4
    elif name == "beyond float16":
        weight *= 1e6
    elif name == "denormal scales":
        weight *= 1e-6
    return weight


@pytest.mark.parametrize(
    "name", ["groups of zeros", "all zero", "one large value", "beyond float16", "denormal scales"]
)
@pytest.mark.parametrize("rows", [1, "n"])
def test_extreme_weights(name: str, rows: int | str) -> None:
    words, scales = stored_rows(extreme_weights(name), Q4MLC)
    x = np.random.default_rng(5).standard_normal((1, 64), np.float32)
    found = compiled(kernel(q4_kernel(rows, 64, 16)))(
        [x, interleave_panels(words), interleave_panels(scales)], (1, 16)
    )
    assert np.isfinite(found).all()
    check(found, x, from_q4(words, scales, 64).T)


@pytest.mark.parametrize("nibble", [0, 7, 14, 15])
def test_every_nibble_saturated(nibble: int) -> None:
    """15 is never written, and means 8 steps all the same."""
    words = np.full((8, 16), int(f"{nibble:x}" * 8, 16), np.uint32)
    scales = np.full((2, 16), np.float16(65504))
    x = np.ones((3, 64), np.float32)
    found = compiled(kernel(q4_kernel("n", 64, 16)))(
        [x, interleave_panels(words.T), interleave_panels(scales.T)], (3, 16)
    )
    np.testing.assert_array_equal(found, np.full((3, 16), 64 * (nibble - 7) * 65504.0))


@pytest.mark.parametrize("rows", [1, "n"])
def test_kernel_and_definition_agree(rows: int | str) -> None:
    random = np.random.default_rng(6)
    x = random.standard_normal((1, 72), np.float32)
    words, scales = stored_rows(random.standard_normal((48, 72), np.float32), Q4MLC)
    reference = q4_kernel(rows, 72, 48)
    inputs = [x, interleave_panels(words), interleave_panels(scales)]
    slow, fast = (compiled(f)(inputs, (1, 48)) for f in (reference, kernel(reference)))
    np.testing.assert_allclose(fast, slow, atol=2e-5)


def test_nan_spreads_to_its_row_only() -> None:
    """The tile repeats its last row where rows are short; that must not leak into others."""
    x = np.ones((7, 16), np.float32)
    x[3, 2] = np.nan
    weight = np.ones((16, 16), np.float32)
    found = compiled(kernel(float_kernel("n", 16, 16, "float32")))(
        [x, interleave_panels(weight.T)], (7, 16)
    )
    assert np.isnan(found[3]).all()
    assert np.isfinite(np.delete(found, 3, axis=0)).all()


def test_each_kernel_serves_its_own_weights_only() -> None:
    kernels = (float_gemv, float_gemm, packed_linear)
    with device().target:
        served = {
            (scheme, rows): [
                build(linear_signature(FORMATS[scheme], rows, 8, 8)) is not None
                for build in kernels
            ]
            for scheme in ("q0f32", "q4f16_1")
            for rows in (1, None)
        }
    assert served == {
        ("q0f32", 1): [True, True, False],  # the first is taken
        ("q0f32", None): [False, True, False],
        ("q4f16_1", 1): [False, False, True],
        ("q4f16_1", None): [False, False, True],
    }
