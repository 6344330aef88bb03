"""Writes weight files of any size, holding one tensor in memory at a time.

A file is laid out first, with a hole for every tensor's bytes, and the holes are then filled.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from mvlm.models.synthetic.documents import write_json
from mvlm.models.weight_files.tensor_file import TensorInfo
from mvlm.models.weight_files.torch_file import import_torch
from mvlm.runtime.errors import UsageError

Array = npt.NDArray[Any]
# Where a file's tensors begin, in bytes.
Offsets = dict[str, int]

# What transformers put into one file when the releases were made.
SHARD_BYTES = 10 * 10**9
FORMATS = ("bin", "safetensors")

_STEMS = {"bin": "pytorch_model", "safetensors": "model"}
_SAFETENSORS_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
_ZIP_LOCAL_HEADER = 30  # bytes before the name, which is followed by the extra field
_BLOCK_VALUES = 1 << 22


def write_weights(
    folder: Path,
    tensors: Mapping[str, TensorInfo],
    value: Callable[[str], Array],
    *,
    file_format: str = "bin",
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], None] = lambda written: None,
) -> None:
    """Write tensors into one file or several with an index, named as transformers names them.

    Args:
        folder: Where; it exists.
        tensors: Shapes and dtypes by name, in file order.
        value: Makes one tensor's values by name, of its shape; they are converted to its dtype.
        file_format: `bin`, what `torch.save` writes, or `safetensors`.
        shard_bytes: What a file holds at the most; a larger tensor has one to itself.
        progress: Called with the bytes of each tensor just written.

    Raises:
        UsageError: The format is unknown.
        CheckpointError: torch, which alone writes `bin`, is not installed.
    """
    if file_format not in FORMATS:
        raise UsageError("unknown format", expected=" or ".join(FORMATS), found=repr(file_format))
    lay_out = _lay_out_torch if file_format == "bin" else _lay_out_safetensors
    shards = _shards(tensors, shard_bytes)
    stem, suffix = _STEMS[file_format], file_format
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        part = f"-{number:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        path = folder / f"{stem}{part}.{suffix}"
        offsets = lay_out(path, {name: tensors[name] for name in names})
        with path.open("r+b") as file:
            for name in names:
                file.seek(offsets[name])
                _write_values(file, value(name), tensors[name])
                progress(tensors[name].nbytes)
        weight_map |= dict.fromkeys(names, path.name)
    if len(shards) > 1:
        total = sum(info.nbytes for info in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / f"{stem}.{suffix}.index.json", index)


def _numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _shards(tensors: Mapping[str, TensorInfo], most: int) -> list[list[str]]:
    """Fill one file after the other, in order."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, info in tensors.items():
        added = info.nbytes
        if shards[-1] and size + added > most:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += added
    return shards


def _write_values(file: Any, values: Array, info: TensorInfo) -> None:
    flat, dtype = values.reshape(-1), _numpy_dtype(info.dtype)
    # Converted piece by piece: a whole second copy of an embedding table is half a gigabyte.
    for start in range(0, flat.size, _BLOCK_VALUES):
        piece = flat[start : start + _BLOCK_VALUES].astype(dtype, copy=False)
        file.write(np.ascontiguousarray(piece).view(np.uint8).data)


def _lay_out_safetensors(path: Path, tensors: Mapping[str, TensorInfo]) -> Offsets:
    """Write a safetensors header: its length, then JSON with every tensor's range of bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    ranges = {}
    for name, info in tensors.items():
        ranges[name], end = end, end + info.nbytes
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [ranges[name], end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        begin = file.tell()
        file.truncate(begin + end)
    return {name: begin + start for name, start in ranges.items()}


def _lay_out_torch(path: Path, tensors: Mapping[str, TensorInfo]) -> Offsets:
    """Let torch write its archive without the values, and find the places of those."""
    torch = import_torch()
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        hollow = {
            name: torch.empty(info.shape, dtype=getattr(torch, info.dtype))
            for name, info in tensors.items()
        }
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        try:
            torch.save(hollow, path)
        except RuntimeError as error:  # torch does not say which of the system's errors it met
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        # Storages are numbered in the order in which they were met.
        records = {
            int(entry.filename.rpartition("/")[2]): entry
            for entry in archive.infolist()
            if "/data/" in entry.filename
        }
        offsets = {}
        for number, (name, info) in enumerate(tensors.items()):
            entry = records[number]
            assert entry.file_size == info.nbytes, f"torch laid {name} out otherwise"
            file.seek(entry.header_offset + _ZIP_LOCAL_HEADER - 4)
            name_length, extra_length = struct.unpack("<HH", file.read(4))
            begin = entry.header_offset + _ZIP_LOCAL_HEADER
            offsets[name] = begin + name_length + extra_length
    return offsets
