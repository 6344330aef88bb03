"""The matrices that calibration has rounded, in a folder: one safetensors file for each part.

==================  =========================================================================
tensor              content
==================  =========================================================================
``X.integers``      ``(N, K)``: indices of levels, uint8, or integers (see `QuantizedMatrix`)
``X.scales``        ``(N, ceil(K / 32))``, of the format's dtype
``X.row_scales``    ``(N,)`` float32, where the format has them
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
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mvlm.models.quantization import QuantizedMatrix
from mvlm.runtime.atomic_write import atomic_write
from mvlm.runtime.errors import ArtifactError

REPORT = "report.json"
_METADATA = "calibration"
_TENSORS = ("integers", "scales", "row_scales")
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
                names = set(file.keys())

                def tensor(name: str) -> Any:
                    return file.get_tensor(name) if name in names else None

                matrices = {
                    each.layer: QuantizedMatrix(*(tensor(f"{each.layer}.{n}") for n in _TENSORS))
                    for each in reports
                }
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


def _damaged(folder: Path) -> ArtifactError:
    return ArtifactError(
        f"the calibrated matrices in {folder} are damaged",
        fix="Delete the folder and calibrate again.",
    )
