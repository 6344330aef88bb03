"""The layers that hold weights, and how each packs its weights from a checkpoint's tensors.

Every layer knows the names of the checkpoint's tensors that it is made of (`source`), so that a
model's parameters can be packed one layer at a time: :func:`pack_parameters`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm.relax.frontend import nn

from mvlm.models import ops
from mvlm.models.ops.linear import linear_signature
from mvlm.models.ops.signatures import EmbeddingSignature, Parameter
from mvlm.models.ops.signatures.convolution import TAPS
from mvlm.models.quantization import QuantizedMatrix, Scheme, to_float16
from mvlm.models.rounding import Rounding
from mvlm.models.weight_layout import ROWS, LinearFormat, Matrix, WeightLayout

Array = npt.NDArray[Any]
ReadTensor = Callable[[str], Array]
# The names that an artifact has for the arrays of a quantized matrix, by the layouts' names.
_QUANTIZED = {
    "weight": "q_weight",
    "scales": "q_scale",
    "row_scales": "q_row_scale",
    "levels": "q_levels",
}


# What `observing` collects in.
_observed: ContextVar[list[tuple[Linear, nn.Tensor]] | None] = ContextVar("observed", default=None)


@contextmanager
def observing() -> Iterator[list[tuple[Linear, nn.Tensor]]]:
    """Collect what linear layers read while a graph is traced: see `models.observed`.

    Yields:
        Each layer with its input after the prologue, in the order of the calls.
    """
    inputs = list[tuple[Linear, nn.Tensor]]()
    token = _observed.set(inputs)
    try:
        yield inputs
    finally:
        _observed.reset(token)


class PackedLayer(nn.Module):
    """A layer whose parameters are packed from a checkpoint's tensors."""

    def sources(self) -> list[str]:
        """Names of the checkpoint's tensors that this layer is made of."""
        raise NotImplementedError

    def pack(self, read: ReadTensor) -> Iterator[tuple[str, Array]]:
        """Yield every parameter's name within this layer and its packed value."""
        raise NotImplementedError


def pack_parameters(model: nn.Module, read: ReadTensor) -> Iterator[tuple[str, Array]]:
    """Pack all parameters of `model`, one layer at a time.

    Args:
        model: A module whose parameters all belong to a :class:`PackedLayer`.
        read: Reads one tensor of the checkpoint by name.

    Yields:
        The parameter's full name, as ``model.state_dict()`` has it, and its value.
    """
    for prefix, layer in packed_layers(model):
        for name, value in layer.pack(read):
            yield f"{prefix}.{name}", value


def packed_layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, PackedLayer]]:
    """Yield the layers below `module` with their full names, in the order of their definition."""
    if isinstance(module, PackedLayer):
        yield prefix, module
        return
    children = enumerate(module) if isinstance(module, nn.ModuleList) else vars(module).items()
    for name, child in children:
        if isinstance(child, nn.Module):
            yield from packed_layers(child, f"{prefix}.{name}" if prefix else str(name))


class MatrixLayer(PackedLayer):
    """A layer of one matrix, which is stored in one array or several."""

    arrays: tuple[str, ...]

    def declare(self, parameters: tuple[Parameter, ...]) -> None:
        """Make the parameters that the matrix is stored in, as its operation takes them."""
        is_float = len(parameters) == 1
        self.arrays = tuple(each.name if is_float else _QUANTIZED[each.name] for each in parameters)
        for name, each in zip(self.arrays, parameters, strict=True):
            setattr(self, name, nn.Parameter(each.shape, each.dtype))

    @property
    def stored(self) -> tuple[nn.Tensor, ...]:
        """Those parameters."""
        return tuple(getattr(self, name) for name in self.arrays)

    def arranged(
        self, values: Array, layout: WeightLayout, matrix: Matrix, rounding: Rounding
    ) -> Iterator[tuple[str, Array]]:
        """Yield the arrays of a matrix ``(features, width)`` by their names."""
        if not matrix.weight_format.is_integer:
            values = _converted(values, matrix.weight_format.dtype, ", ".join(self.sources()))
        yield from zip(self.arrays, layout.pack(values, matrix, rounding), strict=True)


