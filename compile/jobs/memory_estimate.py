"""Estimates a step's peak memory without building the model, which would import tvm."""

from __future__ import annotations

import math
from collections import defaultdict

from mvlm.compile.job import CompileJob
from mvlm.models.checkpoint import expected_tensors, open_checkpoint
from mvlm.models.quantization import Quantization

# TVM, LLVM and torch, while they generate code or read a checkpoint: as in `compile.memory`.
PROGRAM_BYTES = 640 << 20
# Of a layer at once: what is read and what is joined of it, what is packed and what is written.
_COPIES = 2


def weights_bytes(job: CompileJob) -> int:
    """Estimate the peak of packing a job's weights: no less than `compile.memory` finds.

    Tensors of one block are taken for one layer, which is more than any layer of ours joins.

    Raises:
        MvlmError: The checkpoint cannot be opened.
    """
    checkpoint = open_checkpoint(job.checkpoint, job.vision_tower, job.adapter)
    stored_names = frozenset(checkpoint.names())
    stored = _largest_bits(job.quantization) / 8
    blocks: dict[str, float] = defaultdict(float)
    for name, shape in expected_tensors(job.config).items():
        if name in stored_names:
            blocks[_block(name)] += checkpoint.nbytes(name) + math.prod(shape) * stored
    return PROGRAM_BYTES + _COPIES * math.ceil(max(blocks.values(), default=0))


def _largest_bits(schemes: Quantization) -> float:
    parts = (schemes.language, schemes.embedding, schemes.head, schemes.vision)
    return max(part.weights.bits_per_weight for part in parts)


def _block(name: str) -> str:
    """Return what a tensor belongs to: of ``a.mlp.up_proj.weight``, ``a.mlp``."""
    parts = name.split(".")
    return ".".join(parts[:-2]) if len(parts) > 4 else name
