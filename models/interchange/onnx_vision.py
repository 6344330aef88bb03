"""Writes tower and projector as one ONNX file, from pixels to the decoder's embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.checkpoint import Checkpoint
from mvlm.models.checkpoint.names import PROJECTOR_PREFIX, TOWER_PREFIX
from mvlm.models.config import ClipVisionConfig, MobileVLMConfig
from mvlm.models.interchange.onnx_graph import OnnxGraph
from mvlm.models.projectors.ldpnetv2 import POOLED_GRID
from mvlm.runtime.errors import UsageError

Array = npt.NDArray[Any]
Read = Callable[[str], Array]
Progress = Callable[[int], None]

TYPES = ("f32", "f16")
PIXELS, FEATURES, EMBEDDINGS = "pixel_values", "vision_features", "image_embeddings"

_NORM_EPS = 1e-5  # of the projector's LayerNorms


def write_onnx(
    config: MobileVLMConfig,
    checkpoint: Checkpoint,
    path: Path,
    *,
    kind: str = "f32",
    progress: Progress = lambda nbytes: None,
) -> None:
    """Write ``pixel_values (batch, 3, S, S)`` to ``image_embeddings (batch, tokens, hidden)``.

    ``vision_features (batch, patches, C)``, what the tower hands to the projector, is a second
    output. Weights are in `<path>.data`, which belongs to the file.

    Args:
        config: The model's, with a tower.
        checkpoint: Its tensors.
        path: The file.
        kind: `f32` or `f16`, of weights and activations.
        progress: Called with the bytes of each of the checkpoint's tensors that was written.

    Raises:
        UsageError: The type is unknown, or the package onnx is not installed.
    """
    if kind not in TYPES:
        raise UsageError("unknown type", expected=" or ".join(TYPES), found=repr(kind))
    vision, projector = config.vision, config.projector
    assert vision is not None and projector is not None, "a model of text only has no tower"

    def read(name: str) -> Array:
        progress(checkpoint.nbytes(name))
        return checkpoint.read(name).astype(np.float32)

    graph = OnnxGraph(path, "float32" if kind == "f32" else "float16")
    try:
        features = graph.rename(_tower(graph, config, vision, read), FEATURES)
        projected = PROJECTORS[projector.kind](graph, config, features, read)
        embeddings = graph.rename(projected, EMBEDDINGS)
        size = vision.image_size
        graph.save(
            {PIXELS: ("batch", 3, size, size)},
            {
                embeddings: ("batch", config.image_tokens, projector.out_features),
                features: ("batch", config.num_vision_tokens, vision.hidden_size),
            },
            "mobilevlm_vision",
        )
    finally:
        graph.close()


def _tower(graph: OnnxGraph, config: MobileVLMConfig, vision: ClipVisionConfig, read: Read) -> str:
    side = vision.patch_size
    kernel = graph.weight("patch_embedding", read(f"{_EMBEDDINGS}patch_embedding.weight"))
    x = graph.node("Conv", PIXELS, kernel, kernel_shape=[side, side], strides=[side, side])
    x = graph.transpose(graph.reshape(x, 0, vision.hidden_size, -1), 0, 2, 1)
    x = graph.node("Concat", _class_token(graph, vision, x, read), x, axis=1)
    positions = read(f"{_EMBEDDINGS}position_embedding.weight")
    x = graph.node("Add", x, graph.weight("position_embedding", positions))
    x = _norm(graph, x, f"{TOWER_PREFIX}pre_layrnorm", vision.layer_norm_eps, read)
    for index in range(config.num_used_vision_layers):
        x = _encoder_layer(graph, x, f"{TOWER_PREFIX}encoder.layers.{index}", vision, read)
    if config.select_feature == "cls_patch":
        return x
    bounds = [graph.constant([value]) for value in (1, vision.num_patches + 1, 1)]
    return graph.node("Slice", x, *bounds)


_EMBEDDINGS = f"{TOWER_PREFIX}embeddings."


def _class_token(graph: OnnxGraph, vision: ClipVisionConfig, patches: str, read: Read) -> str:
    """Repeat the class token for every image of the batch."""
    token = read(f"{_EMBEDDINGS}class_embedding").reshape(1, 1, vision.hidden_size)
    batch = graph.node("Slice", graph.node("Shape", patches), *(map(graph.constant, ([0], [1]))))
    shape = graph.node("Concat", batch, graph.constant([1, vision.hidden_size]), axis=0)
    return graph.node("Expand", graph.weight("class_embedding", token), shape)


def _encoder_layer(
    graph: OnnxGraph, x: str, name: str, vision: ClipVisionConfig, read: Read
) -> str:
    y = _norm(graph, x, f"{name}.layer_norm1", vision.layer_norm_eps, read)
    x = graph.node("Add", x, _attention(graph, y, f"{name}.self_attn", vision, read))
    y = _norm(graph, x, f"{name}.layer_norm2", vision.layer_norm_eps, read)
    y = _linear(graph, y, f"{name}.mlp.fc1", read)
    y = graph.gelu(y) if vision.hidden_act == "gelu" else graph.quick_gelu(y)
    return graph.node("Add", x, _linear(graph, y, f"{name}.mlp.fc2", read))


def _attention(graph: OnnxGraph, x: str, name: str, vision: ClipVisionConfig, read: Read) -> str:
    heads, head_dim = vision.num_attention_heads, vision.head_dim

    def split(projection: str, *order: int) -> str:
        y = graph.reshape(_linear(graph, x, f"{name}.{projection}", read), 0, -1, heads, head_dim)
        return graph.transpose(y, *order)

    scores = graph.node("MatMul", split("q_proj", 0, 2, 1, 3), split("k_proj", 0, 2, 3, 1))
    scaled = graph.node("Mul", scores, graph.constant(head_dim**-0.5))
    weights = graph.node("Softmax", scaled, axis=-1)
    mixed = graph.node("MatMul", weights, split("v_proj", 0, 2, 1, 3))
    joined = graph.reshape(graph.transpose(mixed, 0, 2, 1, 3), 0, -1, vision.hidden_size)
    return _linear(graph, joined, f"{name}.out_proj", read)


def _linear(graph: OnnxGraph, x: str, name: str, read: Read, *, bias: bool = True) -> str:
    weight = read(f"{name}.weight")
    matrix = weight.reshape(weight.shape[0], -1)  # a 1x1 convolution is one too
    return graph.linear(x, name, matrix, read(f"{name}.bias") if bias else None)


def _norm(graph: OnnxGraph, x: str, name: str, eps: float, read: Read) -> str:
    return graph.layer_norm(x, name, read(f"{name}.weight"), read(f"{name}.bias"), eps)


def _linear_projector(graph: OnnxGraph, config: MobileVLMConfig, x: str, read: Read) -> str:
    return _linear(graph, x, PROJECTOR_PREFIX.removesuffix("."), read)


def _mlp(graph: OnnxGraph, config: MobileVLMConfig, x: str, read: Read) -> str:
    assert config.projector is not None
    names = [f"{PROJECTOR_PREFIX}{2 * index}" for index in range(config.projector.depth)]
    return _linears(graph, x, names, read)


def _ldp(graph: OnnxGraph, config: MobileVLMConfig, x: str, read: Read) -> str:
    assert config.projector is not None and config.vision is not None
    grid, channels = config.vision.grid, config.projector.out_features
    x = _linears(graph, x, [f"{PROJECTOR_PREFIX}model.mlp.{index}" for index in (1, 3)], read)
    x = graph.node("Add", x, _inverted_residual(graph, x, 1, grid, channels, read))
    return _inverted_residual(graph, x, 2, grid, channels, read)


def _ldpv2(graph: OnnxGraph, config: MobileVLMConfig, x: str, read: Read) -> str:
    assert config.projector is not None and config.vision is not None
    grid, channels = config.vision.grid, config.projector.out_features
    x = _linears(graph, x, [f"{PROJECTOR_PREFIX}mlp.mlp.{index}" for index in (0, 2)], read)
    pooled = graph.node("MatMul", graph.weight("pooling", pooling_matrix(grid, POOLED_GRID)), x)
    name = f"{PROJECTOR_PREFIX}peg.peg.0"
    moved = _depthwise(graph, pooled, name, POOLED_GRID, 1, channels, read, bias=True)
    return graph.node("Add", moved, pooled)


# By the projector's kind.
PROJECTORS: Mapping[str, Callable[[OnnxGraph, MobileVLMConfig, str, Read], str]] = {
    "ldpnet": _ldp,
    "ldpnetv2": _ldpv2,
    "linear": _linear_projector,
    "mlp": _mlp,
}


def _linears(graph: OnnxGraph, x: str, names: Sequence[str], read: Read) -> str:
    """Linear layers with exact GELU between them."""
    for index, name in enumerate(names):
        x = _linear(graph, graph.gelu(x) if index else x, name, read)
    return x


def _inverted_residual(
    graph: OnnxGraph, x: str, index: int, grid: int, channels: int, read: Read
) -> str:
    """The first block of two keeps the grid, the second halves it."""
    name = f"{PROJECTOR_PREFIX}model.mb_block.{index}.block"
    y = _depthwise(graph, x, f"{name}.0.0", grid, index, channels, read)
    y = graph.node("HardSwish", _norm(graph, y, f"{name}.0.1", _NORM_EPS, read))
    mean = graph.node("ReduceMean", y, axes=[1], keepdims=1)
    gate = graph.node("Relu", _linear(graph, mean, f"{name}.1.fc1", read))
    gate = _linear(graph, gate, f"{name}.1.fc2", read)
    y = graph.node("Mul", y, graph.node("HardSigmoid", gate, alpha=1 / 6, beta=0.5))
    y = _linear(graph, y, f"{name}.2.0", read, bias=False)
    return _norm(graph, y, f"{name}.2.1", _NORM_EPS, read)


def _depthwise(
    graph: OnnxGraph,
    x: str,
    name: str,
    grid: int,
    stride: int,
    channels: int,
    read: Read,
    *,
    bias: bool = False,
) -> str:
    """A 3x3 convolution of each channel of ``(batch, grid^2, C)``, padding 1."""
    parameters = [graph.weight(f"{name}.weight", read(f"{name}.weight"))]
    if bias:
        parameters.append(graph.weight(f"{name}.bias", read(f"{name}.bias")))
    y = graph.reshape(graph.transpose(x, 0, 2, 1), 0, channels, grid, grid)
    y = graph.node(
        "Conv", y, *parameters, group=channels, kernel_shape=[3, 3], pads=[1, 1, 1, 1],
        strides=[stride, stride],
    )  # fmt: skip
    return graph.transpose(graph.reshape(y, 0, channels, -1), 0, 2, 1)


def pooling_matrix(grid: int, out_grid: int) -> npt.NDArray[np.float32]:
    """Return adaptive average pooling as a matrix ``(out_grid^2, grid^2)``.

    Its cells are those of :func:`mvlm.models.projectors.ldpnetv2.pooled`.
    """
    along = np.zeros((out_grid, grid))
    for cell in range(out_grid):
        start, stop = cell * grid // out_grid, -(-(cell + 1) * grid // out_grid)
        along[cell, start:stop] = 1 / (stop - start)
    return np.kron(along, along).astype(np.float32)