class Linear(MatrixLayer):
    """A linear layer, or several of one input stacked along their outputs (Q, K and V).

    Args:
        source: The checkpoint's modules whose ``weight`` (and ``bias``) are stacked.
        width: Input features.
        features: Output features of all the stacked modules.
        linear_format: How the matrix is stored.
        bias: Whether the modules have a bias.
    """

    def __init__(
        self,
        source: tuple[str, ...],
        width: int,
        features: int,
        linear_format: LinearFormat,
        *,
        bias: bool,
    ) -> None:
        self.source = source
        self.linear_format = linear_format
        self.width = width
        self.features = features
        self.declare(linear_signature(linear_format, None, width, features).weight_parameters)
        self.bias = nn.Parameter((features,), "float32") if bias else None

    def forward(
        self,
        x: nn.Tensor,
        *,
        prologue: ops.Prologue = ops.IDENTITY,
        residual: nn.Tensor | None = None,
    ) -> nn.Tensor:
        """Map ``(..., width)`` to ``(..., features)``.

        Args:
            x: The input.
            prologue: The row-wise function that is applied to the input first.
            residual: Added to the output, of its shape.
        """
        if (inputs := _observed.get()) is not None:
            x, prologue = ops.rowwise(x, prologue), ops.IDENTITY
            inputs.append((self, x))
        return ops.linear(
            x,
            self.stored,
            self.features,
            self.linear_format,
            prologue=prologue,
            bias=self.bias,
            residual=residual,
        )

    def sources(self) -> list[str]:
        """Weights, then biases, of the stacked modules."""
        kinds = ["weight"] + (["bias"] if self.bias is not None else [])
        return [f"{name}.{kind}" for kind in kinds for name in self.source]

    def matrix(self, read: ReadTensor) -> Array:
        """Return the stacked weights ``(features, width)``."""
        matrices = [read(f"{name}.weight") for name in self.source]
        # A patch convolution's kernel is a matrix over the flattened patch, a pointwise one's too.
        return np.concatenate([m.reshape(m.shape[0], -1) for m in matrices])

    def pack(
        self, read: ReadTensor, replacement: Array | QuantizedMatrix | None = None
    ) -> Iterator[tuple[str, Array]]:
        """Stack and quantize the weights, and lay them out for their kernel.

        Args:
            read: Reads one tensor of the checkpoint by name.
            replacement: Takes the place of the stacked weights: ``(features, width)``, or what
                they have been rounded to.
        """
        layout, matrix = self.linear_format.layout, self.linear_format.matrix
        if isinstance(replacement, QuantizedMatrix):
            arrays = layout.pack_quantized(replacement, matrix(self.features, self.width))
            yield from zip(self.arrays, arrays, strict=True)
        else:
            values = self.matrix(read) if replacement is None else replacement
            rounding = self.linear_format.scheme.rounding
            yield from self.arranged(values, layout, matrix(*values.shape), rounding)
        if self.bias is not None:
            biases = [read(f"{name}.bias") for name in self.source]
            yield "bias", np.concatenate(biases).astype(np.float32)


class Embedding(MatrixLayer):
    """A table of token embeddings."""

    def __init__(self, source: str, rows: int, width: int, scheme: Scheme) -> None:
        self.source = source
        self.scheme = scheme
        self.table = EmbeddingSignature(None, rows, width, scheme.weights.name)
        self.declare(self.table.weight_parameters)

    def forward(self, ids: nn.Tensor) -> nn.Tensor:
        """Map ids ``(1, n)`` to ``(1, n, width)``."""
        return ops.embedding(ids, self.stored, self.table)

    def sources(self) -> list[str]:
        """The table's name."""
        return [self.source]

    def pack(self, read: ReadTensor) -> Iterator[tuple[str, Array]]:
        """Quantize or convert the table."""
        table = read(self.source)
        yield from self.arranged(table, ROWS, self.table.matrix, self.scheme.rounding)


