"""Reads a `pytorch_model*.bin` file: a zip archive of a pickle and the tensors' bytes.

A pickle can run any code when it is read, so only `torch.load(weights_only=True)` is used, which
knows tensors and plain containers and nothing else. torch is imported here alone, and only when
such a file is opened.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes

from mvlm.models.weight_files.tensor_file import (
    DOWNLOAD_AGAIN,
    USE_UNQUANTIZED,
    Array,
    TensorInfo,
    as_owned,
    check_float,
    release_pages,
)
from mvlm.runtime.errors import CheckpointError

if TYPE_CHECKING:
    import torch

# The name of a class or a function, where torch's message has one.
_FOREIGN = re.compile(r"(?<=GLOBAL )[\w.]+")
_CONVERT = "Convert the checkpoint to safetensors."


class TorchFile:
    """One open PyTorch file of named tensors; a :class:`TensorFile`.

    Raises:
        CheckpointError: torch is not installed, the file is cut short, or it holds anything but
            named, dense tensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tensors = _checked(path, _load(path))
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in self._tensors.items()
        }

    def read(self, name: str) -> Array:
        """One tensor, copied out of the mapped file."""
        check_float(self.path, name, self.tensors[name].dtype)
        mapped = self._tensors[name].detach()
        tensor = mapped.contiguous()
        if self.tensors[name].dtype != "bfloat16":
            array = as_owned(tensor.numpy())
        else:
            # torch hands no bfloat16 to numpy, but the same bits as integers.
            bits = tensor.view(import_torch().int16).numpy()
            array = as_owned(bits.view(ml_dtypes.bfloat16))
        storage = mapped.untyped_storage()
        release_pages(storage.data_ptr(), storage.nbytes())
        return array


def import_torch() -> Any:
    """Return torch, whose own archives nothing else reads or writes.

    Raises:
        CheckpointError: It is not installed.
    """
    try:
        import torch
    except ImportError:
        raise CheckpointError(
            "PyTorch `.bin` files are read and written with torch, which is not installed",
            fix="Run `pip install torch==2.13.0`, or use safetensors.",
        ) from None
    return torch


def _load(path: Path) -> object:
    _check_archive(path)
    torch = import_torch()
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise _unreadable(path, str(error)) from None
    # Whatever else a damaged archive provokes inside torch; it documents no exceptions.
    except Exception as error:
        reason = str(error).partition("\n")[0][:200]
        raise CheckpointError(
            f"{path} is not a whole PyTorch file ({type(error).__name__}: {reason})",
            fix=DOWNLOAD_AGAIN,
        ) from None


def _unreadable(path: Path, reason: str) -> CheckpointError:
    """Say what a file holds besides tensors, as far as torch says it."""
    found = _FOREIGN.search(reason)
    name = found[0][:100] if found else None
    if name is not None and name.startswith("torchao."):
        return CheckpointError(
            f"{path}: the checkpoint's weights are quantized with torchao",
            found=name,
            fix=USE_UNQUANTIZED,
        )
    return CheckpointError(
        f"{path} is damaged, or holds more than tensors and was not read", found=name, fix=_CONVERT
    )


def _check_archive(path: Path) -> None:
    """Ask that the archive is whole and that nothing in it grows when it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path} is not a whole PyTorch file ({error})",
            expected="a zip archive as torch has written since version 1.6",
            fix=DOWNLOAD_AGAIN,
        ) from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{path} is compressed, which torch never writes", fix=_CONVERT)
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(f"{path} claims more data than it holds", fix=DOWNLOAD_AGAIN)


def _checked(path: Path, loaded: object) -> dict[str, torch.Tensor]:
    torch = import_torch()
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path} does not hold named tensors",
            expected="a dictionary",
            found=type(loaded).__name__,
        )
    size = path.stat().st_size
    for name, tensor in loaded.items():
        dense = (
            isinstance(name, str)
            and isinstance(tensor, torch.Tensor)
            and tensor.layout == torch.strided
            and tensor.device.type == "cpu"
            and not tensor.is_quantized
        )
        # Strides of zero make any shape out of one number: reading such a tensor would fill the
        # memory, and the file cannot hold it.
        if not dense or tensor.numel() * tensor.element_size() > size:
            raise CheckpointError(
                f"{path}: `{name}` is not a plain tensor of a size that the file can hold",
                fix=_CONVERT,
            )
    return loaded
