"""Streams a model's parameters from the checkpoint to the artifact, a layer at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm.relax.frontend import nn

from mvlm.models.checkpoint import Checkpoint
from mvlm.models.layers import packed_layers
from mvlm.runtime.artifact.layout import WEIGHT_ALIGNMENT
from mvlm.runtime.artifact.weights import TensorEntry, WeightsIndex
from mvlm.runtime.errors import CheckpointError


def write_weights(
    model: nn.Module,
    parameters: list[tuple[str, nn.Parameter]],
    checkpoint: Checkpoint,
    path: Path,
    progress: Callable[[int], None] = lambda tensors: None,
) -> WeightsIndex:
    """Pack every parameter and write it to `path`.

    The layers are packed in the model's order; the index lists them in the order in which the
    compiled functions take them.

    Args:
        model: The model that the parameters belong to.
        parameters: Names and parameters as the export returned them.
        checkpoint: Where the tensors come from; its names and shapes have been checked.
        path: The file to write.
        progress: Called with the number of checkpoint tensors that were just packed.

    Raises:
        CheckpointError: A tensor holds NaN or infinite values, or does not fit its parameter.
    """
    expected = dict(parameters)
    entries: dict[str, TensorEntry] = {}

    def read(name: str) -> npt.NDArray[Any]:
        tensor = checkpoint.read(name)
        _refuse_nonfinite(name, tensor)
        return tensor

    with path.open("wb") as file:
        for prefix, layer in packed_layers(model):
            for name, value in layer.pack(read):
                full = f"{prefix}.{name}"
                file.write(bytes(-file.tell() % WEIGHT_ALIGNMENT))
                entries[full] = _entry(full, value, expected[full], file.tell())
                file.write(np.ascontiguousarray(value).data)
            progress(len(layer.sources()))
    return WeightsIndex(tuple(entries[name] for name, _ in parameters))


def _entry(name: str, value: npt.NDArray[Any], parameter: nn.Parameter, offset: int) -> TensorEntry:
    wanted = tuple(int(extent) for extent in parameter.shape)
    if value.shape != wanted or str(value.dtype) != str(parameter.dtype):
        # The checkpoint's shapes were checked by name, so this is our own packing gone wrong.
        raise CheckpointError(
            f"parameter {name} was packed wrongly",
            expected=f"{parameter.dtype} {wanted}",
            found=f"{value.dtype} {value.shape}",
        )
    return TensorEntry(name, wanted, str(value.dtype), offset)


def _refuse_nonfinite(name: str, tensor: npt.NDArray[Any]) -> None:
    # A sum is finite only if every term is, and costs no second array of the tensor's size.
    with np.errstate(invalid="ignore"):
        total = tensor.astype(np.float32, copy=False).sum(dtype=np.float64)
    if not np.isfinite(total):
        raise CheckpointError(
            f"tensor {name} holds NaN or infinite values",
            expected="finite weights",
            found=f"{int((~np.isfinite(tensor.astype(np.float32))).sum())} of {tensor.size}",
            fix="Download the checkpoint again, or ask whoever trained it.",
        )
