"""A user's own vision tower or projector, from an ONNX file, in the place of the checkpoint's.

The graph is imported by TVM's Relax frontend and traced into the model. Its large constants become
parameters, so that they lie in the artifact's weights and not in its library, and products with one
of them become our linear layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tvm
from tvm import relax
from tvm.ir.expr import GenericConst
from tvm.relax.frontend import nn

from mvlm.models import ops
from mvlm.models.config import MobileVLMConfig
from mvlm.models.interchange.onnx_constants import check_constants
from mvlm.models.interchange.onnx_graph import import_onnx
from mvlm.models.layers import Array, PackedLayer, ReadTensor
from mvlm.models.quantization import FLOAT32, Scheme
from mvlm.models.weight_files.tensor_file import check_finite, read_start
from mvlm.models.weight_layout import LinearFormat, WeightLayout
from mvlm.runtime.errors import CheckpointError, UsageError
from mvlm.runtime.input_file import is_present, utf8_folder

Role = Literal["tower", "projector", "both"]
Shape = tuple[int, ...]

# Constants with fewer values stay in the code: epsilons, scales, axes.
_MIN_VALUES = 64
# Weights are stored and computed as they come.
_AS_IT_COMES = Scheme("onnx", FLOAT32)


@dataclass(frozen=True)
class OnnxVision:
    """An imported graph and what it takes the place of.

    Attributes:
        role: From pixels to patch features, from those to embeddings, or all the way.
        layer: The graph as a layer of the model.
    """

    role: Role
    layer: OnnxLayer


class OnnxLayer(PackedLayer):
    """A graph of one input, with the parameters that the file holds.

    Args:
        module: What the frontend made of the graph.
        output: Which of its outputs is taken.
        layout: How factors of products are arranged.
    """

    def __init__(self, module: tvm.IRModule, output: int, layout: WeightLayout) -> None:
        self._module = module
        self._output = output
        self._format = LinearFormat(_AS_IT_COMES, layout)
        self._constants = list(_large_constants(module["main"]))
        self._factors = _factors(module["main"])
        for index, constant in enumerate(self._constants):
            shape, dtype = _shape(constant.ty), str(constant.ty.dtype)
            if _is_among(constant, self._factors):
                ((shape, dtype),) = layout.arrays(self._format.matrix(*shape[::-1])).values()
            setattr(self, _parameter(index), nn.Parameter(shape, dtype))

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Trace the graph on float32 ``(1, ...)``, in its own dtype."""
        wanted = str(self._module["main"].params[0].ty.dtype)
        parameters = [getattr(self, _parameter(i)) for i in range(len(self._constants))]
        factors = self._factors
        tracer = _Tracer(self._module, self._constants, parameters, factors, self._format)
        outputs = tracer.run(x.astype(wanted))
        return outputs[self._output].astype("float32")

    def sources(self) -> list[str]:
        """Nothing of the checkpoint."""
        return []

    def pack(self, read: ReadTensor) -> Iterator[tuple[str, Array]]:
        """Yield the file's own weights."""
        for index, constant in enumerate(self._constants):
            value = constant.value.numpy()
            # Constants that were folded may have overflowed, which the file does not show.
            value = check_finite(f"{_parameter(index)} of the ONNX graph", value)
            if _is_among(constant, self._factors):
                matrix, rounding = self._format.matrix(*value.shape[::-1]), _AS_IT_COMES.rounding
                (value,) = self._format.layout.pack(value.T, matrix, rounding)
            yield _parameter(index), value


