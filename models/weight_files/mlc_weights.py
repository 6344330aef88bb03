"""Reads mlc-llm's format: `tensor-cache.json` with its shards, of a model of its `llama` kind.

The tensors appear under the checkpoint's names: stacked matrices are taken apart, and 4-bit ones
are read as the float32 numbers that they stand for.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from mvlm.models.bit_packing import unpack_rows
from mvlm.models.json_config import JsonConfig, read_json_config
from mvlm.models.quantization import GROUP_SIZE, Q4MLC, QuantizedMatrix, dequantize
from mvlm.models.weight_files.index_file import plain_name
from mvlm.models.weight_files.tensor_file import (
    DOWNLOAD_AGAIN,
    Array,
    TensorInfo,
    Weights,
    check_float,
    read_start,
)
from mvlm.runtime.errors import CheckpointError, ConfigError
from mvlm.runtime.input_file import is_present

# The file of its configuration, which says how stacked matrices are divided.
MLC_CONFIG = "mlc-chat-config.json"

# What mlc-llm's matrices of a layer are stacked of, from the first row on.
STACKED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "uint32": 4, "int8": 1, "uint8": 1}
_LAYER = re.compile(r"(model\.layers\.[0-9]{1,4})\.(.+)")
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_MAX_RANK = 8


@dataclass(frozen=True)
class _Record:
    """One stored array: where it lies and what it is."""

    shard: Path
    offset: int
    nbytes: int
    shape: tuple[int, ...]
    dtype: str
    is_bfloat16: bool


class _Cache:
    """The stored arrays of a folder by mlc-llm's names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        document = read_json_config(path)
        self.records: dict[str, _Record] = {}
        self._digests: dict[Path, str] = {}
        for shard in _objects(document, "records"):
            self._add_shard(shard)

    def _add_shard(self, shard: JsonConfig) -> None:
        path = self.path.parent / plain_name(self.path, shard.require("dataPath"), ".bin")
        size = shard.integer("nbytes", 0, 1 << 40)
        if shard.require("format") != "raw-shard":
            shard.refuse("format", "'raw-shard'")
        if not is_present(path, CheckpointError):
            raise CheckpointError(f"{path} is missing", fix="Download the missing files.")
        read_start(path)
        if path.stat().st_size != size:
            raise CheckpointError(
                f"{path} has the wrong size",
                expected=f"{size} bytes",
                found=path.stat().st_size,
                fix=DOWNLOAD_AGAIN,
            )
        if "md5sum" in shard:
            digest = shard.require("md5sum")
            if not isinstance(digest, str) or not _MD5.fullmatch(digest):
                shard.refuse("md5sum", "32 hexadecimal digits")
            self._digests[path] = digest.lower()
        for record in _objects(shard, "records"):
            name = record.require("name")
            if not isinstance(name, str) or name in self.records:
                record.refuse("name", "a name that no other array has")
            self.records[name] = _record(record, path, size)

    def shards(self) -> set[Path]:
        return {record.shard for record in self.records.values()}

    def read(self, name: str) -> Array:
        record = self.records[name]
        self._verify(record.shard)
        with record.shard.open("rb") as file:
            file.seek(record.offset)
            data = file.read(record.nbytes)
        if record.is_bfloat16:
            return np.frombuffer(data, ml_dtypes.bfloat16).reshape(record.shape)
        return np.frombuffer(data, record.dtype).reshape(record.shape)

    def _verify(self, shard: Path) -> None:
        """Compare a shard with its checksum, when something of it is read for the first time."""
        expected = self._digests.pop(shard, None)
        if expected is None:
            return
        with shard.open("rb") as file:
            digest = hashlib.md5(usedforsecurity=False)
            while block := file.read(1 << 20):
                digest.update(block)
            found = digest.hexdigest()
        if found != expected:
            raise CheckpointError(
                f"{shard} is damaged", expected=f"md5 {expected}", found=found, fix=DOWNLOAD_AGAIN
            )


class _Reader:
    """The checkpoint's tensors, made of the cache's arrays; a :class:`TensorFile`."""

    def __init__(self, cache: _Cache, shares: Callable[[str], tuple[int, ...]]) -> None:
        self.path = cache.path
        self._cache = cache
        # For each tensor: the array that holds it, and the rows of that one.
        self._places: dict[str, tuple[str, slice]] = {}
        tensors: dict[str, TensorInfo] = {}
        for array, info in _arrays(cache):
            for name, place in _unstacked(array, info, shares):
                if name in tensors:
                    raise CheckpointError(
                        f"{cache.path} holds {name} twice",
                        expected="each tensor once, alone or in a stack",
                        found=f"{self._places[name][0]} and {array}",
                        fix=DOWNLOAD_AGAIN,
                    )
                self._places[name] = (array, place)
                height = (place.stop - place.start,) if info.shape else ()
                tensors[name] = TensorInfo((*height, *info.shape[1:]), info.dtype)
        self.tensors: Mapping[str, TensorInfo] = tensors

    def read(self, name: str) -> Array:
        check_float(self.path, name, self.tensors[name].dtype)
        array, place = self._places[name]
        if array in self._cache.records:
            value = self._cache.read(array)
            return value[place].copy() if value.shape else value.copy()
        base = array.removesuffix(".weight")
        words = self._cache.read(f"{base}.q_weight")[place]
        scales = self._cache.read(f"{base}.q_scale")[place]
        with np.errstate(over="ignore"):  # packing refuses infinities
            scales = scales.astype(np.float16)
        # mlc-llm leaves the scale of a group of zeros at zero, whatever its nibbles.
        stored = unpack_rows(words, Q4MLC, self.tensors[name].shape[1]).astype(np.int8)
        return dequantize(QuantizedMatrix(stored - Q4MLC.zero_point, scales), Q4MLC)


