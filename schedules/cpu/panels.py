"""Panels: the layout of weights that CPUs with vector instructions read. Imports no tvm.

A panel holds 16 output features, interleaved, so that a kernel reads it sequentially, however wide
the matrix is. For float32 activations each element along K holds 16 values, one of each feature:
float weights are ``(ceil(N/16), K, 16)``; packed ones (see `quantization`)
``(ceil(N/16), ceil(K/packing), 16)``, with scales ``(ceil(N/16), ceil(K/32), 16)``.

CPUs that multiply bytes (AVX2, AVX-512 VNNI, Armv8.2 dot products) multiply four neighbouring
weights of one output feature with four activations, and add the products; with 16-bit integers two
and two. For integer activations a panel is laid out for them:

==============  ============================================  =================
array           shape                                         dtype
==============  ============================================  =================
``weight``      (ceil(N/16), ceil(K/32), steps, 64 or 32)     uint8 or int16
``scales``      (ceil(N/16), ceil(K/32), 16)                  float16 or int8
``row_scales``  (ceil(N/16), 16), with 4-bit weights          float32
==============  ============================================  =================

A group of 32 along K takes 8 steps of 64 bytes with 8-bit weights: byte ``4c + j`` of step s is
the quantized value of feature c at ``4s + j``. With 4-bit weights it takes 4: the low nibble of
that byte is the value at ``4s + j``, the high nibble that at ``16 + 4s + j``. Quantized values are
unsigned, with the zero point (8, or 128) added. 16-bit weights are signed and take 16 steps of 32:
element ``2c + j`` of step s is the integer of feature c at ``2s + j``. Padding of N and K is the
zero point; padding of N has scale 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mvlm.models.quantization import GROUP_SIZE, Activations, WeightFormat, quantize, unpack
from mvlm.models.rounding import Rounding
from mvlm.models.weight_layout import (
    ROWS,
    Array,
    Element,
    Index,
    Matrix,
    WeightLayout,
    register_layout,
)

FEATURES = 16
_STEP_FEATURE_BYTES = 4  # of one feature in a step: as many activations fill an int32

_BLOCK_VALUES = 1 << 20  # of a matrix that are arranged at once


def panel_count(features: int) -> int:
    """Return how many panels so many output features take."""
    return -(-features // FEATURES)


def interleave_panels(rows: Array) -> Array:
    """Arrange elements ``(features, count)`` as ``(panels, count, 16)``, padded with zeros."""
    features, count = rows.shape
    whole = np.zeros((panel_count(features) * FEATURES, count), rows.dtype)
    whole[:features] = rows
    return np.ascontiguousarray(whole.reshape(-1, FEATURES, count).transpose(0, 2, 1))


@dataclass(frozen=True)
class PanelLayout:
    """The layout of a group of 32 along K within a panel, for integer activations.

    Attributes:
        bits: Of a quantized value: 4, 8 or 16.
        zero: The zero point.
        unit: What scales are multiples of.
        depth: Adjacent weights of one feature.
        dtype: Of an element.
        activations: The dtype of the activations.
        scale_dtype: Of a group's scale.
        has_row_scales: Whether each feature has a scale of which its groups' are multiples.
    """

    bits: int
    zero: int
    unit: float
    depth: int
    dtype: str
    activations: Activations
    scale_dtype: str
    has_row_scales: bool

    @property
    def steps(self) -> int:
        """Steps of 64 bytes that a group takes."""
        return GROUP_SIZE * self.bits // 8 // _STEP_FEATURE_BYTES

    @property
    def step(self) -> int:
        """Elements of a step."""
        return FEATURES * self.depth

    def arrays(self, width: int, features: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of each array of a ``(features, width)`` matrix, in order."""
        panels, groups = panel_count(features), -(-width // GROUP_SIZE)
        found = {
            "weight": ((panels, groups, self.steps, self.step), self.dtype),
            "scales": ((panels, groups, FEATURES), self.scale_dtype),
        }
        if self.has_row_scales:
            found["row_scales"] = ((panels, FEATURES), "float32")
        return found


def panel_layout(weight_format: WeightFormat) -> PanelLayout:
    """Return how integers of a weight format lie in panels."""
    bits = weight_format.bits
    is_byte = bits <= 8
    return PanelLayout(
        bits=bits,
        zero=1 << (bits - 1) if is_byte else 0,
        unit=weight_format.unit,
        depth=4 if is_byte else 2,
        dtype="uint8" if is_byte else "int16",
        activations=weight_format.integer_activations,
        scale_dtype=weight_format.scale_dtype,
        has_row_scales=weight_format.has_row_scales,
    )


def quantize_to_panels(
    matrix: Array, weight_format: WeightFormat, rounding: Rounding
) -> tuple[Array, ...]:
    """Quantize a matrix ``(features, width)`` of any float type and arrange it in panels.

    Some panels at a time: what is computed on the way takes many times a panel's memory.
    """
    features, width = matrix.shape
    arrays = panel_layout(weight_format).arrays(width, features).values()
    whole = tuple(np.empty(shape, dtype) for shape, dtype in arrays)
    step = max(1, _BLOCK_VALUES // (FEATURES * width))
    for first in range(0, panel_count(features), step):
        block = matrix[first * FEATURES : (first + step) * FEATURES]
        elements, *scales = quantize(block, weight_format, rounding)
        integers = unpack(elements, weight_format)[:, :width]
        for array, part in zip(whole, to_panels(integers, scales, weight_format), strict=True):
            array[first : first + step] = part
    return whole


def to_panels(
    integers: Array, scales: Sequence[Array], weight_format: WeightFormat
) -> tuple[Array, ...]:
    """Arrange a matrix in panels.

    Args:
        integers: ``(features, width)``, the zero point subtracted.
        scales: Those of the groups ``(features, ceil(width / 32))`` and, where the format has
            them, of the rows ``(features,)``.
        weight_format: Their format.
    """
    features, width = integers.shape
    layout = panel_layout(weight_format)
    integer_shape, _ = layout.arrays(width, features)["weight"]
    panels, groups, steps, _ = integer_shape
    quantized = np.full((panels * FEATURES, groups * GROUP_SIZE), layout.zero, layout.dtype)
    quantized[:features, :width] = integers + layout.zero
    halves = GROUP_SIZE // (layout.depth * steps)
    # panel, feature, group, half, step, j -> panel, group, step, feature, j, half
    unpacked = quantized.reshape(panels, FEATURES, groups, halves, steps, layout.depth)
    unpacked = unpacked.transpose(0, 2, 4, 1, 5, 3)
    joined = unpacked[..., 0] if halves == 1 else unpacked[..., 0] | unpacked[..., 1] << 4
    arranged = [np.ascontiguousarray(joined).reshape(integer_shape), interleave_panels(scales[0])]
    arranged += [interleave_panels(rows[:, None])[:, 0] for rows in scales[1:]]
    return tuple(arranged)


class PanelsLayout(WeightLayout):
    """Panels of 16 features, arranged by the activations that they are multiplied with."""

    name = "panels16"

    def arrays(self, matrix: Matrix) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """Those of the module's table; the format's own, interleaved, for float32 activations."""
        if matrix.activations != "float32":
            return panel_layout(matrix.weight_format).arrays(matrix.width, matrix.features)
        panels = panel_count(matrix.features)
        return {
            name: ((panels, *shape[1:], FEATURES), dtype)
            for name, (shape, dtype) in ROWS.arrays(matrix).items()
        }

    def pack(self, values: Array, matrix: Matrix, rounding: Rounding) -> tuple[Array, ...]:
        """Round and interleave."""
        if matrix.activations != "float32":
            return quantize_to_panels(values, matrix.weight_format, rounding)
        return tuple(
            interleave_panels(array.reshape(matrix.features, -1)).reshape(shape)
            for array, (shape, _) in zip(
                ROWS.pack(values, matrix, rounding), self.arrays(matrix).values(), strict=True
            )
        )

    def element(self, matrix: Matrix, feature: Index, k: Index) -> Element:
        """The module's description as arithmetic."""
        panel, column = feature // FEATURES, feature % FEATURES
        if matrix.activations == "float32":
            place = ROWS.element(matrix, feature, k)
            return Element((panel, *place.index[1:], column), place.shift)
        group = panel_layout(matrix.weight_format)
        within, depth, steps = k % GROUP_SIZE, group.depth, group.steps
        step, half = within // depth % steps, within // (depth * steps)
        index = (panel, k // GROUP_SIZE, step, column * depth + within % depth)
        return Element(index, half * 4 if group.bits == 4 else None)

    def scale(self, matrix: Matrix, feature: Index, group: Index) -> tuple[Index, ...]:
        """Those of a panel's features side by side."""
        return (feature // FEATURES, group, feature % FEATURES)

    def row_scale(self, matrix: Matrix, feature: Index) -> tuple[Index, ...]:
        """Those of a panel's features side by side."""
        return (feature // FEATURES, feature % FEATURES)

    def zero_point(self, weight_format: WeightFormat, activations: Activations) -> int:
        """The format's, or that of unsigned bytes, which CPUs multiply with signed ones."""
        if activations == "float32":
            return weight_format.zero_point
        return panel_layout(weight_format).zero

    def correction(self, weight_format: WeightFormat, activations: Activations) -> int:
        """The zero point of unsigned bytes; kernels for float32 activations convert integers."""
        return 0 if activations == "float32" else self.zero_point(weight_format, activations)


PANELS = register_layout(PanelsLayout())
