"""The matrices that calibration has rounded, in a folder: one safetensors file for each part.

==================  =========================================================================
tensor              content
==================  =========================================================================
``X.integers``      ``(N, K)``: indices of levels, uint8, or integers (see `QuantizedMatrix`)
``X.scales``        ``(N, ceil(K / 32))``, of the format's dtype
``X.row_scales``    ``(N,)`` float32, where the format has tables of levels
``X.levels``        ``(ceil(N / 16), 16)`` int8, where it has
==================  =========================================================================

X is the linear layer's name in the model. A file's metadata hold a JSON object: the calibration's
key, and for each layer its format and errors. ``report.json`` is written last: it lists all layers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mvlm.models.quantization import (
    GROUP_SIZE,
    TABLE_LEVELS,
    TABLE_ROWS,
    WEIGHT_FORMATS,
    QuantizedMatrix,
    WeightFormat,
)
from mvlm.runtime.atomic_write import atomic_write
from mvlm.runtime.errors import ArtifactError

REPORT = "report.json"
_METADATA = "calibration"
_TENSORS = ("integers", "scales", "row_scales", "levels")
# What a file that is damaged, or is not ours, may raise as it is read.
_UNREADABLE = (OSError, SafetensorError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class LayerReport:
    """What calibration made of one linear layer.

    Attributes:
        layer: Its name.
        weight_format: What it is rounded to.
        error: The mean square of its output's change, relative to the output's own.
        plain_error: The same of rounding that does not know the inputs.
        fell_back: Whether plain rounding was taken, because its error is the smaller.
    """

    layer: str
    weight_format: str
    error: float
    plain_error: float
    fell_back: bool


@dataclass(frozen=True)
class RoundedPart:
    """The rounded matrices of a part of the model, by their layers' names."""

    matrices: Mapping[str, QuantizedMatrix]
    reports: tuple[LayerReport, ...]


class RoundedWeights:
    """A folder of rounded matrices.

    Args:
        folder: It is there.
        key: Of the calibration; what has another key counts as absent.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key

    def write(self, part: str, rounded: RoundedPart) -> None:
        """Write a part, whole or not at all."""
        # safetensors writes an array's memory as it lies, and reads it in C order.
        tensors = {
            f"{layer}.{name}": np.ascontiguousarray(value)
            for layer, matrix in rounded.matrices.items()
            for name in _TENSORS
            if (value := getattr(matrix, name)) is not None
        }
        reports = [asdict(each) for each in rounded.reports]
        # One entry: safetensors writes several in any order.
        metadata = {_METADATA: json.dumps({"key": self.key, "reports": reports})}
        data = save(tensors, metadata)
        with atomic_write(self._path(part)) as file:
            file.write(data)

    def read(self, part: str) -> RoundedPart | None:
        """Return a part; None where it is not there, damaged, or of another calibration."""
        try:
            with safe_open(self._path(part), framework="numpy") as file:
                document = json.loads((file.metadata() or {})[_METADATA])
                if document["key"] != self.key:
                    return None
                reports = tuple(LayerReport(**each) for each in document["reports"])
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
            matrices = {each.layer: _take_matrix(tensors, each) for each in reports}
            if tensors:
                return None
        except _UNREADABLE:
            return None
        return RoundedPart(matrices, reports)

    def finish(self, parts: Mapping[str, Sequence[LayerReport]]) -> None:
        """Write the report: all parts are there.

        Args:
            parts: The reports of each part's layers.
        """
        found = {part: [asdict(each) for each in reports] for part, reports in parts.items()}
        with atomic_write(self.folder / REPORT) as file:
            file.write(json.dumps({"key": self.key, "parts": found}, indent=1).encode())

    def reports(self) -> dict[str, tuple[LayerReport, ...]] | None:
        """Return the reports of each part's layers; None where the calibration is not finished."""
        try:
            document = json.loads((self.folder / REPORT).read_text(encoding="utf-8"))
            if document["key"] != self.key:
                return None
            return {
                part: tuple(LayerReport(**each) for each in reports)
                for part, reports in document["parts"].items()
            }
        except _UNREADABLE:
            return None

    def _path(self, part: str) -> Path:
        return self.folder / f"{part}.safetensors"