class MlcWeights(Weights):
    """The tensors of a folder in mlc-llm's format."""

    def __init__(self, path: Path) -> None:
        cache = _Cache(path)
        reader = _Reader(cache, _part_shares(path.parent))
        super().__init__(dict.fromkeys(reader.tensors, reader))
        self._files = (path, *sorted(cache.shards()))

    def files(self) -> tuple[Path, ...]:
        """The index and the shards."""
        return self._files


def _objects(document: JsonConfig, key: str) -> Iterator[JsonConfig]:
    values = document.require(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        document.refuse(key, "a list of objects")
    for value in values:
        yield JsonConfig(f"{document.name} in `{key}`", value)


def _record(record: JsonConfig, shard: Path, size: int) -> _Record:
    dtype, shape = record.require("dtype"), record.require("shape")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        record.refuse("dtype", " or ".join(_ITEM_BYTES))
    # No tensor of a model is a scalar.
    whole = isinstance(shape, list) and 1 <= len(shape) <= _MAX_RANK
    if not whole or not all(type(extent) is int and 0 < extent < 1 << 32 for extent in shape):
        record.refuse("shape", f"a list of 1 to {_MAX_RANK} sizes")
    encoding = record.get("format", "raw")
    if encoding not in ("raw", "f32-to-bf16"):
        record.refuse("format", "'raw' or 'f32-to-bf16'")
    is_bfloat16 = dtype == "bfloat16" or (encoding == "f32-to-bf16" and dtype == "float32")
    offset = record.integer("byteOffset", 0, size)
    nbytes = math.prod(shape) * (2 if is_bfloat16 else _ITEM_BYTES[dtype])
    if record.integer("nbytes", 0, size - offset) != nbytes:
        record.refuse("nbytes", f"{nbytes}, what its shape takes")
    return _Record(shard, offset, nbytes, tuple(shape), dtype, is_bfloat16)


def _arrays(cache: _Cache) -> Iterator[tuple[str, TensorInfo]]:
    """Yield the arrays, a 4-bit pair as the float32 matrix that it encodes."""
    for name, record in cache.records.items():
        if name.endswith(".q_scale") and f"{name.removesuffix('scale')}weight" in cache.records:
            continue
        if not name.endswith(".q_weight"):
            yield name, TensorInfo(record.shape, "bfloat16" if record.is_bfloat16 else record.dtype)
            continue
        base = name.removesuffix(".q_weight")
        scales = cache.records.get(f"{base}.q_scale")
        expected = None if scales is None else (record.shape[0], 4 * scales.shape[-1])
        fits = record.dtype == "uint32" and len(record.shape) == 2 and record.shape == expected
        fits = fits and scales is not None and _is_scale(scales, record.shape[0])
        if scales is None or not fits:
            raise CheckpointError(
                f"{cache.path}: {base} is not stored as q4f16_1",
                expected="words (N, K / 8) uint32 and scales (N, K / 32) float16",
                found=f"{record.dtype} {record.shape}, "
                + ("no scales" if scales is None else f"{scales.dtype} {scales.shape}"),
                fix="Use a model of mlc-llm's quantization q4f16_1, q0f16 or q0f32.",
            )
        shape = (record.shape[0], GROUP_SIZE * scales.shape[1])
        yield f"{base}.weight", TensorInfo(shape, "float32")


def _is_scale(record: _Record, rows: int) -> bool:
    """Whether an array can be the scales of a matrix with that many rows."""
    # In another type the scales would have to be rounded, and the weights would be other ones.
    is_half = record.dtype == "float16" and not record.is_bfloat16
    return is_half and len(record.shape) == 2 and record.shape[0] == rows


def _part_shares(folder: Path) -> Callable[[str], tuple[int, ...]]:
    """Return what tells a stacked matrix's parts' shares of its rows."""
    config = read_json_config(folder / MLC_CONFIG).section("model_config")
    heads = config.integer("num_attention_heads", 1, 1024)
    kv_heads = heads
    if "num_key_value_heads" in config:
        kv_heads = config.integer("num_key_value_heads", 1, heads)

    def shares(stacked: str) -> tuple[int, ...]:
        if stacked == "self_attn.qkv_proj":
            return (heads, kv_heads, kv_heads)
        return (1,) * len(STACKED[stacked])

    return shares


def _unstacked(
    array: str, info: TensorInfo, shares: Callable[[str], tuple[int, ...]]
) -> Iterator[tuple[str, slice]]:
    """Yield the checkpoint's names of an array's parts, and their rows."""
    base = array.removesuffix(".weight")
    match = _LAYER.fullmatch(base)
    height = info.shape[0] if info.shape else 0
    if match is None or match[2] not in STACKED:
        yield array, slice(0, height)
        return
    counts = shares(match[2])
    if height % sum(counts):
        raise ConfigError(
            f"{array} has {height} rows", expected=f"a multiple of {sum(counts)} heads"
        )
    unit, start = height // sum(counts), 0
    for part, count in zip(STACKED[match[2]], counts, strict=True):
        yield f"{match[1]}.{part}.weight", slice(start, start + count * unit)
        start += count * unit
