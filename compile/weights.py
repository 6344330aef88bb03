"""Streams a model's parameters from the checkpoint to the artifact, a layer at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm.relax.frontend import nn

from mvlm.models.checkpoint import Checkpoint
from mvlm.models.layers import PackedLayer, packed_layers
from mvlm.runtime.artifact.layout import WEIGHT_ALIGNMENT
from mvlm.runtime.artifact.weights import TensorEntry, WeightsIndex
from mvlm.runtime.errors import CheckpointError

# What each layer's parameters go into, by its name: a file for what adapters change together.
_FILES = (
    (re.compile(r"tower\b.*"), "tower"),
    (re.compile(r"image_projector\b.*"), "projector"),
    (re.compile(r"decoder\.embed_tokens"), "embedding"),
    (re.compile(r"decoder\.layers\.(\d+)\.(?:input_norm|attention\b.*)"), "layer-{:02}-attention"),
    (re.compile(r"decoder\.layers\.(\d+)\..*"), "layer-{:02}-mlp"),
    (re.compile(r"decoder\.(?:norm|lm_head)"), "head"),
)


def write_weights(
    model: nn.Module,
    parameters: list[tuple[str, nn.Parameter]],
    checkpoint: Checkpoint,
    folder: Path,
    *,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> WeightsIndex:
    """Pack every parameter and write it to a file in `folder`.

    The layers are packed in the model's order; the index lists them in the order in which the
    compiled functions take them.

    Args:
        model: The model that the parameters belong to.
        parameters: Names and parameters as the export returned them.
        checkpoint: Where the tensors come from; its names and shapes have been checked.
        folder: Where the files go.
        progress: Called with the bytes of the checkpoint's tensors that were just packed.

    Raises:
        CheckpointError: A tensor holds NaN or infinite values, or does not fit its parameter.
    """
    expected = dict(parameters)
    entries: dict[str, TensorEntry] = {}

    for file_name, layers in groupby(packed_layers(model), lambda named: weights_file(named[0])):
        with (folder / file_name).open("wb") as file:
            for prefix, layer in layers:
                for name, value in layer.pack(checkpoint.read):
                    full = f"{prefix}.{name}"
                    file.write(bytes(-file.tell() % WEIGHT_ALIGNMENT))
                    entries[full] = _entry(full, value, expected[full], file_name, file.tell())
                    file.write(np.ascontiguousarray(value).data)
                progress(source_bytes(layer, checkpoint))
    return WeightsIndex(tuple(entries[name] for name, _ in parameters))


def weights_file(layer: str) -> str:
    """Return the name of the file that a layer's parameters go into."""
    for pattern, name in _FILES:
        if match := pattern.fullmatch(layer):
            return name.format(*map(int, match.groups())) + ".bin"
    raise KeyError(layer)


def source_bytes(layer: PackedLayer, checkpoint: Checkpoint) -> int:
    """Bytes of the checkpoint's tensors that a layer is made of."""
    return sum(checkpoint.nbytes(name) for name in layer.sources())


def _entry(
    name: str, value: npt.NDArray[Any], parameter: nn.Parameter, file: str, offset: int
) -> TensorEntry:
    wanted = tuple(int(extent) for extent in parameter.shape)
    if value.shape != wanted or str(value.dtype) != str(parameter.dtype):
        # The checkpoint's shapes were checked by name, so this is our own packing gone wrong.
        raise CheckpointError(
            f"parameter {name} was packed wrongly",
            expected=f"{parameter.dtype} {wanted}",
            found=f"{value.dtype} {value.shape}",
        )
    return TensorEntry(name, wanted, str(value.dtype), file, offset)
