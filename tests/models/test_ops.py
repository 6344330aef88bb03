"""The definitions of the heavy operations, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from mvlm.models import ops
from mvlm.models.layers import Linear, TiedEmbedding
from mvlm.models.ops.signatures import EmbeddingSignature
from mvlm.models.quantization import (
    Q3NL,
    Q4MLC,
    Q4NL,
    SCHEMES,
    Scheme,
    WeightFormat,
    dequantize,
    quantize,
)
from mvlm.models.weight_layout import LinearFormat, WeightLayout
from mvlm.schedules.cpu.panels import interleave_panels
from mvlm.schedules.oracles.arithmetic import attention, depthwise_convolution, from_q4, linear
from mvlm.schedules.registry import find_layout, kernel_set_names
from tests.kernels import Spec, definition, run
from tests.models.stored_rows import read_rows, stored_rows
from tests.panels import FORMATS

# Sums of float32 products in another order differ by a few units in the last place of the
# largest partial sum; the inputs below keep those sums near ten.
TOLERANCE = 1e-5
LAYOUTS = {layout.name: layout for layout in map(find_layout, kernel_set_names())}
FLOAT = {"float32": FORMATS["q0f32"], "float16": FORMATS["q0f16"]}


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("rows", [1, 5, "n"])
def test_linear(storage: str, rows: int | str) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((3 if rows == "n" else int(rows), 41), np.float32)
    weight = random.standard_normal((41, 7), np.float32).astype(storage)
    specs: list[Spec] = [((1, rows, 41), "float32"), ((1, 41, 16), storage)]
    function = definition(lambda x, w: ops.linear(x, (w,), 7, FLOAT[storage]), specs)
    assert function.attrs["mvlm.op"] == "linear"
    found = run(function, [x, interleave_panels(weight.T)], (len(x), 7))
    np.testing.assert_allclose(found, linear(x, weight), atol=TOLERANCE)


@pytest.mark.parametrize("width", [1, 8, 31, 33, 64])
def test_q4_linear(width: int) -> None:
    random = np.random.default_rng(1)
    x = random.standard_normal((2, width), np.float32)
    words, scales = stored_rows(random.standard_normal((5, width), np.float32), Q4MLC)
    specs: list[Spec] = [
        ((1, "n", width), "float32"),
        ((1, words.shape[1], 16), "uint32"),
        ((1, scales.shape[1], 16), "float16"),
    ]
    function = definition(lambda x, w, s: ops.linear(x, (w, s), 5, FORMATS["q4f16_1"]), specs)
    found = run(function, [x, interleave_panels(words), interleave_panels(scales)], (2, 5))
    np.testing.assert_allclose(found, linear(x, from_q4(words, scales, width).T), atol=TOLERANCE)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_embedding(storage: str) -> None:
    table = np.random.default_rng(2).standard_normal((9, 6), np.float32).astype(storage)
    ids = np.array([8, 0, 3, 3], np.int32)
    function = definition(
        lambda i, t: ops.embedding(i, (t,), EmbeddingSignature(None, 9, 6, storage)),
        [((1, "n"), "int32"), ((9, 6), storage)],
    )
    np.testing.assert_array_equal(run(function, [ids, table], (4, 6)), table[ids])


@pytest.mark.parametrize("width", [6, 32, 36, 40])
def test_q4_embedding(width: int) -> None:
    words, scales = stored_rows(
        np.random.default_rng(3).standard_normal((9, width), np.float32) * 0.02, Q4MLC
    )
    ids = np.array([8, 0, 3, 3], np.int32)
    specs: list[Spec] = [((1, "n"), "int32"), (words.shape, "uint32"), (scales.shape, "float16")]
    op = EmbeddingSignature(None, 9, width, "q4mlc")
    function = definition(lambda i, w, s: ops.embedding(i, (w, s), op), specs)
    found = run(function, [ids, words, scales], (4, width))
    np.testing.assert_array_equal(found, from_q4(words, scales, width)[ids])


@pytest.mark.parametrize("weight_format", [Q4NL, Q3NL], ids=["q4nl", "q3nl"])
@pytest.mark.parametrize("width", [6, 32, 57, 96])
def test_embedding_of_uneven_levels(weight_format: WeightFormat, width: int) -> None:
    table = np.random.default_rng(5).standard_normal((9, width), np.float32) * 0.02
    arrays = stored_rows(table, weight_format, "search")
    ids = np.array([8, 0, 3, 3], np.int32)
    specs: list[Spec] = [((1, "n"), "int32"), *((each.shape, str(each.dtype)) for each in arrays)]
    op = EmbeddingSignature(None, 9, width, weight_format.name)
    function = definition(lambda i, *t: ops.embedding(i, t, op), specs)
    found = run(function, [ids, *arrays], (4, width))
    words, scales, *tables = arrays
    expected = read_rows(words, scales, weight_format, width, *tables)
    np.testing.assert_array_equal(found, expected[ids])
    np.testing.assert_allclose(found, table[ids], atol=0.02)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("width", [57, 96])
def test_embedding_in_the_matrix_of_an_output_head(
    layout: WeightLayout, scheme: Scheme, width: int
) -> None:
    """Rows of the first and of the last panel, which is not full."""
    table = np.random.default_rng(6).standard_normal((41, width), np.float32) * 0.02
    op = TiedEmbedding(
        Linear(("table",), width, 41, LinearFormat(scheme, layout), bias=False)
    ).table
    if scheme.weights.is_integer:
        expected = dequantize(quantize(table, scheme.weights, scheme.rounding), scheme.weights)
    else:
        expected = table = table.astype(scheme.weights.dtype)
    arrays = layout.pack(table, op.matrix, scheme.rounding)
    specs: list[Spec] = [((1, "n"), "int32"), *((each.shape, str(each.dtype)) for each in arrays)]
    ids = np.array([40, 0, 3, 3, 15, 16], np.int32)
    found = run(
        definition(lambda i, *t: ops.embedding(i, t, op), specs), [ids, *arrays], (6, width)
    )
    np.testing.assert_array_equal(found, expected[ids])


@pytest.mark.parametrize(("length", "heads", "head_dim"), [(1, 1, 2), (7, 2, 6), (17, 3, 8)])
def test_attention(length: int, heads: int, head_dim: int) -> None:
    qkv = np.random.default_rng(4).standard_normal((length, 3 * heads * head_dim), np.float32)
    function = definition(lambda x: ops.attention(x, heads), [((1, *qkv.shape), "float32")])
    found = run(function, [qkv], (length, heads * head_dim))
    np.testing.assert_allclose(found, attention(qkv, heads), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("grid", "stride"), [(1, 1), (1, 2), (2, 2), (4, 1), (5, 2), (6, 2), (7, 1)]
)
def test_depthwise_convolution(grid: int, stride: int) -> None:
    random = np.random.default_rng(5)
    x = random.standard_normal((grid, grid, 5), np.float32)
    taps = random.standard_normal((9, 5), np.float32)
    function = definition(
        lambda x, w: ops.depthwise_convolution(x, w, grid, stride),
        [((1, grid * grid, 5), "float32"), ((9, 5), "float32")],
    )
    expected = depthwise_convolution(x, taps, stride)
    found = run(function, [x, taps], expected.shape)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
