"""The schedule rule for functions without a kernel: elementwise, small reductions, lookups.

Producers are inlined into their consumers, each remaining loop nest is vectorized over its last
axis and, where it is large or of unknown size, parallelized.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir import dlight

# Elements of a vector.
VECTOR = 8
# Below this many elements, waking the other threads costs more than they save.
_PARALLEL_ELEMENTS = 32_768


def default_schedule(function: tirx.PrimFunc, vector: int = VECTOR) -> tirx.PrimFunc | None:
    """Schedule any function; None where its loops have no known form.

    Args:
        function: The function.
        vector: Elements of a vector; 1 for plain loops.
    """
    schedule = s_tir.Schedule(function)
    blocks = dlight.normalize_prim_func(schedule)
    if blocks is None:
        return None
    blocks = dlight.try_inline(schedule, blocks)
    for block in blocks:
        _schedule_block(schedule, block, vector)
    return schedule.mod["main"]


def _schedule_block(schedule: s_tir.Schedule, info: Any, vector: int) -> None:
    loops = schedule.get_loops(info.block_rv)
    if len(loops) != len(info.iters):
        return  # a scalar, whose axes are not loops
    spatial = [loop for loop, axis in zip(loops, info.iters, strict=True) if axis.kind == "S"]
    if not spatial:
        return
    known = [_extent(schedule, loop) for loop in spatial]
    last = known[-1]
    is_last_innermost = info.iters[-1].kind == "S"
    if vector > 1 and is_last_innermost and last is not None and last % vector == 0:
        outer, inner = schedule.split(spatial[-1], [None, vector])
        schedule.vectorize(inner)
        spatial[-1] = outer
    size = _elements(known)
    leading = _leading_spatial(info)
    if leading and (size is None or size >= _PARALLEL_ELEMENTS):
        fused = spatial[:leading]
        schedule.parallel(schedule.fuse(*fused) if len(fused) > 1 else fused[0])


def _leading_spatial(info: Any) -> int:
    """Count the spatial axes in front of the first reduction."""
    count = 0
    for axis in info.iters:
        if axis.kind != "S":
            break
        count += 1
    return count


def _extent(schedule: s_tir.Schedule, loop: Any) -> int | None:
    extent = schedule.get(loop).extent
    return int(extent) if isinstance(extent, tirx.IntImm) else None


def _elements(extents: list[int | None]) -> int | None:
    product = 1
    for extent in extents:
        if extent is None:
            return None
        product *= extent
    return product
