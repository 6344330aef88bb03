"""Packs a job's weights: within an artifact, or apart, for the artifacts of several devices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvlm.compile.hardlinks import link_or_copy
from mvlm.compile.job import CompileJob
from mvlm.compile.memory import check_memory
from mvlm.compile.weights import source_bytes, write_weights
from mvlm.models.checkpoint import Checkpoint, expected_tensors, open_checkpoint
from mvlm.models.layers import packed_layers
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.onnx_vision import import_vision
from mvlm.runtime.artifact import layout
from mvlm.runtime.artifact.staging import atomic_directory
from mvlm.runtime.artifact.weights import map_weights, read_weights_index
from mvlm.runtime.errors import ArtifactError, TokenizerError
from mvlm.runtime.tokenizer import Tokenizer

# Called with what is being done, how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]
# Names and parameters in the order in which the compiled functions take them.
Parameters = list[tuple[str, Any]]

# Rows of an embedding table that no piece belongs to: tables are filled up to round numbers.
_SPARE_ROWS = 256


@dataclass(frozen=True)
class PackedWeights:
    """Weights that were packed before, for whatever device.

    Attributes:
        folder: Has ``weights/`` with its index, and the tokenizer, as an artifact has them.
        checkpoint: The digest of the checkpoint that they were made of.
    """

    folder: Path
    checkpoint: str


def build_model(job: CompileJob) -> MobileVLM:
    """Return the model that a job's checkpoint describes; reads no weights."""
    onnx = (
        None
        if job.vision_onnx is None
        else import_vision(job.vision_onnx, job.config, allow_nonfinite=job.allow_nonfinite)
    )
    return MobileVLM(job.config, job.quantization, onnx)


def open_weights(job: CompileJob, model: MobileVLM) -> Checkpoint:
    """Open a job's checkpoint, and ask that it is the model's and that there is memory for it.

    Raises:
        CheckpointError: Weights are missing, unexpected or misshapen.
        TokenizerError: The tokenizer is damaged, or has more pieces than the model has rows.
        TargetError: There is too little memory.
    """
    checkpoint = open_checkpoint(
        job.checkpoint, job.vision_tower, job.adapter, allow_nonfinite=job.allow_nonfinite
    )
    used = {name for _, layer in packed_layers(model) for name in layer.sources()}
    checkpoint.check(expected_tensors(job.config), used).raise_if_bad()
    _check_tokenizer(job)
    check_memory(model, checkpoint)
    return checkpoint


def pack_job(
    job: CompileJob, output: Path, progress: Progress = lambda step, done, total: None
) -> None:
    """Write a job's weights and tokenizer as :class:`PackedWeights`, whole or not at all.

    Raises:
        CheckpointError: Weights are missing, unexpected, misshapen or not finite.
        TokenizerError: The tokenizer is damaged, or has more pieces than the model has rows.
        TargetError: There is too little memory.
        ArtifactError: They cannot be written.
    """
    model = build_model(job)
    checkpoint = open_weights(job, model)
    with atomic_directory(output, layout.WEIGHTS_INDEX) as folder:
        pack_into(folder, job, model, list(model.named_parameters()), checkpoint, progress)


def pack_into(
    folder: Path,
    job: CompileJob,
    model: MobileVLM,
    parameters: Parameters,
    checkpoint: Checkpoint,
    progress: Progress,
) -> None:
    """Write weights, their index and the tokenizer into an artifact's folder.

    Args:
        folder: The artifact's.
        job: What the weights are of.
        model: The job's.
        parameters: The model's, in the order in which the compiled functions take them.
        checkpoint: The job's, which has been checked.
        progress: Called as the work proceeds.

    Raises:
        CheckpointError: A tensor is not finite, or a part of the adapter was not merged.
    """
    total = sum(source_bytes(layer, checkpoint) for _, layer in packed_layers(model))
    done = 0

    def packed(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress("weights", done, total)

    (folder / layout.WEIGHTS).mkdir(exist_ok=True)
    index = write_weights(
        model,
        parameters,
        checkpoint,
        folder / layout.WEIGHTS,
        progress=packed,
    )
    checkpoint.check_adapter_used()
    write_json(folder / layout.WEIGHTS_INDEX, index.to_json())
    shutil.copyfile(job.tokenizer, folder / layout.TOKENIZER)


def take_packed(folder: Path, packed: PackedWeights, parameters: Parameters) -> None:
    """Put weights that were packed before into an artifact's folder; linked where that can be.

    Raises:
        ArtifactError: They are not this model's, or not whole.
    """
    map_weights(packed.folder)  # which checks that every tensor lies within its file
    index = read_weights_index(packed.folder)
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


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write one of an artifact's documents."""
    path.write_text(json.dumps(values, sort_keys=True, indent=1) + "\n", encoding="utf-8")


def _check_tokenizer(job: CompileJob) -> None:
    pieces = Tokenizer(job.tokenizer, legacy=job.config.tokenizer.legacy).vocab_size
    rows = job.config.language.vocab_size
    if not rows - _SPARE_ROWS <= pieces <= rows:
        raise TokenizerError(
            f"{job.tokenizer} does not belong to the model",
            expected=f"{rows} pieces, one for each row of the embedding table, "
            f"or up to {_SPARE_ROWS} fewer",
            found=pieces,
            fix="Take the tokenizer from the place where the weights come from.",
        )