class TiedEmbedding(nn.Module):
    """A table of token embeddings that is the output head's matrix, and is stored as that alone."""

    def __init__(self, head: Linear) -> None:
        # In a tuple, lest its parameters belong to this module as well.
        self.head = (head,)
        scheme, layout = head.linear_format.scheme, head.linear_format.layout
        self.table = EmbeddingSignature(
            None, head.features, head.width, scheme.weights.name, layout.name, scheme.activations
        )

    def forward(self, ids: nn.Tensor) -> nn.Tensor:
        """Map ids ``(1, n)`` to ``(1, n, width)``."""
        return ops.embedding(ids, self.head[0].stored, self.table)


def _converted(matrix: Array, dtype: str, source: str) -> Array:
    """Convert to the dtype that is stored, and refuse what it cannot hold."""
    if dtype == "float16":
        return to_float16(matrix, source, "Compile with the quantization q0f32.")
    return matrix.astype(dtype)


class Float32Params(PackedLayer):
    """Small tensors kept in float32 whatever the scheme: norms, biases, depthwise taps.

    They are a thousandth of the weights, and rounding them costs accuracy for no gain.
    """

    def __init__(self, **tensors: tuple[str, tuple[int, ...]]) -> None:
        self.named = {key: name for key, (name, _) in tensors.items()}
        for key, (_, shape) in tensors.items():
            setattr(self, key, nn.Parameter(shape, "float32"))

    def sources(self) -> list[str]:
        """The tensors' names."""
        return list(self.named.values())

    def pack(self, read: ReadTensor) -> Iterator[tuple[str, Array]]:
        """Convert, and bring into the parameter's shape."""
        for key, name in self.named.items():
            shape = [int(extent) for extent in getattr(self, key).shape]
            yield key, self.arrange(read(name)).astype(np.float32).reshape(shape)

    def arrange(self, tensor: Array) -> Array:
        """Bring a checkpoint's tensor into the parameter's order; the same order by default."""
        return tensor


class RMSNorm(Float32Params):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, source: str, width: int, eps: float) -> None:
        super().__init__(weight=(f"{source}.weight", (width,)))
        self.eps = eps

    @property
    def prologue(self) -> ops.Prologue:
        """The same as the prologue of a linear layer."""
        return ops.Prologue("rms_norm", (self.weight,), self.eps)


class LayerNorm(Float32Params):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last axis (Ba et al. 2016)."""

    def __init__(self, source: str, width: int, eps: float) -> None:
        super().__init__(weight=(f"{source}.weight", (width,)), bias=(f"{source}.bias", (width,)))
        self.eps = eps

    @property
    def prologue(self) -> ops.Prologue:
        """The same as the prologue of a linear layer."""
        return ops.Prologue("layer_norm", (self.weight, self.bias), self.eps)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Normalize ``(..., width)``."""
        return ops.rowwise(x, self.prologue)


class DepthwiseConvolution(Float32Params):
    """A 3x3 convolution of each channel on its own, padding 1, over a square grid of tokens."""

    def __init__(
        self, source: str, channels: int, grid: int, *, stride: int = 1, bias: bool = False
    ) -> None:
        taps = {"weight": (f"{source}.weight", (TAPS, channels))}
        super().__init__(**taps, **({"bias": (f"{source}.bias", (channels,))} if bias else {}))
        self.grid = grid
        self.stride = stride
        self.has_bias = bias

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Map ``(1, grid^2, C)`` to ``(1, ceil(grid / stride)^2, C)``."""
        y = ops.depthwise_convolution(x, self.weight, self.grid, self.stride)
        return y + self.bias if self.has_bias else y

    def arrange(self, tensor: Array) -> Array:
        """Put a kernel's channels ``(C, 1, 3, 3)`` last."""
        return tensor.reshape(tensor.shape[0], -1).T if tensor.ndim == 4 else tensor


# Activations that do not stand before a linear layer, element by element: the compiler fuses them
# with what is around.
ACTIVATIONS: dict[str, Callable[[nn.Tensor], nn.Tensor]] = {
    "relu": lambda x: nn.op.relu(x),
    "hardsigmoid": lambda x: nn.op.relu6(x + 3.0) * (1.0 / 6.0),
    "hardswish": lambda x: x * nn.op.relu6(x + 3.0) * (1.0 / 6.0),
}
