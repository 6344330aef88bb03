"""The base of all signatures: parameters, attributes and the canonical text of an operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, TypeVar, get_type_hints

from mvlm.models.quantization import is_of_levels
from mvlm.models.weight_layout import Matrix, WeightLayout

# The prefix of the attributes that hold a signature's fields, and the one that names the operation.
ATTRIBUTE_PREFIX = "mvlm."
OP_ATTRIBUTE = ATTRIBUTE_PREFIX + "op"
# The symbolic extents of rows that are not known before a call: any number of them, and few.
ROWS, FEW_ROWS = "rows", "few_rows"
# Few rows are up to `MOST_FEW_ROWS` of the artifact's layout, such as a token of each of some
# sequences: reading the weights takes longer than computing with them.
FEW = "few"
_SYMBOLIC = "any"

# An extent of a shape: a number, or the name of one that only a call knows.
Extent = int | str
# How many rows an operation has: a number, "few", or None for any.
RowCount = int | str | None
Value = int | float | str
SomeSignature = TypeVar("SomeSignature", bound="Signature")


@dataclass(frozen=True)
class Parameter:
    """One parameter of an operation.

    Attributes:
        name: Unique within the operation.
        shape: Its extents.
        dtype: Of an element.
        is_written: Whether the operation writes it; it is an output, or changed in place.
    """

    name: str
    shape: tuple[Extent, ...]
    dtype: str
    is_written: bool = False

    def known_shape(self, extents: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape with values for its symbolic extents."""
        return tuple(extents[each] if isinstance(each, str) else each for each in self.shape)


@dataclass(frozen=True)
class Signature:
    """All that a kernel of an operation may depend on.

    A subclass adds fields, each an int, a float, a bool or a string, or None where an extent is
    symbolic. A definition carries them as attributes: :meth:`attributes` makes those, and
    :meth:`of` reads them back. :attr:`text` names the signature in tuning logs.

    Attributes:
        OP: The operation's name.
        VERSION: Of what the fields mean to a kernel. Raise it where kernels change so much that the
            results of earlier tuning no longer hold.
    """

    OP: ClassVar[str]
    VERSION: ClassVar[int] = 1

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters in order: inputs first, outputs last, optional ones only where given."""
        return self.declare()

    def declare(self) -> tuple[Parameter, ...]:
        """Make :attr:`parameters`."""
        raise NotImplementedError

    @property
    def is_single_row(self) -> bool:
        """Whether the operation has one row: the first extent of its first parameter is one."""
        return self.parameters[0].shape[0] == 1

    @property
    def has_few_rows(self) -> bool:
        """Whether the operation has few rows, how many only a call knows."""
        return self.parameters[0].shape[0] == FEW_ROWS

    @property
    def inputs(self) -> tuple[Parameter, ...]:
        """The parameters that are only read."""
        return tuple(each for each in self.parameters if not each.is_written)

    @property
    def text(self) -> str:
        """The canonical text: name, version and fields, without those of symbolic extents."""
        values = (f"{field.name}={_written(getattr(self, field.name))}" for field in fields(self))
        return " ".join((self.OP, f"v{self.VERSION}", *values))

    def attributes(self) -> dict[str, Value]:
        """Return the attributes of a definition."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        known = {name: value for name, value in values.items() if value is not None}
        return {OP_ATTRIBUTE: self.OP, **{ATTRIBUTE_PREFIX + name: known[name] for name in known}}

    @classmethod
    def of(cls: type[SomeSignature], definition: Any) -> SomeSignature:
        """Read the signature of a definition, or of a kernel.

        Args:
            definition: A ``tirx.PrimFunc`` of the operation.

        Raises:
            ValueError: It is another operation's.
            KeyError: It lacks an attribute.
        """
        attributes = dict((definition.attrs or {}).items())
        if attributes.get(OP_ATTRIBUTE) != cls.OP:
            raise ValueError(f"expected {cls.OP}, found {attributes.get(OP_ATTRIBUTE)}")
        return cls(
            **{
                name: _converted(types, attributes, ATTRIBUTE_PREFIX + name)
                for name, types in _field_types(cls).items()
            }
        )

    @classmethod
    def parse(cls: type[SomeSignature], text: str) -> SomeSignature:
        """Read a signature from its canonical text.

        Raises:
            ValueError: The text is of another operation or version, has other fields, or names a
                layout or a format of weights that is gone.
        """
        name, _, rest = text.partition(" ")
        version, *words = rest.split(" ")
        values = dict(word.split("=", 1) for word in words if "=" in word)
        types = _field_types(cls)
        if (name, version) != (cls.OP, f"v{cls.VERSION}") or list(values) != list(types):
            raise ValueError(f"{text[:80]!r} is no signature of {cls.OP} v{cls.VERSION}")
        known = {key: value for key, value in values.items() if value != _SYMBOLIC}
        found = cls(**{key: _converted(types[key], known, key) for key in types})
        found.parameters  # noqa: B018  # which looks up what the fields name
        return found


def rows_extent(rows: RowCount) -> Extent:
    """Return the extent of a number of rows: symbolic where it is "few" or None."""
    if rows is None:
        return ROWS
    return FEW_ROWS if isinstance(rows, str) else rows


def stored_parameters(layout: WeightLayout, matrix: Matrix) -> tuple[Parameter, ...]:
    """Return the parameters that a matrix is stored in: its layout's arrays."""
    return tuple(Parameter(name, *array) for name, array in layout.arrays(matrix).items())


def zero_point_parameters(
    rows: Extent, groups: int, zero_point: int, is_written: bool = False
) -> tuple[Parameter, ...]:
    """Return the parameters that account for a zero point of weights (see `QuantizeRowsSignature`).

    Args:
        rows: M.
        groups: Of a row.
        zero_point: The zero point; 0 without one.
        is_written: Whether the operation computes them.
    """
    if zero_point == 0:
        return ()
    total = Parameter("zero_point_correction", (rows, groups), "int32", is_written)
    if not is_of_levels(zero_point):
        return (total,)
    halves = Parameter("zero_point_halves", (rows, groups, 2), "int16", is_written)
    return (total, halves, Parameter("offset_sums", (rows, groups), "float32", is_written))


def _field_types(signature: type[Signature]) -> dict[str, Any]:
    hints = get_type_hints(signature)
    return {field.name: hints[field.name] for field in fields(signature)}


def _converted(kind: Any, values: Mapping[str, Any], name: str) -> Value | None:
    """Return a field's value, of the field's type."""
    if kind == RowCount:
        found = values.get(name)
        return found if found in (None, FEW) else int(found)
    value = values[name]
    converted: Value = kind(int(value)) if kind is bool else kind(value)
    return converted


def _written(value: Value | None) -> str:
    if value is None:
        return _SYMBOLIC
    return (
        repr(value)
        if isinstance(value, float)
        else str(int(value) if isinstance(value, bool) else value)
    )
