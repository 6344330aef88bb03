"""Packs weights: streams them from the checkpoint into an artifact's files, a layer at a time.

They go into the artifact itself, or into a folder of their own, from which the artifacts of several
devices take them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from tvm.relax.frontend import nn

from mvlm.compile.calibration.rounded_weights import RoundedMatrices
from mvlm.compile.hardlinks import link_or_copy
from mvlm.compile.job import CompileJob
from mvlm.models.checkpoint import Checkpoint
from mvlm.models.layers import Linear, PackedLayer, packed_layers
from mvlm.models.mobilevlm import MobileVLM
from mvlm.runtime.artifact import layout
from mvlm.runtime.artifact.json_object import write_json
from mvlm.runtime.artifact.weights import (
    TensorEntry,
    WeightsIndex,
    map_weights,
    read_weights_index,
)
from mvlm.runtime.errors import ArtifactError, CheckpointError
from mvlm.runtime.progress import Progress

# Names and parameters in the order in which the compiled functions take them.
Parameters: TypeAlias = list[tuple[str, nn.Parameter]]

# What each layer's parameters go into, by its name: a file for what adapters change together.
_FILES = (
    (re.compile(r"tower\b.*"), "tower"),
    (re.compile(r"image_projector\b.*"), "projector"),
    (re.compile(r"decoder\.embed_tokens"), "embedding"),
    (re.compile(r"decoder\.layers\.(\d+)\.(?:input_norm|attention\b.*)"), "layer-{:02}-attention"),
    (re.compile(r"decoder\.layers\.(\d+)\..*"), "layer-{:02}-mlp"),
    (re.compile(r"decoder\.(?:norm|lm_head)"), "head"),
)


PACKED_PLAN = "plan.json"
"""The plan of bits that weights were packed by, beside them."""


@dataclass(frozen=True)
class PackedWeights:
    """Weights that were packed before, for any target whose kernels have their layout.

    Attributes:
        folder: Has ``weights/`` with its index, and the tokenizer, as an artifact has them; and
            :data:`PACKED_PLAN`, if the job asked for a plan of bits.
        checkpoint: The digest of the checkpoint that they were made of.
    """

    folder: Path
    checkpoint: str


def pack_into(
    folder: Path,
    job: CompileJob,
    model: MobileVLM,
    parameters: Parameters,
    checkpoint: Checkpoint,
    progress: Progress,
    rounded: RoundedMatrices | None = None,
) -> None:
    """Write weights, their index and the tokenizer into an artifact's folder.

    Args:
        folder: The artifact's.
        job: What the weights are of.
        model: The job's.
        parameters: The model's, in the order in which the compiled functions take them.
        checkpoint: The job's, which has been checked.
        progress: Called as the work proceeds.
        rounded: The matrices that calibration has rounded, if the job is calibrated.

    Raises:
        ArtifactError: A rounded matrix is damaged.
        CheckpointError: A tensor is not finite, or a part of the adapter was not merged.
    """
    (folder / layout.WEIGHTS).mkdir(exist_ok=True)
    index = _write_weights(
        model, parameters, checkpoint, folder / layout.WEIGHTS, progress, rounded
    )
    checkpoint.check_adapter_used()
    write_json(folder / layout.WEIGHTS_INDEX, index.to_json())
    shutil.copyfile(job.tokenizer, folder / layout.TOKENIZER)


def take_packed(
    folder: Path, packed: PackedWeights, parameters: Parameters, layout_name: str
) -> None:
    """Put weights that were packed before into an artifact's folder; linked where that can be.

    Args:
        folder: The artifact's.
        packed: The weights.
        parameters: The model's, in the order in which the compiled functions take them.
        layout_name: The layout that the target's kernels read.

    Raises:
        ArtifactError: They are not this model's, in another layout, or not whole.
    """
    map_weights(packed.folder)  # which checks that every tensor lies within its file
    index = read_weights_index(packed.folder)
    if index.layout != layout_name:
        raise ArtifactError(
            "the packed weights have another layout than the target's kernels",
            expected=layout_name,
            found=index.layout,
            fix="Pack them again, for this target.",
        )
    found = [(entry.name, entry.shape, entry.dtype) for entry in index.tensors]
    wanted = [
        (name, tuple(map(int, parameter.shape)), str(parameter.dtype))
        for name, parameter in parameters
    ]
    if found != wanted:
        raise ArtifactError(
            "the packed weights are not this model's",
            expected=f"its {len(wanted)} parameters, in their order",
            found=f"{len(found)} tensors, of which {len({*found} & {*wanted})} agree",
            fix="Pack them again.",
        )
    (folder / layout.WEIGHTS).mkdir(exist_ok=True)
    files = sorted({f"{layout.WEIGHTS}/{entry.file}" for entry in index.tensors})
    for path in (*files, layout.WEIGHTS_INDEX, layout.TOKENIZER):
        link_or_copy(packed.folder / path, folder / path)


def _write_weights(
    model: MobileVLM,
    parameters: Parameters,
    checkpoint: Checkpoint,
    folder: Path,
    progress: Progress,
    rounded: RoundedMatrices | None,
) -> WeightsIndex:
    """Pack every layer, in the model's order; the index has the order of `parameters`."""
    total = sum(_source_bytes(layer, checkpoint) for _, layer in packed_layers(model))
    done, expected, entries = 0, dict(parameters), dict[str, TensorEntry]()
    for file_name, layers in groupby(packed_layers(model), lambda named: _weights_file(named[0])):
        with (folder / file_name).open("wb") as file:
            for prefix, layer in layers:
                for name, value in _packed(prefix, layer, checkpoint, rounded):
                    full = f"{prefix}.{name}"
                    file.write(bytes(-file.tell() % layout.WEIGHT_ALIGNMENT))
                    entries[full] = _entry(full, value, expected[full], file_name, file.tell())
                    file.write(np.ascontiguousarray(value).data)
                done += _source_bytes(layer, checkpoint)
                progress("weights", done, total)
    return WeightsIndex(model.layout.name, tuple(entries[name] for name, _ in parameters))


def _packed(
    name: str, layer: PackedLayer, checkpoint: Checkpoint, rounded: RoundedMatrices | None
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield a layer's parameters, its matrix as calibration has rounded it."""
    matrix = None if rounded is None else rounded.find(name)
    if matrix is not None and isinstance(layer, Linear):
        return layer.pack(checkpoint.read, matrix)
    return layer.pack(checkpoint.read)


def _weights_file(layer: str) -> str:
    """Return the name of the file that a layer's parameters go into."""
    for pattern, name in _FILES:
        if match := pattern.fullmatch(layer):
            return name.format(*map(int, match.groups())) + ".bin"
    raise KeyError(layer)


def _source_bytes(layer: PackedLayer, checkpoint: Checkpoint) -> int:
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
