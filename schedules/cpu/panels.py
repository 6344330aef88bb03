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
``scales``      (ceil(N/16), ceil(K/32), 16)                  float16 or uint8
``row_scales``  (ceil(N/16), 16), with 4 and 3 bits           float32
``levels``      (ceil(N/16), 16), with 4 and 3 bits           int8
==============  ============================================  =================

A group of 32 along K takes 8 steps of 64 bytes with 8-bit weights: byte ``4c + j`` of step s is
the integer of feature c at ``4s + j``, plus 128. 16-bit weights are signed and take 16 steps of 32:
element ``2c + j`` of step s is the integer of feature c at ``2s + j``.

Weights of 4 and 3 bits are indices of their panel's levels. With 4 bits a group takes 4 steps: the
low nibble of byte ``4c + j`` of step s is the index at ``4s + j``, the high nibble that at
``16 + 4s + j``. With 3 bits it takes 3, whose nibbles hold the same indices in their lower three
bits; bit b of those of step 3 is the fourth bit of the same nibbles of step b (see `bit_packing`).
So the indices of one step need no work but a shift, and a byte shuffle that looks levels up ignores
the fourth bit if its table is repeated.

Kernels multiply unsigned bytes: the integers or levels plus 128, with AVX2 levels plus 16. Padding
of N and K is byte 128, or index 0, which activations of 0 or a scale of 0 make zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mvlm.models.bit_packing import join_sets
from mvlm.models.quantization import (
    GROUP_SIZE,
    MAX_LEVEL,
    TABLE_ROWS,
    Activations,
    QuantizedMatrix,
    WeightFormat,
)
from mvlm.models.weight_layout import (
    ROWS,
    Array,
    Index,
    Matrix,
    Piece,
    WeightLayout,
    nibble_pieces,
    register_layout,
    table_array,
)

FEATURES = 16
assert FEATURES == TABLE_ROWS  # a panel has one table of levels
_STEP_FEATURE_BYTES = 4  # of one feature in a step: as many activations fill an int32


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
        bits: Of a stored integer: 3, 4, 8 or 16.
        zero: The stored integer that stands for zero; 0 where they are indices of levels.
        correction: What is added to integers or levels to make the unsigned bytes that kernels
            multiply; 0 where those are signed.
        unit: What scales are multiples of, without row scales.
        depth: Adjacent weights of one feature.
        dtype: Of an element.
        activations: The dtype of the activations.
        scale_dtype: Of a group's scale.
        has_tables: Whether stored integers are indices of the panel's levels, and each feature has
            a scale of which its groups' are multiples.
    """

    bits: int
    zero: int
    correction: int
    unit: float
    depth: int
    dtype: str
    activations: Activations
    scale_dtype: str
    has_tables: bool

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
        if self.has_tables:
            found["row_scales"] = ((panels, FEATURES), "float32")
            found["levels"] = table_array(features)
        return found


def panel_layout(weight_format: WeightFormat) -> PanelLayout:
    """Return how integers of a weight format lie in panels."""
    bits, has_tables = weight_format.bits, weight_format.has_tables
    is_byte = bits <= 8
    byte_zero = 1 << (bits - 1) if is_byte else 0
    return PanelLayout(
        bits=bits,
        zero=0 if has_tables else byte_zero,
        correction=MAX_LEVEL if has_tables else byte_zero,
        unit=weight_format.unit,
        depth=4 if is_byte else 2,
        dtype="uint8" if is_byte else "int16",
        activations=weight_format.integer_activations,
        scale_dtype=weight_format.scale_dtype,
        has_tables=has_tables,
    )


def to_panels(quantized: QuantizedMatrix, weight_format: WeightFormat) -> tuple[Array, ...]:
    """Arrange a matrix in panels, for integer activations.

    Args:
        quantized: The matrix ``(features, width)``.
        weight_format: Its format.
    """
    features, width = quantized.integers.shape
    layout = panel_layout(weight_format)
    panels, groups = panel_count(features), -(-width // GROUP_SIZE)
    stored: Array = np.full((panels * FEATURES, groups * GROUP_SIZE), layout.zero, layout.dtype)
    stored[:features, :width] = np.add(quantized.integers, layout.zero, dtype=np.int16)
    stored = stored.reshape(panels, FEATURES, groups, -1, layout.depth).transpose(0, 2, 3, 1, 4)
    stored = stored.reshape(panels, groups, -1, layout.step)
    if layout.bits < 8:  # Nibbles: the second half of the steps is the high ones.
        half = stored.shape[2] // 2
        low, high = stored[:, :, :half], stored[:, :, half:]
        if layout.bits == 3:
            low, high = join_sets(low), join_sets(high)
        stored = low | high << 4
    arranged = [np.ascontiguousarray(stored), interleave_panels(quantized.scales)]
    if quantized.row_scales is not None and quantized.levels is not None:
        arranged += [interleave_panels(quantized.row_scales[:, None])[:, 0], quantized.levels]
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
            name: (shape if name == "levels" else (panels, *shape[1:], FEATURES), dtype)
            for name, (shape, dtype) in ROWS.arrays(matrix).items()
        }

    def arrange(self, quantized: QuantizedMatrix, matrix: Matrix) -> tuple[Array, ...]:
        """Arrange in panels; interleave a format's own arrays for float32 activations."""
        if matrix.activations != "float32":
            return to_panels(quantized, matrix.weight_format)
        return tuple(
            array
            if name == "levels"
            else interleave_panels(array.reshape(matrix.features, -1)).reshape(shape)
            for array, (name, (shape, _)) in zip(
                ROWS.arrange(quantized, matrix), self.arrays(matrix).items(), strict=True
            )
        )

    def arrange_floats(self, values: Array) -> Array:
        """Interleave."""
        return interleave_panels(values)

    def pieces(self, matrix: Matrix, feature: Index, k: Index) -> tuple[Piece, ...]:
        """The module's description as arithmetic."""
        panel, column = feature // FEATURES, feature % FEATURES
        if matrix.activations == "float32":
            return tuple(
                replace(piece, index=(panel, *piece.index[1:], column))
                for piece in ROWS.pieces(matrix, feature, k)
            )
        layout = panel_layout(matrix.weight_format)
        step = k % GROUP_SIZE // layout.depth

        def index(stored_step: Index) -> tuple[Index, ...]:
            element = column * layout.depth + k % layout.depth
            return (panel, k // GROUP_SIZE, stored_step, element)

        if layout.bits >= 8:
            return (Piece(index(step)),)
        half = GROUP_SIZE // layout.depth // 2
        return nibble_pieces(layout.bits, step % half, step // half * 4, index)

    def scale(self, matrix: Matrix, feature: Index, group: Index) -> tuple[Index, ...]:
        """Those of a panel's features side by side."""
        return (feature // FEATURES, group, feature % FEATURES)

    def row_scale(self, matrix: Matrix, feature: Index) -> tuple[Index, ...]:
        """Those of a panel's features side by side."""
        return (feature // FEATURES, feature % FEATURES)

    def zero_point(self, weight_format: WeightFormat, activations: Activations) -> int:
        """The format's, or that of unsigned bytes."""
        if activations == "float32":
            return weight_format.zero_point
        return panel_layout(weight_format).zero

    def correction(self, weight_format: WeightFormat, activations: Activations) -> int:
        """That of the unsigned bytes that CPUs multiply with signed ones.

        Kernels for float32 activations convert integers.
        """
        return 0 if activations == "float32" else panel_layout(weight_format).correction


PANELS = register_layout(PanelsLayout())
