"""Weight layouts: how a stored matrix is arranged in memory, for the kernels that read it.

A weight format says which integers and scales a matrix is rounded to (`models.quantization`); a
layout says where each of them lies. Every kernel set in ``schedules`` declares one layout, and
packing, the definitions of operations and the oracles of kernels are all written over this
interface. Imports no tvm.

Every layout has the same arrays: ``weight``, and for an integer format ``scales`` and, where the
format has them, ``row_scales``. Shapes and places are the layout's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mvlm.models.quantization import GROUP_SIZE, Activations, Scheme, WeightFormat, quantize
from mvlm.models.rounding import Rounding

Array = npt.NDArray[Any]
# An integer, a NumPy array of them, or a TensorIR expression.
Index = Any
SomeLayout = TypeVar("SomeLayout", bound="WeightLayout")


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
class Element:
    """Where a weight is stored.

    Attributes:
        index: Of the element of ``weight`` that holds it.
        shift: The weight's lowest bit within the element; None where it fills the element.
    """

    index: tuple[Index, ...]
    shift: Index | None = None


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
    def pack(self, values: Array, matrix: Matrix, rounding: Rounding) -> tuple[Array, ...]:
        """Round a matrix to its format and arrange it.

        Args:
            values: ``(features, width)``: of any float type, or of the dtype of a float format.
            matrix: What it is.
            rounding: How scales are chosen.

        Returns:
            The values of :meth:`arrays`. What fills them up is zero when it is read.
        """

    @abstractmethod
    def element(self, matrix: Matrix, feature: Index, k: Index) -> Element:
        """Return the place of a feature's weight at `k`."""

    @abstractmethod
    def scale(self, matrix: Matrix, feature: Index, group: Index) -> tuple[Index, ...]:
        """Return the index in ``scales`` of a feature's group."""

    @abstractmethod
    def row_scale(self, matrix: Matrix, feature: Index) -> tuple[Index, ...]:
        """Return the index in ``row_scales`` of a feature."""

    @abstractmethod
    def zero_point(self, weight_format: WeightFormat, activations: Activations) -> int:
        """Return the stored integer that stands for zero."""

    def correction(self, weight_format: WeightFormat, activations: Activations) -> int:
        """Return the zero point that ``zero_point_correction`` accounts for.

        A kernel that multiplies stored integers as they are adds that, which comes with the
        activations. It is 0 where kernels subtract the zero point from every integer.
        """
        del weight_format, activations
        return 0


class RowsLayout(WeightLayout):
    """A format's own arrays: features first, each row contiguous (see `models.quantization`).

    Embedding tables have it in every kernel set, since one token reads one row.
    """

    name = "rows"

    def arrays(self, matrix: Matrix) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """``(N, elements)``, ``(N, groups)``, ``(N,)``."""
        features, weight_format = matrix.features, matrix.weight_format
        elements = weight_format.elements(matrix.stored_width)
        found: dict[str, tuple[tuple[int, ...], str]] = {
            "weight": ((features, elements), weight_format.dtype)
        }
        if weight_format.is_integer:
            found["scales"] = ((features, matrix.groups), weight_format.scale_dtype)
        if weight_format.has_row_scales:
            found["row_scales"] = ((features,), "float32")
        return found

    def pack(self, values: Array, matrix: Matrix, rounding: Rounding) -> tuple[Array, ...]:
        """Fill up the rows and round them."""
        missing = matrix.stored_width - values.shape[1]
        whole = np.pad(values, ((0, 0), (0, missing))) if missing else values
        if not matrix.weight_format.is_integer:
            return (np.ascontiguousarray(whole),)
        return quantize(whole, matrix.weight_format, rounding)

    def element(self, matrix: Matrix, feature: Index, k: Index) -> Element:
        """Several weights share an element, the first in the lowest bits."""
        packing = matrix.weight_format.packing
        if packing == 1:
            return Element((feature, k))
        return Element((feature, k // packing), k % packing * matrix.weight_format.bits)

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
