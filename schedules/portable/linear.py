"""Linear layers in plain loops: each thread takes output features, each of which is a dot product.

Weights are read as the layout says where they lie, so these kernels serve every layout whose
integers need no correction of a zero point.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from mvlm.models.ops.definition import (
    group_offset,
    group_scale,
    keep_parameters,
    quantized_value,
    stored_value,
)
from mvlm.models.ops.signatures import LinearLayer, LinearSignature, QuantizedLinearSignature
from mvlm.models.quantization import GROUP_SIZE
from mvlm.schedules.config_space import Config, default_config
from mvlm.schedules.epilogue import add_epilogue


def linear(op: LinearSignature, knob: Config = default_config) -> tirx.PrimFunc:
    """Build the kernel of ``linear``: products and their sums are float32. It has no knobs."""
    del knob
    width, features, layout, matrix = op.width, op.features, op.weight_layout, op.matrix
    arrays = _arrays(op)

    def value(
        weight: tirx.Buffer,
        scales: tirx.Buffer,
        row_scales: tirx.Buffer,
        levels: tirx.Buffer,
        j: tirx.Expr,
        k: tirx.Expr,
    ) -> tirx.Expr:
        stored = {"weight": weight, "scales": scales, "row_scales": row_scales, "levels": levels}
        return stored_value(layout, matrix, stored, j, k)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        weight_handle: T.handle,
        scale_handle: T.handle,
        row_scale_handle: T.handle,
        level_handle: T.handle,
        bias_handle: T.handle,
        residual_handle: T.handle,
        y_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "float32")
        weight = T.match_buffer(weight_handle, *arrays["weight"])
        scales = T.match_buffer(scale_handle, *arrays["scales"])
        row_scales = T.match_buffer(row_scale_handle, *arrays["row_scales"])
        levels = T.match_buffer(level_handle, *arrays["levels"])
        bias = T.match_buffer(bias_handle, (features,), "float32")
        residual = T.match_buffer(residual_handle, (rows, features), "float32")
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for j in T.parallel(features):
            for i in T.serial(rows):
                with T.sblock("dot"):
                    total = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    total[0] = T.float32(0)
                    for k in T.serial(width):
                        total[0] = T.fma(
                            x[i, k], value(weight, scales, row_scales, levels, j, k), total[0]
                        )
                    y[i, j] = add_epilogue(op, total[0], bias, residual, (i, j))

    return keep_parameters(kernel, op)


def quantized_linear(
    op: QuantizedLinearSignature, knob: Config = default_config
) -> tirx.PrimFunc | None:
    """Build the kernel of ``quantized_linear``: the sum of a group is an exact int32.

    It has no knobs.
    """
    del knob
    if op.has_zero_point:
        return None
    width, features, layout, matrix = op.width, op.features, op.weight_layout, op.matrix
    groups, activation_scales, groups_per_scale = (
        op.groups,
        op.activation_scales,
        op.groups_per_scale,
    )
    activations, unit, has_tables = (
        op.activations,
        op.weight_format.unit,
        op.weight_format.has_tables,
    )
    arrays = _arrays(op)

    def integer(weight: tirx.Buffer, levels: tirx.Buffer, j: tirx.Expr, k: tirx.Expr) -> tirx.Expr:
        stored = {"weight": weight, "levels": levels}
        return quantized_value(layout, matrix, stored, j, k, "int32")

    def scaled(
        total: tirx.Expr, x_sum: tirx.Expr, scales: tirx.Buffer, j: tirx.Expr, g: tirx.Expr
    ) -> tirx.Expr:
        """Return a group's sum of products, with its offset's and times its scale."""
        stored = scales[layout.scale(matrix, j, g)]
        if not has_tables:
            return total * stored.astype("float32")
        return (total + group_offset(stored) * x_sum) * group_scale(stored)

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        x_scale_handle: T.handle,
        weight_handle: T.handle,
        scale_handle: T.handle,
        row_scale_handle: T.handle,
        level_handle: T.handle,
        bias_handle: T.handle,
        residual_handle: T.handle,
        y_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), activations)
        x_scales = T.match_buffer(x_scale_handle, (rows, activation_scales), "float32")
        weight = T.match_buffer(weight_handle, *arrays["weight"])
        scales = T.match_buffer(scale_handle, *arrays["scales"])
        row_scales = T.match_buffer(row_scale_handle, *arrays["row_scales"])
        levels = T.match_buffer(level_handle, *arrays["levels"])
        bias = T.match_buffer(bias_handle, (features,), "float32")
        residual = T.match_buffer(residual_handle, (rows, features), "float32")
        y = T.match_buffer(y_handle, (rows, features), "float32")
        for j in T.parallel(features):
            for i in T.serial(rows):
                with T.sblock("dot"):
                    total = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    group_sum = T.sblock_alloc_buffer((1,), "int32", scope="local")
                    x_sum = T.sblock_alloc_buffer((1,), "int32", scope="local")
                    total[0] = T.float32(0)
                    for g in T.serial(groups):
                        group_sum[0] = 0
                        x_sum[0] = 0
                        for k in T.serial(GROUP_SIZE):
                            group_sum[0] += T.Cast("int32", x[i, g * GROUP_SIZE + k]) * integer(
                                weight, levels, j, g * GROUP_SIZE + k
                            )
                            x_sum[0] += T.Cast("int32", x[i, g * GROUP_SIZE + k])
                        product = T.meta_var(
                            scaled(
                                T.Cast("float32", group_sum[0]),
                                T.Cast("float32", x_sum[0]),
                                scales,
                                j,
                                g,
                            )
                        )
                        x_scale = T.meta_var(x_scales[i, g // groups_per_scale] * T.float32(unit))
                        total[0] = T.fma(product, x_scale, total[0])
                    factor = T.meta_var(
                        row_scales[layout.row_scale(matrix, j)] if has_tables else None
                    )
                    y[i, j] = add_epilogue(op, total[0], bias, residual, (i, j), factor)

    return keep_parameters(kernel, op)


def _arrays(op: LinearLayer) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and dtype of each array; those that the matrix lacks are left out later."""
    absent = ((1,), "float32")
    arrays = op.weight_layout.arrays(op.matrix)
    return {"scales": absent, "row_scales": absent, "levels": absent, **arrays}
