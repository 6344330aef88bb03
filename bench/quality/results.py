"""The figures of finished rows, kept in the cache, so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from mvlm.runtime.atomic_write import atomic_write

_KEY_DIGITS = 16


@dataclass(frozen=True)
class StoredSize:
    """What a model's weights take.

    Attributes:
        layer_bits: Bits for each weight of the layers' matrices, with their scales.
        all_bits: The same of all weights: embedding, head and norms too. A tied embedding counts
            as one weight, however often it is stored.
        nbytes: Bytes of all weights.
        layers: How the layers' matrices are stored.
        ends: How embedding and head are stored.
    """

    layer_bits: float
    all_bits: float
    nbytes: int
    layers: str
    ends: str


Figures = TypeVar("Figures")


@dataclass(frozen=True)
class Results(Generic[Figures]):
    """Figures by their keys, a file each.

    Attributes:
        folder: Of the files.
        read: Makes figures of plain JSON values.
    """

    folder: Path
    read: Callable[[dict[str, Any]], Figures]

    def find(self, key: str) -> Figures | None:
        """Return what was kept under a key; None where nothing was, or nothing readable."""
        try:
            return self.read(json.loads(self._file(key).read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, key: str, figures: Any) -> None:
        """Keep figures, a dataclass."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._file(key)) as file:
            file.write(json.dumps(asdict(figures), indent=1).encode())

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def result_key(*parts: str) -> str:
    """Name all that figures depend on."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_KEY_DIGITS]
