"""The default rule, on whole pipelines of operators: what it schedules computes the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from tvm.relax.frontend import nn
from tvm.script import tirx as T

from mvlm.models import ops
from mvlm.models.layers import ACTIVATIONS, LayerNorm, Linear, TiedEmbedding
from mvlm.models.ops.signatures import EmbeddingSignature
from mvlm.models.quantization import Q3NL, Q4MLC, dequantize, quantize
from mvlm.models.weight_layout import ROWS
from mvlm.schedules.cpu.panels import PANELS
from mvlm.schedules.default import default_schedule
from mvlm.schedules.kernel_set import KernelSet
from mvlm.schedules.oracles.arithmetic import depthwise_convolution, from_q4
from tests.kernels import Array, Spec, compiled, definition, run_graph
from tests.models.stored_rows import stored_rows
from tests.panels import FORMATS

Compute = Callable[..., nn.Tensor]


def layer_norm(width: int) -> Compute:
    """The models' own layer, with weights that are arguments."""

    def normalized(x: nn.Tensor, weight: nn.Tensor, bias: nn.Tensor) -> nn.Tensor:
        layer = LayerNorm("n", width, 1e-5)
        layer.weight, layer.bias = weight, bias
        return layer(x)

    return normalized


def torch_of(function: Callable[[torch.Tensor], torch.Tensor], x: Array) -> Array:
    return function(torch.from_numpy(x).double()).numpy()


@pytest.mark.parametrize("width", [8, 30, 33, 2048])
@pytest.mark.parametrize("length", [1, 3, 64])
def test_normalizations(width: int, length: int) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((1, length, width), np.float32)
    weight, bias = random.standard_normal((2, width), np.float32)
    vector: Spec = ((width,), "float32")
    rows: Spec = ((1, "n", width), "float32")
    found = run_graph(
        lambda x, w: nn.op.rms_norm(x, w, axes=-1, epsilon=1e-6), [rows, vector], x, weight
    )
    expected = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-6) * weight
    np.testing.assert_allclose(found, expected, atol=2e-5)

    found = run_graph(
        layer_norm(width),
        [rows, vector, vector],
        x,
        weight,
        bias,
    )
    centred = x - x.mean(-1, keepdims=True, dtype=np.float64)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found, centred / deviation * weight + bias, atol=2e-5)


@pytest.mark.parametrize("offset", [0.0, 30.0, 1000.0])
def test_layer_norm_of_values_far_from_zero(offset: float) -> None:
    """Features of CLIP have channels of 30 and more; mean of squares minus square loses digits."""
    x = np.random.default_rng(1).standard_normal((1, 5, 64), np.float32) + np.float32(offset)
    ones, zeros = np.ones(64, np.float32), np.zeros(64, np.float32)
    vector: Spec = ((64,), "float32")
    found = run_graph(
        layer_norm(64),
        [((1, "n", 64), "float32"), vector, vector],
        x,
        ones,
        zeros,
    )
    expected = torch_of(lambda x: F.layer_norm(x, (64,)), x)
    # The sum behind the mean is rounded to float32 after each term, and the mean itself.
    tolerance = 1e-6 + 1e-6 * offset
    np.testing.assert_allclose(found, expected, atol=tolerance)


