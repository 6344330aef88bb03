"""Reads a `.safetensors` file: a JSON header that names byte ranges, then the bytes.

The safetensors library maps the file into memory and refuses a header that is too long, that is
not JSON, or whose ranges overlap, leave gaps, or do not match the shapes and the file's length.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

# Imported for what it does on import: it makes numpy understand the name "bfloat16", by which
# safetensors asks for it.
import ml_dtypes  # noqa: F401
import safetensors

from mvlm.models.weight_files.tensor_file import DOWNLOAD_AGAIN, Array, TensorInfo, check_float
from mvlm.runtime.errors import CheckpointError

_NUMPY_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}

# What has been read stays in memory as long as the file is mapped: beyond this it is mapped anew.
_MAPPED_BYTES = 256 << 20


class SafetensorsFile:
    """One open `.safetensors` file; a :class:`TensorFile`.

    Raises:
        CheckpointError: The file is cut short, or its header contradicts itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)
        self._read_bytes = 0
        slices = {name: self._file.get_slice(name) for name in list(self._file.keys())}
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(
                tuple(piece.get_shape()),
                _NUMPY_NAMES.get(piece.get_dtype(), piece.get_dtype()),
            )
            for name, piece in slices.items()
        }

    def read(self, name: str) -> Array:
        """One tensor, copied out of the mapped file."""
        check_float(self.path, name, self.tensors[name].dtype)
        if self._read_bytes >= _MAPPED_BYTES:
            self._file, self._read_bytes = _open(self.path), 0
        self._read_bytes += self.tensors[name].nbytes
        return cast(Array, self._file.get_tensor(name))


def _open(path: Path) -> Any:
    try:
        return safetensors.safe_open(str(path), framework="numpy")
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error})", fix=DOWNLOAD_AGAIN
        ) from None
