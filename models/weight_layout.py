"""Weight layouts: how a stored matrix is arranged in memory, for the kernels that read it.

A weight format says which integers and scales a matrix is rounded to (`models.quantization`); a
layout says where each of them lies, and arranges them. Every kernel set in ``schedules`` declares
one layout, and packing, the definitions of operations and the oracles of kernels are all written
over this interface. Imports no tvm.

Every layout has the same arrays: ``weight``, for an integer format ``scales``, and for one with
tables of levels ``row_scales`` and ``levels``. Shapes and places are the layout's; ``levels`` is
``(ceil(N / 16), 16)`` in every one, a table for each 16 features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mvlm.models.bit_packing import NIBBLE_SETS, NIBBLES_PER_WORD, SPARE_BIT, pack_rows
from mvlm.models.quantization import (
    GROUP_SIZE,
    TABLE_LEVELS,
    TABLE_ROWS,
    Activations,
    QuantizedMatrix,
    Scheme,
    WeightFormat,
    quantize,
)
from mvlm.models.rounding import Rounding

Array = npt.NDArray[Any]
# An integer, a NumPy array of them, or a TensorIR expression.
Index = Any
SomeLayout = TypeVar("SomeLayout", bound="WeightLayout")
# Of a matrix that are rounded at once: what is computed on the way stays in the cache.
_BLOCK_VALUES = 1 << 18


@dataclass(frozen=True)
class Matrix:
    """A matrix ``(features, width)``, as far as its layout may depend on it.

    Attributes:
        features: N; rows of an embedding table.
        width: K.
        weight_format: What it is rounded to.
        activations: The dtype of what it is multiplied with.
    """

    features: int
    width: int
    weight_format: WeightFormat
    activations: Activations = "float32"

    @property
    def groups(self) -> int:
        """Groups of 32 along K."""
        return -(-self.width // GROUP_SIZE)

    @property
    def stored_width(self) -> int:
        """K, filled up to whole groups where activations are integers: they are as well."""
        return self.width if self.activations == "float32" else self.groups * GROUP_SIZE


@dataclass(frozen=True)
class Piece:
    """Some adjacent bits of a stored integer, and where they lie.

    Attributes:
        index: Of the element of ``weight`` that holds them.
        shift: The lowest of them within the element; None where the integer fills the element.
        bits: How many.
        position: The lowest of them within the integer.
    """

    index: tuple[Index, ...]
    shift: Index | None = None
    bits: int = 0
    position: int = 0


def nibble_pieces(
    bits: int, nibble_set: Index, shift: Index, index: Callable[[Index], tuple[Index, ...]]
) -> tuple[Piece, ...]:
    """Return the pieces of an integer that is a nibble of 4 bits, or one of `join_sets` of 3.

    Args:
        bits: 4 or 3.
        nibble_set: The set of nibbles that it belongs to; 3 is that of the spare bits.
        shift: The lowest bit of its nibble within the element.
        index: Returns the index of the element that a set's nibble lies in.
    """
    if bits == 4:
        return (Piece(index(nibble_set), shift, bits),)
    is_spare = nibble_set // NIBBLE_SETS
    is_own = 1 - is_spare
    return tuple(
        Piece(
            index(nibble_set * is_own + bit * is_spare),
            shift + bit * is_own + SPARE_BIT * is_spare,
            bits=1,
            position=bit,
        )
        for bit in range(bits)
    )


def table_array(features: int) -> tuple[tuple[int, ...], str]:
    """Return shape and dtype of the array ``levels``, which is the same in every layout."""
    return (-(-features // TABLE_ROWS), TABLE_LEVELS), "int8"


class WeightLayout(ABC):
    """Where the weights and scales of a matrix lie.

    The places are plain arithmetic: their arguments are integers, NumPy arrays or TensorIR
    expressions alike.

    Attributes:
        name: In the signatures of operations, the index of packed weights, and keys.
    """

    name: str

    @abstractmethod
    def arrays(self, matrix: Matrix) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of each array, in order."""

    @abstractmethod
    def arrange(self, quantized: QuantizedMatrix, matrix: Matrix) -> tuple[Array, ...]:
        """Arrange a matrix that has been rounded.

        Args:
            quantized: The matrix, of `matrix`'s format.
            matrix: What it is.

        Returns:
            The values of :meth:`arrays`. What fills them up is zero when it is read.
        """

    @abstractmethod
    def arrange_floats(self, values: Array) -> Array:
        """Arrange a matrix ``(features, width)`` of a float format."""

    def pack(self, values: Array, matrix: Matrix, rounding: Rounding) -> tuple[Array, ...]:
        """Round a matrix to its format and arrange it, some features at a time.

        Args:
            values: ``(features, width)``: of any float type, or of the dtype of a float format.
            matrix: What it is.
            rounding: How scales are chosen.

        Returns:
            The values of :meth:`arrays`. What fills them up is zero when it is read.
        """
        if not matrix.weight_format.is_integer:
            return (self.arrange_floats(values),)

        def rounded(part: slice) -> QuantizedMatrix:
            return quantize(values[part], matrix.weight_format, rounding)

        return self._by_blocks(rounded, matrix)

    def pack_quantized(self, quantized: QuantizedMatrix, matrix: Matrix) -> tuple[Array, ...]:
        """Return what :meth:`arrange` does, made of some features at a time.

        It saves memory: arranging takes several times a matrix's own.
        """
        return self._by_blocks(quantized.rows, matrix)

    def _by_blocks(
        self, rows: Callable[[slice], QuantizedMatrix], matrix: Matrix
    ) -> tuple[Array, ...]:
        """Arrange a matrix whose rows a function returns."""
        whole = tuple(np.empty(shape, dtype) for shape, dtype in self.arrays(matrix).values())
        step = max(1, _BLOCK_VALUES // (matrix.width * TABLE_ROWS)) * TABLE_ROWS
        for start in range(0, matrix.features, step):
            stop = min(start + step, matrix.features)
            block = replace(matrix, features=stop - start)
            parts = self.arrange(rows(slice(start, stop)), block)
            for array, part in zip(whole, parts, strict=True):
                # Features that share an index: one, or those of a panel or of a table.
                shared = 1 if len(array) == matrix.features else TABLE_ROWS
                array[start // shared : start // shared + len(part)] = part
        return whole

    @abstractmethod
    def pieces(self, matrix: Matrix, feature: Index, k: Index) -> tuple[Piece, ...]:
        """Return where the stored integer of a feature's weight at `k` lies, or its float."""

    @abstractmethod
    def scale(self, matrix: Matrix, feature: Index, group: Index) -> tuple[Index, ...]:
        """Return the index in ``scales`` of a feature's group."""

    @abstractmethod
    def row_scale(self, matrix: Matrix, feature: Index) -> tuple[Index, ...]:
        """Return the index in ``row_scales`` of a feature."""

    @abstractmethod
    def zero_point(self, weight_format: WeightFormat, activations: Activations) -> int:
        """Return the stored integer that stands for zero, of a format without tables."""

    def correction(self, weight_format: WeightFormat, activations: Activations) -> int:
        """Return the zero point that ``zero_point_correction`` accounts for.

        A kernel that multiplies unsigned bytes, which are the weights' integers plus that, adds
        what comes with the activations. It is 0 where kernels multiply signed integers.
        """
        del weight_format, activations
        return 0


class RowsLayout(WeightLayout):
    """A format's own arrays: features first, each row contiguous (see `models.quantization`).

    Embedding tables have it in every kernel set, since one token reads one row.
    """

    name = "rows"

    def arrays(self, matrix: Matrix) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """``(N, elements)``, ``(N, groups)``, ``(N,)`` and ``(ceil(N / 16), 16)``."""
        features, weight_format = matrix.features, matrix.weight_format
        elements = weight_format.elements(matrix.stored_width)
        found: dict[str, tuple[tuple[int, ...], str]] = {
            "weight": ((features, elements), weight_format.dtype)
        }
        if weight_format.is_integer:
            found["scales"] = ((features, matrix.groups), weight_format.scale_dtype)
        if weight_format.has_tables:
            found["row_scales"] = ((features,), "float32")
            found["levels"] = table_array(features)
        return found

    def arrange(self, quantized: QuantizedMatrix, matrix: Matrix) -> tuple[Array, ...]:
        """Fill up the rows, and pack bits (see `models.bit_packing`)."""
        weight_format = matrix.weight_format
        zero = weight_format.zero_point
        stored = quantized.integers if weight_format.has_tables else quantized.integers + zero
        missing = matrix.stored_width - matrix.width
        whole = np.pad(stored, ((0, 0), (0, missing)), constant_values=zero) if missing else stored
        words = pack_rows(whole, weight_format)
        if quantized.row_scales is None or quantized.levels is None:
            return words, quantized.scales
        return words, quantized.scales, quantized.row_scales, quantized.levels

    def arrange_floats(self, values: Array) -> Array:
        """As they are."""
        return np.ascontiguousarray(values)

    def pieces(self, matrix: Matrix, feature: Index, k: Index) -> tuple[Piece, ...]:
        """Those of `models.bit_packing`."""
        bits = matrix.weight_format.bits
        if matrix.weight_format.packing == 1:
            return (Piece((feature, k)),)
        group_words = GROUP_SIZE * bits // 32
        within = k % GROUP_SIZE

        def index(word: Index) -> tuple[Index, ...]:
            return (feature, k // GROUP_SIZE * group_words + word)

        return nibble_pieces(bits, within // NIBBLES_PER_WORD, within % NIBBLES_PER_WORD * 4, index)

    def scale(self, matrix: Matrix, feature: Index, group: Index) -> tuple[Index, ...]:
        """One for each group of a row."""
        return (feature, group)

    def row_scale(self, matrix: Matrix, feature: Index) -> tuple[Index, ...]:
        """One for each row."""
        return (feature,)

    def zero_point(self, weight_format: WeightFormat, activations: Activations) -> int:
        """The format's."""
        del activations
        return weight_format.zero_point


@dataclass(frozen=True)
class LinearFormat:
    """How the linear layers of a part of the model are stored and computed.

    Attributes:
        scheme: What weights and activations are rounded to.
        layout: How weights are arranged, for the kernels of the target.
    """

    scheme: Scheme
    layout: WeightLayout

    def matrix(self, features: int, width: int) -> Matrix:
        """Return what a layer's matrix is."""
        return Matrix(features, width, self.scheme.weights, self.scheme.activations)

    @property
    def correction(self) -> int:
        """The zero point that activations come with a correction for; 0 without one."""
        return self.layout.correction(self.scheme.weights, self.scheme.activations)


_LAYOUTS: dict[str, WeightLayout] = {}


def register_layout(layout: SomeLayout) -> SomeLayout:
    """Make a layout known by its name in this process; its module does so once."""
    assert layout.name not in _LAYOUTS, f"two layouts are named {layout.name}"
    _LAYOUTS[layout.name] = layout
    return layout


def layout_named(name: str) -> WeightLayout:
    """Return the layout that a signature names.

    ``schedules.registry`` imports the layouts of kernel sets; this finds them again when a
    signature is read from a definition or from a tuning log.

    Raises:
        ValueError: No module that is imported has one of that name.
    """
    if name not in _LAYOUTS:
        raise ValueError(f"{name[:40]!r} is no layout of weights, expected one of {[*_LAYOUTS]}")
    return _LAYOUTS[name]


ROWS = register_layout(RowsLayout())