class _Tracer:
    """Emits an imported function's bindings into the function that is being built."""

    def __init__(
        self,
        module: tvm.IRModule,
        constants: list[Any],
        parameters: list[nn.Tensor],
        factors: list[Any],
        linear_format: LinearFormat,
    ) -> None:
        self._module = module
        self._builder = relax.BlockBuilder.current()
        self._values: dict[Any, Any] = {}
        self._functions: dict[Any, Any] = {}
        self._parameters = list(zip(constants, parameters, strict=True))
        self._factors = factors
        self._format = linear_format

    def run(self, x: nn.Tensor) -> list[nn.Tensor]:
        function = self._module["main"]
        self._values[function.params[0]] = x._expr
        for block in function.body.blocks:
            for binding in block.bindings:
                value = self._emitted(binding)
                self._values[binding.var] = value
        result = self._moved(function.body.body)
        if isinstance(result.ty, relax.TupleType):
            fields = range(len(result.ty.fields))
            result = [self._builder.emit(relax.TupleGetItem(result, index)) for index in fields]
        return [
            nn.Tensor(_expr=value) for value in (result if isinstance(result, list) else [result])
        ]

    def _emitted(self, binding: Any) -> Any:
        product = self._linear(binding.value)
        if product is not None:
            return product._expr
        return self._builder.emit(self._moved(binding.value))

    def _linear(self, value: Any) -> nn.Tensor | None:
        """Make a product with a weight one of our own."""
        if not _is_product(value) or not _is_among(value.args[1], self._factors):
            return None
        left, weight = (nn.Tensor(_expr=self._moved(argument)) for argument in value.args)
        return ops.linear(left, (weight,), _shape(value.args[1].ty)[1], self._format)

    def _moved(self, value: Any) -> Any:
        """Return an expression with our variables in the place of the imported ones."""
        if isinstance(value, relax.Var):
            return self._values[value]
        if isinstance(value, relax.Tuple):
            return relax.Tuple([self._moved(field) for field in value.fields])
        if isinstance(value, relax.TupleGetItem):
            return relax.TupleGetItem(self._moved(value.tuple_value), value.index)
        if isinstance(value, tvm.ir.GlobalVar):
            if value not in self._functions:
                function = self._module[value]
                self._functions[value] = self._builder.add_func(function, value.name_hint)
            return self._functions[value]
        if isinstance(value, relax.Call):
            arguments = [self._moved(argument) for argument in value.args]
            return relax.Call(value.op, arguments, value.attrs, list(value.ty_args))
        for constant, parameter in self._parameters:
            if constant.same_as(value):
                return parameter._expr
        return value


def _factors(function: relax.Function) -> list[Any]:
    """Return the float32 matrices that are multiplied with from the right, and nothing else."""
    right: list[Any] = []
    elsewhere: list[Any] = []

    def visit(expression: Any) -> None:
        if not isinstance(expression, relax.Call):
            return
        for index, argument in enumerate(expression.args):
            if not _is_tensor(argument):
                continue
            is_matrix = len(_shape(argument.ty)) == 2 and str(argument.ty.dtype) == "float32"
            is_right = _is_product(expression) and index == 1 and is_matrix
            (right if is_right else elsewhere).append(argument)

    relax.analysis.post_order_visit(function.body, visit)
    large = list(_large_constants(function))
    return [c for c in right if _is_among(c, large) and not _is_among(c, elsewhere)]


def _is_tensor(value: Any) -> bool:
    """Whether an expression is a constant tensor."""
    return isinstance(value, GenericConst) and isinstance(value.ty, relax.TensorType)


def _is_product(value: Any) -> bool:
    return isinstance(value, relax.Call) and value.op == tvm.ir.Op.get("relax.matmul")


def _is_among(constant: Any, constants: list[Any]) -> bool:
    return any(known.same_as(constant) for known in constants)


