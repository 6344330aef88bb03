"""All weight files of one folder, seen as one set of named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mvlm.models.json_config import read_json_config
from mvlm.models.value_checks import short_repr
from mvlm.models.weight_files.safetensors_file import SafetensorsFile
from mvlm.models.weight_files.tensor_file import (
    DOWNLOAD_AGAIN,
    Array,
    TensorFile,
    listed,
)
from mvlm.models.weight_files.torch_file import TorchFile
from mvlm.runtime.errors import CheckpointError, ConfigError
from mvlm.runtime.input_file import is_present, refuse_lfs_pointer

# The names of mlc-llm's weight files, now and before.
_MLC_CACHES = ("tensor-cache.json", "ndarray-cache.json")
# The names that transformers gives weight files, in the order in which it prefers them.
_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    *_MLC_CACHES,
)


class Weights:
    """The tensors of one folder, by the names that its files give them.

    Args:
        holders: For each tensor the open file that holds it.
        index: The file that says which file holds what, if there are several.
    """

    def __init__(self, holders: Mapping[str, TensorFile], index: Path | None = None) -> None:
        self._holders = holders
        self._index = index

    def names(self) -> tuple[str, ...]:
        """All tensors' names, sorted."""
        return tuple(sorted(self._holders))

    def files(self) -> tuple[Path, ...]:
        """The files that the weights come from, sorted, with the index."""
        files = {holder.path for holder in self._holders.values()}
        return tuple(sorted(files | ({self._index} if self._index else set())))

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; KeyError if there is no such tensor."""
        return self._holders[name].tensors[name].shape

    def dtype(self, name: str) -> str:
        """A tensor's dtype by numpy's name; KeyError if there is no such tensor."""
        return self._holders[name].tensors[name].dtype

    def nbytes(self, name: str) -> int:
        """Bytes of a tensor in its file; KeyError if there is no such tensor."""
        return self._holders[name].tensors[name].nbytes

    def read(self, name: str) -> Array:
        """One tensor; KeyError if there is none of that name.

        Raises:
            CheckpointError: It is not stored as float32, float16 or bfloat16.
        """
        return self._holders[name].read(name)


def open_weights(folder: Path, files: Sequence[str] = _FILES) -> Weights:
    """Open a folder's weights: safetensors if there are any, else PyTorch files.

    Args:
        folder: Where they are.
        files: The names that they may have; the first that is there is taken.

    Raises:
        CheckpointError: There are no weights, a file is absent, damaged or cut short, or an
            index names files outside the folder or tensors that are not there.
    """
    for name in files:
        path = folder / name
        if is_present(path, CheckpointError):
            if name in _MLC_CACHES:
                # Imported here because it is made of this module's class.
                from mvlm.models.weight_files.mlc_weights import MlcWeights

                return MlcWeights(path)
            if name.endswith(".json"):
                return _open_sharded(path)
            file = _open_file(path)
            return Weights(dict.fromkeys(file.tensors, file))
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if any(name.endswith(".gguf") for name in found):
        raise CheckpointError(
            f"{folder} holds GGUF files, which llama.cpp has made",
            expected=" or ".join(files),
            found=listed(name for name in found if name.endswith(".gguf")),
            fix="Give the checkpoint that they were made from.",
        )
    raise CheckpointError(
        f"no weights in {folder}",
        expected=" or ".join(files),
        found=listed(found) or "nothing",
        fix="Give the folder of a whole Hugging Face style checkpoint.",
    )


def _open_sharded(index: Path) -> Weights:
    weight_map = _read_index(index)
    shards = {name: index.parent / name for name in set(weight_map.values())}
    absent = [name for name, path in shards.items() if not is_present(path, CheckpointError)]
    if absent:
        raise CheckpointError(
            f"{index} lists files that are not next to it: {listed(absent)}",
            fix="Download the missing files.",
        )
    files = {name: _open_file(path) for name, path in shards.items()}
    holders = {name: files[shard] for name, shard in weight_map.items()}
    lost = [name for name, file in holders.items() if name not in file.tensors]
    if lost:
        raise CheckpointError(
            f"{index} lists tensors that are not in their files: {listed(lost)}",
            fix="Download the checkpoint again.",
        )
    return Weights(holders, index)


def _read_index(index: Path) -> dict[str, str]:
    """Tensor names and the plain names of the files that hold them."""
    try:
        weight_map = read_json_config(index).section("weight_map").values
    except ConfigError as error:
        raise CheckpointError(
            error.problem, expected=error.expected, found=error.found, fix=error.fix
        ) from None
    if not weight_map:
        raise CheckpointError(
            f"{index} lists no tensor", fix="Download the file again, or remove it."
        )
    suffix = ".safetensors" if ".safetensors" in index.name else ".bin"
    return {name: plain_name(index, shard, suffix) for name, shard in weight_map.items()}


def plain_name(index: Path, name: object, suffix: str) -> str:
    """Return the name of a file that an index names, if it is one next to the index.

    Raises:
        CheckpointError: It is not: a path could lead out of the folder.
    """
    plain = isinstance(name, str) and not set(name) & {"/", "\\", ":", "\0"}
    if not isinstance(name, str) or not plain or not name.endswith(suffix):
        raise CheckpointError(
            f"{index} names a file that is not next to it",
            expected=f"a plain file name ending in {suffix}",
            found=short_repr(name),
            fix="Do not use this checkpoint.",
        )
    return name


def read_start(path: Path) -> bytes:
    """Return the first bytes of a file of weights.

    Raises:
        CheckpointError: It cannot be read, or is a Git LFS pointer.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    refuse_lfs_pointer(path, start, CheckpointError)
    return start


def _open_file(path: Path) -> TensorFile:
    start = read_start(path)
    if not start:
        raise CheckpointError(f"{path} is empty", fix=DOWNLOAD_AGAIN)
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)