class RoundedMatrices:
    """The matrices of a finished calibration, by their layers' names.

    A part is read when the first of its layers is asked for, and kept until another one is.

    Args:
        weights: The folder.

    Raises:
        ArtifactError: The calibration is not finished.
    """

    def __init__(self, weights: RoundedWeights) -> None:
        reports = weights.reports()
        if reports is None:
            raise _damaged(weights.folder)
        self._weights = weights
        self._parts = {each.layer: part for part, found in reports.items() for each in found}
        self._last: tuple[str, RoundedPart] | None = None

    def find(self, layer: str) -> QuantizedMatrix | None:
        """Return a layer's matrix; None where it was not calibrated.

        Raises:
            ArtifactError: Its file is damaged.
        """
        part = self._parts.get(layer)
        if part is None:
            return None
        if self._last is None or self._last[0] != part:
            found = self._weights.read(part)
            if found is None:
                raise _damaged(self._weights.folder)
            self._last = (part, found)
        return self._last[1].matrices[layer]


def _take_matrix(tensors: dict[str, npt.NDArray[Any]], report: LayerReport) -> QuantizedMatrix:
    """Take a layer's tensors out of a file's.

    Raises:
        KeyError: The format is none, or a tensor is absent.
        ValueError: A tensor is not what the format stores.
    """
    weight_format = WEIGHT_FORMATS[report.weight_format]
    names = _TENSORS if weight_format.has_tables else _TENSORS[:2]
    matrix = QuantizedMatrix(*(tensors.pop(f"{report.layer}.{name}") for name in names))
    found = [(each.dtype, each.shape) for each in _arrays(matrix)]
    if found != _expected(matrix.integers.shape, weight_format):
        raise ValueError(f"tensors of {report.layer} are not those of {weight_format.name}")
    if not _is_in_range(matrix, weight_format):
        raise ValueError(f"values of {report.layer} are not those of {weight_format.name}")
    return matrix


def _arrays(matrix: QuantizedMatrix) -> list[npt.NDArray[Any]]:
    found = [getattr(matrix, name) for name in _TENSORS]
    return [each for each in found if each is not None]


def _expected(
    shape: tuple[int, ...], weight_format: WeightFormat
) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return the dtypes and shapes of a matrix's arrays by the shape ``(N, K)`` of the first.

    Raises:
        ValueError: It is not the shape of a matrix.
    """
    rows, width = shape
    found: list[tuple[str, tuple[int, ...]]] = [
        (weight_format.integer_dtype, (rows, width)),
        (weight_format.scale_dtype, (rows, -(-width // GROUP_SIZE))),
    ]
    if weight_format.has_tables:
        found += [("float32", (rows,)), ("int8", (-(-rows // TABLE_ROWS), TABLE_LEVELS))]
    return [(np.dtype(dtype), each) for dtype, each in found]


def _is_in_range(matrix: QuantizedMatrix, weight_format: WeightFormat) -> bool:
    """Whether a matrix's values are ones that rounding can have made; all bytes are scales."""
    if matrix.row_scales is None or matrix.levels is None:
        lowest, highest = weight_format.lowest, weight_format.highest
        is_integer = np.all((matrix.integers >= lowest) & (matrix.integers <= highest))
        return bool(is_integer and np.all(np.isfinite(matrix.scales)))
    tables = weight_format.stored_levels
    is_table = (matrix.levels[:, None] == tables).all(axis=2).any(axis=1)
    rows = matrix.row_scales
    return bool(
        np.all(matrix.integers < 1 << weight_format.bits)
        and np.all(np.isfinite(rows) & (rows > 0))
        and is_table.all()
    )


def _damaged(folder: Path) -> ArtifactError:
    return ArtifactError(
        f"the calibrated matrices in {folder} are damaged",
        fix="Delete the folder and calibrate again.",
    )
