"""Opens a folder's weights with the reader of the format that they have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mvlm.models.weight_files.index_file import read_index
from mvlm.models.weight_files.mlc_weights import MlcWeights
from mvlm.models.weight_files.safetensors_file import SafetensorsFile
from mvlm.models.weight_files.tensor_file import (
    DOWNLOAD_AGAIN,
    TensorFile,
    Weights,
    listed,
    read_start,
)
from mvlm.models.weight_files.torch_file import TorchFile
from mvlm.runtime.errors import CheckpointError
from mvlm.runtime.input_file import is_present

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
    weight_map = read_index(index)
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


def _open_file(path: Path) -> TensorFile:
    start = read_start(path)
    if not start:
        raise CheckpointError(f"{path} is empty", fix=DOWNLOAD_AGAIN)
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)
