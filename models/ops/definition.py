"""Definitions: TensorIR functions that carry an operation's signature, and calls of them.

Also the value of a stored weight as a tensor expression, which definitions compute with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvm import te, tirx
from tvm.relax.frontend import nn

from mvlm.models.ops.signatures import FEW, FEW_ROWS, ROWS, Parameter, RowCount, Signature
from mvlm.models.quantization import (
    GROUP_SIZE,
    MAX_SCALE,
    OFFSET_STEP,
    SCALE_BITS,
    TABLE_ROWS,
)
from mvlm.models.weight_layout import Matrix, Piece, WeightLayout

# Relax's TOpPatternKind: an opaque function is never fused with its neighbours.
_OPAQUE = 8


def known_rows(rows: object) -> RowCount:
    """Return the number of a graph's rows if it is known, "few" of its few rows, None of others.

    A graph has few rows where their number is the variable of that name.
    """
    if isinstance(rows, int):
        return rows
    return FEW if isinstance(rows, tirx.Var) and rows.name == FEW else None


def placeholders(signature: Signature) -> dict[str, te.Tensor]:
    """Return the parameters that an operation reads, by name, as tensor expressions."""
    symbols: dict[str, tirx.Var] = {}

    def extent(value: int | str) -> int | tirx.Var:
        if isinstance(value, int):
            return value
        return symbols.setdefault(value, tirx.Var(value, "int64"))

    return {
        each.name: te.placeholder(tuple(map(extent, each.shape)), each.dtype, name=each.name)
        for each in signature.inputs
    }


def quantized_value(
    layout: WeightLayout,
    matrix: Matrix,
    arrays: Mapping[str, Any],
    feature: tirx.Expr,
    k: tirx.Expr,
    dtype: str = "float32",
) -> tirx.Expr:
    """Return a weight without its scale: of a float format, the weight itself.

    Of a format with tables it is the level, without the group's offset.

    Args:
        layout: Of the matrix.
        matrix: What it is.
        arrays: Its parameters by name, as tensors or as buffers.
        feature: The weight's row in the matrix.
        k: Its column.
        dtype: Of the result.
    """
    pieces, weight_format = layout.pieces(matrix, feature, k), matrix.weight_format
    if pieces[0].shift is None:
        (whole,) = pieces
        stored = arrays["weight"][whole.index]
    else:
        _, element = layout.arrays(matrix)["weight"]
        stored = sum(_bits(arrays["weight"][piece.index], piece, element) for piece in pieces)
    if weight_format.has_tables:
        return arrays["levels"][feature // TABLE_ROWS, stored.astype("int32")].astype(dtype)
    zero = layout.zero_point(weight_format, matrix.activations)
    quantized = stored.astype(dtype)
    return quantized - tirx.const(zero, dtype) if zero else quantized


def group_scale(stored: tirx.Expr) -> tirx.Expr:
    """Return the scale that a group's byte holds, as float32 (see `group_scales`)."""
    return (stored & tirx.const(MAX_SCALE, "int8")).astype("float32")


def group_offset(stored: tirx.Expr) -> tirx.Expr:
    """Return the offset that a group's byte holds, as float32, in units of levels."""
    return (stored >> tirx.const(SCALE_BITS, "int8")).astype("float32") * OFFSET_STEP


def _bits(element: tirx.Expr, piece: Piece, dtype: str) -> tirx.Expr:
    """Return a piece of a stored integer at its position in it."""
    assert piece.shift is not None
    mask = tirx.const((1 << piece.bits) - 1, dtype)
    bits = (element >> piece.shift.astype(dtype)) & mask
    return bits << tirx.const(piece.position, dtype) if piece.position else bits