IN_TORCH: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    x = np.linspace(-12, 12, 1003, dtype=np.float32)[None, None]
    x = np.concatenate([x, x * 8], axis=1)
    found = run_graph(ACTIVATIONS[name], [((1, "n", 1003), "float32")], x)
    np.testing.assert_allclose(found, torch_of(IN_TORCH[name], x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_huge_values_are_finite(name: str) -> None:
    x = np.array([[[-1e30, -1e4, -100, 0, 100, 1e4, 1e30]]], np.float32)
    found = run_graph(ACTIVATIONS[name], [((1, "n", 7), "float32")], x)
    np.testing.assert_allclose(found, torch_of(IN_TORCH[name], x), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("length", [1, 7, 64])
def test_softmax_split_and_broadcast(length: int) -> None:
    x = np.random.default_rng(2).standard_normal((1, length, 34), np.float32) * 30

    def compute(x: nn.Tensor) -> nn.Tensor:
        left, right = nn.op.split(nn.op.softmax(x, axis=-1), 2, axis=-1)
        return left * right + nn.op.sum(left, axis=-1, keepdims=True)

    found = run_graph(compute, [((1, "n", 34), "float32")], x)
    left, right = np.split(torch_of(lambda x: x.softmax(-1), x), 2, axis=-1)
    np.testing.assert_allclose(found, left * right + left.sum(-1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("width", [32, 40, 44])
def test_q4_embedding_is_scheduled_right(width: int) -> None:
    table = np.random.default_rng(3).standard_normal((50, width), np.float32)
    words, scales = stored_rows(table, Q4MLC)
    ids = np.array([[49, 0, 7, 7, 31]], np.int32)
    specs: list[Spec] = [((1, "n"), "int32"), (words.shape, "uint32"), (scales.shape, "float16")]
    op = EmbeddingSignature(None, 50, width, "q4mlc")
    found = run_graph(lambda i, w, s: ops.embedding(i, (w, s), op), specs, ids, words, scales)
    np.testing.assert_array_equal(found[0], from_q4(words, scales, width)[ids[0]])


def test_tied_embedding_is_scheduled_right() -> None:
    """Of 3 bits in panels, whose places are the most involved."""
    table = np.random.default_rng(3).standard_normal((50, 96), np.float32)
    op = TiedEmbedding(Linear(("table",), 96, 50, FORMATS["q3a8"], bias=False)).table
    arrays = PANELS.pack(table, op.matrix, "search")
    ids = np.array([[49, 0, 7, 7, 31]], np.int32)
    specs: list[Spec] = [((1, "n"), "int32"), *((each.shape, str(each.dtype)) for each in arrays)]
    found = run_graph(lambda i, *t: ops.embedding(i, t, op), specs, ids, *arrays)
    expected = dequantize(quantize(table, Q3NL, "search"), Q3NL)
    np.testing.assert_array_equal(found[0], expected[ids[0]])


@pytest.mark.parametrize(("grid", "stride", "channels"), [(1, 1, 8), (5, 2, 12), (24, 2, 96)])
def test_depthwise_convolution_is_scheduled_right(grid: int, stride: int, channels: int) -> None:
    random = np.random.default_rng(4)
    x = random.standard_normal((grid, grid, channels), np.float32)
    taps = random.standard_normal((9, channels), np.float32)
    reference = definition(
        lambda x, w: ops.depthwise_convolution(x, w, grid, stride),
        [((1, grid * grid, channels), "float32"), ((9, channels), "float32")],
    )
    scheduled = default_schedule(reference)
    assert scheduled is not None
    expected = depthwise_convolution(x, taps, stride)
    found = compiled(scheduled)([x, taps], expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_default_schedule_vectorizes_and_parallelizes_large_loops() -> None:
    @T.prim_func(private=True, s_tir=True)
    def doubled(x: T.Buffer((512, 128), "float32"), y: T.Buffer((512, 128), "float32")):  # type: ignore[valid-type]
        for i, j in T.grid(512, 128):
            with T.sblock("y"):
                a, b = T.axis.remap("SS", [i, j])
                y[a, b] = x[a, b] * T.float32(2)

    script = default_schedule(doubled).script()
    assert "T.parallel" in script
    assert "T.vectorized(8)" in script


def test_default_schedule_leaves_opaque_functions() -> None:
    @T.prim_func(private=True, s_tir=True)
    def opaque(x: T.Buffer((4,), "float32")):  # type: ignore[valid-type]
        for i in range(4):
            x[i] = T.float32(1)

    unscheduled: Any = KernelSet({}, (lambda function: None,), ROWS).schedule(opaque)
    tvm.ir.assert_structural_equal(unscheduled, opaque)
