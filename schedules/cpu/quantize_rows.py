"""Quantizing activations to 8 bits on a CPU, a group of 32 in registers."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from mvlm.schedules.cpu.int8 import LARGEST_INT8, inverse_scale
from mvlm.schedules.signature import is_single_row, parameter_types

_GROUP = 32


def quantize_rows(definition: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Serve ``quantize_rows`` of whole groups."""
    x_type, *_ = parameter_types(definition)
    width, zero = int(x_type.shape[1]), int(definition.attrs["mvlm.zero"])
    if width % _GROUP:
        return None
    groups = width // _GROUP
    loop = T.serial if is_single_row(x_type) else T.parallel

    @T.prim_func(private=True, s_tir=True)
    def kernel(
        x_handle: T.handle,
        integer_handle: T.handle,
        scale_handle: T.handle,
        offset_handle: T.handle,
    ):
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, width), "float32")
        integers = T.match_buffer(integer_handle, (rows, width), "int8")
        scales = T.match_buffer(scale_handle, (rows, groups), "float32")
        offsets = T.match_buffer(offset_handle, (rows, groups), "int32")
        for i in loop(rows):
            for group in T.serial(groups):
                with T.sblock("group"):
                    sizes = T.sblock_alloc_buffer((_GROUP,), "float32", scope="local")
                    levels = T.sblock_alloc_buffer((_GROUP,), "int32", scope="local")
                    for c in T.vectorized(_GROUP):
                        sizes[c] = T.abs(x[i, group * _GROUP + c])
                    for c in T.vectorized(16):
                        sizes[c] = T.max(sizes[c], sizes[16 + c])
                    for c in T.vectorized(8):
                        sizes[c] = T.max(sizes[c], sizes[8 + c])
                    for c in T.vectorized(4):
                        sizes[c] = T.max(sizes[c], sizes[4 + c])
                    for c in T.vectorized(2):
                        sizes[c] = T.max(sizes[c], sizes[2 + c])
                    sizes[0] = T.max(sizes[0], sizes[1])
                    scales[i, group] = sizes[0] / T.float32(LARGEST_INT8)
                    sizes[0] = inverse_scale(sizes[0])
                    for c in T.vectorized(_GROUP):
                        levels[c] = T.Cast(
                            "int32", T.nearbyint(x[i, group * _GROUP + c] * sizes[0])
                        )
                    for c in T.vectorized(_GROUP):
                        integers[i, group * _GROUP + c] = T.Cast("int8", levels[c])
                    for c in T.vectorized(16):
                        levels[c] = levels[c] + levels[16 + c]
                    for c in T.vectorized(8):
                        levels[c] = levels[c] + levels[8 + c]
                    for c in T.vectorized(4):
                        levels[c] = levels[c] + levels[4 + c]
                    offsets[i, group] = T.int32(-zero) * (
                        levels[0] + levels[1] + levels[2] + levels[3]
                    )

    return kernel
