"""The weights: files of parameters end to end, each aligned, mapped by mmap and never copied."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.runtime.artifact.json_object import build, read_json_object
from mvlm.runtime.artifact.layout import WEIGHT_ALIGNMENT, WEIGHTS, WEIGHTS_INDEX
from mvlm.runtime.artifact.page_cache import map_file
from mvlm.runtime.errors import ArtifactError

_DTYPES = ("float32", "float16", "uint32", "int32", "int16", "uint8", "int8")
_LAYOUT = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_FILE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}\.bin")
_MAX_TENSORS = 100_000
_MAX_RANK = 8


@dataclass(frozen=True)
class TensorEntry:
    """One parameter: name, shape, NumPy dtype, file below `weights/`, place there in bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: str
    offset: int

    def __post_init__(self) -> None:
        if not _FILE.fullmatch(self.file):
            raise ValueError(f"{self.name} lies in {self.file!r}, which is no plain file name")
        if self.dtype not in _DTYPES:
            raise ValueError(f"{self.name} has dtype {self.dtype!r}, none of {', '.join(_DTYPES)}")
        if not 1 <= len(self.shape) <= _MAX_RANK or any(extent <= 0 for extent in self.shape):
            raise ValueError(f"{self.name} has shape {self.shape}")
        if self.offset < 0 or self.offset % WEIGHT_ALIGNMENT:
            raise ValueError(f"{self.name} lies at {self.offset}, which is not aligned")

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class WeightsIndex:
    """The parameters in the order in which the compiled functions take them.

    Attributes:
        layout: The name of the layout that the matrices of linear layers have.
        tensors: The parameters.
    """

    layout: str
    tensors: tuple[TensorEntry, ...]

    def __post_init__(self) -> None:
        if not _LAYOUT.fullmatch(self.layout):
            raise ValueError(f"the layout of the weights is named {self.layout[:40]!r}")
        if not 0 < len(self.tensors) <= _MAX_TENSORS:
            raise ValueError(f"{len(self.tensors)} tensors")
        if len({entry.name for entry in self.tensors}) != len(self.tensors):
            raise ValueError("a tensor is named twice")
        placed = sorted(self.tensors, key=lambda entry: (entry.file, entry.offset))
        for before, after in pairwise(placed):
            if before.file == after.file and before.offset + before.nbytes > after.offset:
                raise ValueError(f"{before.name} and {after.name} overlap")

    def to_json(self) -> dict[str, Any]:
        """Return the index as plain JSON values."""
        tensors = [asdict(entry) | {"shape": list(entry.shape)} for entry in self.tensors]
        return {"layout": self.layout, "tensors": tensors}


def read_weights_index(folder: Path) -> WeightsIndex:
    """Read ``weights/index.json``.

    Raises:
        ArtifactError: It breaks the format.
    """
    document = read_json_object(folder / WEIGHTS_INDEX)
    return build(
        document.where,
        lambda: WeightsIndex(
            document.get("layout", str),
            tuple(
                TensorEntry(
                    entry.get("name", str),
                    entry.list_of("shape", int),
                    entry.get("dtype", str),
                    entry.get("file", str),
                    entry.get("offset", int),
                )
                for entry in document.children("tensors")
            ),
        ),
    )


def map_weights(folder: Path) -> list[npt.NDArray[Any]]:
    """Map the parameters into memory, in the order of the index.

    The arrays are views of private mappings: untouched pages cost nothing and are shared between
    processes. They are marked writable only because DLPack hands over no others; nothing writes
    to them, and a write would stay in this process.

    Raises:
        ArtifactError: A tensor lies outside its file.
    """
    index = read_weights_index(folder)
    files = {
        name: _map_file(folder / WEIGHTS / name)
        for name in sorted({entry.file for entry in index.tensors})
    }
    arrays = []
    for entry in index.tensors:
        mapped, end = files[entry.file], entry.offset + entry.nbytes
        if end > mapped.size:
            raise ArtifactError(
                f"{folder / WEIGHTS / entry.file}: tensor {entry.name} lies outside the file",
                expected=f"at most {mapped.size} bytes",
                found=f"its end at {end}",
                fix="Fetch or compile the artifact again.",
            )
        arrays.append(mapped[entry.offset : end].view(entry.dtype).reshape(entry.shape))
    return arrays


def _map_file(path: Path) -> npt.NDArray[np.uint8]:
    try:
        if path.stat().st_size == 0:  # which cannot be mapped
            return np.empty(0, np.uint8)
        return map_file(path)
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read ({error.strerror})", fix="Fetch or compile the artifact again."
        ) from None