def import_vision(
    path: Path, config: MobileVLMConfig, layout: WeightLayout, *, allow_nonfinite: bool = False
) -> OnnxVision:
    """Import a graph and settle from its shapes what it replaces.

    Args:
        path: The file; weights may lie in others next to it.
        config: The checkpoint's, with a tower: its shapes are what the graph must fit.
        layout: How the weights of linear layers are arranged.
        allow_nonfinite: Replace NaN and infinity in weights instead of refusing them.

    Raises:
        UsageError: The file is not there, or the checkpoint has no tower.
        CheckpointError: It is no ONNX, its shapes fit nowhere, an operator is not known, or a
            weight is NaN or infinite.
    """
    onnx = import_onnx()
    from tvm.relax.frontend.onnx import from_onnx

    if not is_present(path, CheckpointError):
        raise UsageError(f"`--vision-onnx {path}` is not a file")
    if config.vision is None or config.projector is None:
        raise UsageError("--vision-onnx is for a MobileVLM", found="a model of text only")
    read_start(path)
    try:
        with utf8_folder(path.parent) as place:
            model = onnx.load(place / path.name)
    # An untrusted file: neither the parser nor the search for weights next to it documents errors.
    except Exception as error:
        raise _refused(path, f"cannot be read ({_reason(error)})") from None
    check_constants(path, model.graph, allow_nonfinite)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise _refused(path, "has the wrong number of inputs", "one", len(inputs))
    size, vision = config.vision.image_size, config.vision
    pixels = (1, 3, size, size)
    features = (1, config.num_vision_tokens, vision.hidden_size)
    embeddings = (1, config.image_tokens, config.projector.out_features)
    found = tuple(axis.dim_value for axis in inputs[0].type.tensor_type.shape.dim)
    shape = next((shape for shape in (pixels, features) if _fits(found, shape)), None)
    if shape is None:
        raise _refused(path, "has an input that fits nowhere", f"{pixels} or {features}", found)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it renames what is no identifier
            module = from_onnx(model, {inputs[0].name: list(shape)}, dtype_dict=None)
        module = relax.transform.FoldConstant()(relax.transform.DecomposeOpsForInference()(module))
    except Exception as error:
        raise _refused(path, f"cannot be imported ({_reason(error)})") from None
    outputs = _output_shapes(module["main"])
    if shape == pixels:
        wanted: dict[Role, Shape] = {"both": embeddings, "tower": features}
    else:
        wanted = {"projector": embeddings}
    for role, expected in wanted.items():
        if expected in outputs:
            return OnnxVision(role, OnnxLayer(module, outputs.index(expected), layout))
    raise _refused(
        path,
        "has no output that fits",
        " or ".join(f"{expected} for a {role}" for role, expected in wanted.items()),
        ", ".join(map(str, outputs)),
    )


def _fits(found: Shape, wanted: Shape) -> bool:
    """Whether a declared shape allows another; 0 is an extent that is left open."""
    return len(found) == len(wanted) and all(
        f in (0, w) for f, w in zip(found, wanted, strict=True)
    )


def _output_shapes(function: Any) -> list[Shape | None]:
    result = function.ret_ty
    fields = result.fields if isinstance(result, relax.TupleType) else [result]
    return [_shape(field) for field in fields]


def _shape(kind: Any) -> Shape:
    """The shape of a tensor's type; empty where it is not known."""
    try:
        return tuple(int(extent) for extent in kind.shape)
    except TypeError:
        return ()


def _large_constants(function: Any) -> Iterator[Any]:
    """Yield each constant once, in the order of use."""
    seen: list[Any] = []

    def visit(expression: Any) -> None:
        if _is_tensor(expression):
            large = np.prod(_shape(expression.ty)) >= _MIN_VALUES
            is_float = str(expression.ty.dtype).startswith("float")
            if large and is_float and not any(expression.same_as(other) for other in seen):
                seen.append(expression)

    relax.analysis.post_order_visit(function.body, visit)
    yield from seen


def _parameter(index: int) -> str:
    return f"constant_{index}"


def _refused(
    path: Path, problem: str, expected: object = None, found: object = None
) -> CheckpointError:
    return CheckpointError(
        f"{path} {problem}",
        expected=expected,
        found=found,
        fix="docs/interchange.md says what a graph must look like.",
    )


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()[:200] if lines else ''}"
