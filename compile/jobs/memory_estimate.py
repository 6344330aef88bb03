"""Estimates a step's peak memory without building the model, which would import tvm."""

from __future__ import annotations

import math
from collections import defaultdict

from mvlm.compile.bits.memory_estimate import measuring_bytes
from mvlm.compile.calibration.memory_estimate import calibration_bytes
from mvlm.compile.calibration_data.samples import CalibrationData
from mvlm.compile.job import CompileJob
from mvlm.compile.memory import peak_bytes
from mvlm.models.checkpoint import expected_tensors
from mvlm.models.quantization import Quantization


def weights_bytes(job: CompileJob, data: CalibrationData | None) -> int:
    """Estimate the peak of packing a job's weights, and of what comes before.

    That is measuring the layers, where the job asks for a plan of bits, and calibrating.

    It is no less than the driver finds. Tensors of one block are taken for one layer, which is more
    than any layer of ours joins.

    Args:
        job: The job.
        data: What it is calibrated with, or None.

    Raises:
        MvlmError: The checkpoint cannot be opened.
    """
    checkpoint = job.open_checkpoint()
    stored_names = frozenset(checkpoint.names())
    stored = _largest_bits(job.quantization) / 8
    blocks: dict[str, float] = defaultdict(float)
    for name, shape in expected_tensors(job.config).items():
        if name in stored_names:
            blocks[_block(name)] += checkpoint.nbytes(name) + math.prod(shape) * stored
    peaks = [peak_bytes(blocks.values())]
    if job.quantization.bits is not None:
        peaks.append(measuring_bytes(job))
    if data is not None:
        peaks.append(calibration_bytes(job, data))
    return max(peaks)


def _largest_bits(schemes: Quantization) -> float:
    parts = (*schemes.layer_schemes(), schemes.embedding, schemes.head, schemes.vision)
    return max(part.weights.bits_per_weight for part in parts)


def _block(name: str) -> str:
    """Return what a tensor belongs to: of ``a.mlp.up_proj.weight``, ``a.mlp``."""
    parts = name.split(".")
    return ".".join(parts[:-2]) if len(parts) > 4 else name