def stored_value(
    layout: WeightLayout,
    matrix: Matrix,
    arrays: Mapping[str, Any],
    feature: tirx.Expr,
    k: tirx.Expr,
) -> tirx.Expr:
    """Return a weight as float32; see :func:`quantized_value`."""
    quantized = quantized_value(layout, matrix, arrays, feature, k)
    weight_format = matrix.weight_format
    if not weight_format.is_integer:
        return quantized
    of_group = arrays["scales"][layout.scale(matrix, feature, k // GROUP_SIZE)]
    if weight_format.has_tables:
        row_scale = arrays["row_scales"][layout.row_scale(matrix, feature)]
        return (quantized + group_offset(of_group)) * (group_scale(of_group) * row_scale)
    scale = of_group.astype("float32")
    return quantized * (scale if weight_format.unit == 1 else scale * weight_format.unit)


def define(
    signature: Signature, inputs: Mapping[str, te.Tensor], *outputs: te.Tensor
) -> tirx.PrimFunc:
    """Make the definition of an operation.

    Args:
        signature: The operation.
        inputs: As :func:`placeholders` returns them.
        outputs: What is computed of them, in order; each has its parameter's name.
    """
    # Private, so that the module names it and definitions of many shapes live side by side.
    function = te.create_prim_func([*inputs.values(), *outputs]).without_attr("global_symbol")
    return mark(function, signature)


def mark(function: tirx.PrimFunc, signature: Signature) -> tirx.PrimFunc:
    """Mark a function as the definition of an operation, whose parameters it has."""
    check_parameters(function, signature)
    return function.with_attrs(operation_attributes(signature))


def operation_attributes(signature: Signature) -> dict[str, Any]:
    """Return the attributes that definitions and kernels of an operation have."""
    return {**signature.attributes(), "op_pattern": _OPAQUE}


def keep_parameters(function: tirx.PrimFunc, signature: Signature) -> tirx.PrimFunc:
    """Leave the parameters out that an operation does not have.

    TVMScript has no optional parameters: a function is written with all that it may be given, and
    neither reads nor writes those that the operation lacks. They are told by their names.
    """
    names = [parameter.name for parameter in signature.parameters]
    kept = [each for each in function.params if each.name in names]
    found = [each.name for each in kept]
    assert found == names, f"{signature.text}: expected the parameters {names}, found {found}"
    return tirx.PrimFunc(kept, function.body, function.ret_type, function.attrs)


def check_parameters(function: tirx.PrimFunc, signature: Signature) -> None:
    """Check that a function has an operation's parameters: names, order, shapes and dtypes.

    Raises:
        AssertionError: It has others.
    """
    expected, symbols = signature.parameters, dict[str, Any]()
    names = [each.name for each in function.params]
    wanted = [each.name for each in expected]
    assert names == wanted, f"{signature.text}: expected the parameters {wanted}, found {names}"
    for each, parameter in zip(function.params, expected, strict=True):
        found = each.ty
        is_equal = len(found.shape) == len(parameter.shape) and all(
            _is_extent(extent, value, symbols)
            for extent, value in zip(found.shape, parameter.shape, strict=True)
        )
        assert is_equal and str(found.dtype) == parameter.dtype, (
            f"{signature.text}: expected {parameter}, "
            f"found {tuple(map(str, found.shape))} {found.dtype}"
        )


def _is_extent(found: Any, expected: int | str, symbols: dict[str, Any]) -> bool:
    """Whether an extent is the expected number, or the one variable of a symbolic extent."""
    if isinstance(expected, int):
        return isinstance(found, int | tirx.IntImm) and int(found) == expected
    return isinstance(found, tirx.Var) and symbols.setdefault(expected, found).same_as(found)


def call(
    definition: tirx.PrimFunc,
    signature: Signature,
    name: str,
    arguments: Mapping[str, nn.Tensor | None],
) -> list[nn.Tensor]:
    """Call an operation in a graph.

    Args:
        definition: Its definition.
        signature: Its signature.
        name: The function's name in the module.
        arguments: By the parameter's name. A parameter that is written and given is changed in
            place; what the operation does not have may be None.

    Returns:
        What it writes, in the order of its parameters.
    """
    given = {key: value for key, value in arguments.items() if value is not None}
    passed = [each for each in signature.parameters if each.name in given]
    written = [each for each in signature.parameters if each.is_written]
    missing = [each.name for each in signature.inputs if each.name not in given]
    assert not missing and len(passed) == len(given), (
        f"{signature.text}: expected the arguments {[each.name for each in signature.inputs]}, "
        f"found {list(given)}"
    )
    tensors, outs = [given[each.name] for each in passed], _outs(signature, written, given)
    in_place = [index for index, each in enumerate(passed) if each.is_written]
    if in_place:
        assert len(in_place) == len(written), "all that an operation writes is changed in place"
        found = nn.op.tensor_ir_inplace_op(definition, name, tensors, in_place, outs)
    else:
        found = nn.op.tensor_ir_op(definition, name, tensors, outs[0] if len(outs) == 1 else outs)
    return [found] if isinstance(found, nn.Tensor) else list(found)


def _outs(
    signature: Signature, written: Sequence[Parameter], given: Mapping[str, nn.Tensor]
) -> list[nn.Tensor]:
    """Return placeholders of what an operation writes."""
    known: dict[int | str, Any] = {}
    for each in signature.inputs:
        for extent, found in zip(each.shape, given[each.name].shape, strict=True):
            if extent in (ROWS, FEW_ROWS):
                known.setdefault(extent, found)
    return [
        nn.Tensor.placeholder(given[each.name].shape, each.dtype)
        if each.name in given
        else nn.Tensor.placeholder([known.get(at, at) for at in each.shape], each.dtype)
        for each in written
    ]
