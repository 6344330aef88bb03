"""Layers pack the tensors that they name into the parameters that they declare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tvm.relax.frontend import nn

from mvlm.models.checkpoint import expected_tensors
from mvlm.models.config.read import read_config
from mvlm.models.interchange.onnx_vision import pooling_matrix
from mvlm.models.layers import (
    DepthwiseConvolution,
    Embedding,
    LayerNorm,
    Linear,
    PackedLayer,
    RMSNorm,
    pack_parameters,
    packed_layers,
)
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.projectors.ldpnetv2 import pooled
from mvlm.models.quantization import Q4MLC, SCHEMES, plan_quantization
from mvlm.runtime.errors import CheckpointError
from mvlm.schedules.cpu.panels import PANELS
from tests.artifacts import ArtifactCache
from tests.kernels import run_graph
from tests.models.stored_rows import stored_rows
from tests.panels import FORMATS, from_panels
from tests.reference import FAMILIES

Array = npt.NDArray[Any]


def reader(tensors: dict[str, Array]) -> Callable[[str], Array]:
    return tensors.__getitem__


def packed(layer: PackedLayer, **tensors: Array) -> dict[str, Array]:
    named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    assert sorted(layer.sources()) == sorted(named)
    return dict(layer.pack(reader(named)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_parameters_are_complete(artifact_cache: ArtifactCache, family: str, scheme: str) -> None:
    """Every declared parameter is packed, in its shape and dtype, from every expected tensor."""
    config = read_config(artifact_cache.checkpoint(family))
    model = MobileVLM(config, plan_quantization(scheme), PANELS)
    shapes = expected_tensors(config)
    asked = set()

    def read(name: str) -> Array:
        asked.add(name)
        return np.ones(shapes[name], np.float32)

    declared = dict(model.state_dict())
    found = dict(pack_parameters(model, read))
    assert found.keys() == declared.keys()
    for name, value in found.items():
        assert value.shape == tuple(int(extent) for extent in declared[name].shape)
        assert str(value.dtype) == str(declared[name].dtype)
    assert asked == shapes.keys()
    sources = {name for _, layer in packed_layers(model) for name in layer.sources()}
    assert sources == asked


def test_linear_stacks() -> None:
    layer = Linear(("q", "k"), 3, 5, FORMATS["q0f32"], bias=True)
    q, k = np.arange(6, dtype=np.float16).reshape(2, 3), np.ones((3, 3), np.float16)
    found = packed(
        layer, q__weight=q, k__weight=k, q__bias=np.zeros(2, "f2"), k__bias=np.ones(3, "f2")
    )
    np.testing.assert_array_equal(from_panels(found["weight"], 5), np.concatenate([q, k]))
    assert found["weight"].dtype == np.float32
    assert found["bias"].tolist() == [0, 0, 1, 1, 1]


def test_linear_flattens_convolutions() -> None:
    layer = Linear(("patch",), 12, 4, FORMATS["q0f32"], bias=False)
    kernel = np.random.default_rng(0).standard_normal((4, 3, 2, 2), np.float32)
    found = packed(layer, patch__weight=kernel)["weight"]
    np.testing.assert_array_equal(from_panels(found, 4), kernel.reshape(4, 12))


def test_linear_quantizes_each_output_on_its_own() -> None:
    layer = Linear(("up",), 40, 3, FORMATS["q4f16_1"], bias=False)
    matrix = np.random.default_rng(1).standard_normal((3, 40), np.float32)
    found = packed(layer, up__weight=matrix)
    words, scales = stored_rows(matrix, Q4MLC)
    np.testing.assert_array_equal(from_panels(found["q_weight"], 3), words)
    np.testing.assert_array_equal(from_panels(found["q_scale"], 3), scales)


def test_embedding_keeps_its_orientation() -> None:
    table = np.random.default_rng(2).standard_normal((6, 40), np.float32)
    plain = Embedding("table", 6, 40, SCHEMES["q0f16"])
    np.testing.assert_array_equal(packed(plain, table=table)["weight"], table.astype(np.float16))
    small = packed(Embedding("table", 6, 40, SCHEMES["q4f16_1"]), table=table)
    assert small["q_weight"].shape == (6, 5)
    assert small["q_scale"].shape == (6, 2)


def test_norms_stay_in_float32() -> None:
    weight = np.linspace(0, 1, 4, dtype=np.float16)
    assert packed(RMSNorm("n", 4, 1e-6), n__weight=weight)["weight"].dtype == np.float32
    found = packed(LayerNorm("n", 4, 1e-5), n__weight=weight, n__bias=weight)
    np.testing.assert_array_equal(found["bias"], weight)


def test_depthwise_taps_come_row_by_row() -> None:
    kernel = np.random.default_rng(3).standard_normal((5, 1, 3, 3), np.float32)
    layer = DepthwiseConvolution("conv", 5, 4, bias=True)
    found = packed(layer, conv__weight=kernel, conv__bias=np.arange(5, dtype=np.float32))
    for row in range(3):
        for column in range(3):
            np.testing.assert_array_equal(
                found["weight"][3 * row + column], kernel[:, 0, row, column]
            )
    assert found["bias"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("scheme", ["q0f16", "q0f32"])
def test_weights_beyond_the_storage_are_refused(scheme: str) -> None:
    """70,000 is past float16's largest number; it must not become infinite without a word."""
    matrix = np.full((2, 4), 7e4, np.float32)
    linear = Linear(("up",), 4, 2, FORMATS[scheme], bias=False)
    table = Embedding("table", 2, 4, SCHEMES[scheme])
    if scheme == "q0f32":
        assert packed(linear, up__weight=matrix)["weight"].max() == 7e4
        return
    with pytest.raises(CheckpointError, match=r"up.*float16.*65504.*70000"):
        packed(linear, up__weight=matrix)
    with pytest.raises(CheckpointError, match=r"table.*float16"):
        packed(table, table=matrix)


@pytest.mark.parametrize(("grid", "out"), [(24, 12), (7, 12), (5, 2), (12, 12), (1, 12)])
def test_pooling_is_adaptive_average_pooling(grid: int, out: int) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(4).standard_normal((grid * grid, 3)).astype(np.float32)
    image = torch.from_numpy(x.T.reshape(1, 3, grid, grid).copy())
    expected = torch.nn.functional.adaptive_avg_pool2d(image, out).reshape(3, -1).T.numpy()
    np.testing.assert_allclose(pooling_matrix(grid, out) @ x, expected, atol=1e-6)
    found = run_graph(
        lambda tokens: nn.op.tensor_expr_op(lambda t: pooled(t, grid, out), "pool", [tokens]),
        [((1, *x.shape), "float32")],
        x[None],
    )
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_packing_takes_the_memory_of_about_one_layer(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    """Parameters come one at a time: a model larger than the memory can be packed."""
    config = read_config(artifact_cache.checkpoint("text"))
    model = MobileVLM(config, plan_quantization("q0f32"), PANELS)
    shapes = expected_tensors(config)
    reads: list[str] = []

    def read(name: str) -> Array:
        reads.append(name)
        return np.ones(shapes[name], np.float32)

    parameters = pack_parameters(model, read)
    next(parameters)
    assert len(reads) == 1
