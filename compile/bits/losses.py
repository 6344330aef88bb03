"""What each scheme costs each unit of the decoder's layers, in a folder: a file for each layer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from mvlm.models.quantization import PLAN_SCHEMES, UNITS
from mvlm.runtime.atomic_write import atomic_write

LayerLosses = Mapping[str, Mapping[str, float]]
"""Nats by a unit's name and a scheme's."""

# What a file that is damaged, or is not ours, may raise as it is read.
_UNREADABLE = (OSError, KeyError, TypeError, ValueError)


class LossFolder:
    """A folder of measured losses.

    Args:
        folder: It is there.
        key: Of the measurement; what has another key counts as absent.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key

    def write(self, layer: int, losses: LayerLosses) -> None:
        """Write the losses of a layer's units, whole or not at all."""
        with atomic_write(self._path(layer)) as file:
            file.write(json.dumps({"key": self.key, "losses": losses}, indent=1).encode())

    def read(self, layer: int) -> LayerLosses | None:
        """Return a layer's losses; None where they are not there, damaged, or of another key."""
        try:
            document = json.loads(self._path(layer).read_bytes())
            if document["key"] != self.key:
                return None
            found = {
                unit: {name: float(document["losses"][unit][name]) for name in PLAN_SCHEMES}
                for unit in UNITS
            }
        except _UNREADABLE:
            return None
        values = [value for losses in found.values() for value in losses.values()]
        return found if all(math.isfinite(value) and value >= 0 for value in values) else None

    def read_all(self, layers: int) -> tuple[LayerLosses, ...] | None:
        """Return the losses of all layers; None where one is missing."""
        found = [self.read(layer) for layer in range(layers)]
        complete = tuple(losses for losses in found if losses is not None)
        return complete if len(complete) == layers else None

    def _path(self, layer: int) -> Path:
        return self.folder / f"layer-{layer:02}.json"
